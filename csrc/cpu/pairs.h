// Going through the pairs of masks that meet, which all comparisons share.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "../launch.h"
#include "candidates.h"
#include "outlines.h"
#include "parallel.h"

namespace sa1b::cpu {

// Everything that is compared, ready for the pairs.
struct Sides {
  Sides(const Batch& a, const Batch& b, std::vector<Image> in_images, int num_threads)
      : images(std::move(in_images)),
        is_same(a.data == b.data && a.num_bytes == b.num_bytes && a.num_masks == b.num_masks),
        rows(a, num_threads),
        others(is_same ? nullptr : new Outlines(b, num_threads)),
        columns(is_same ? rows : *others),
        boxes(columns) {}

  // The image that mask `row` is in, as a number. Images without rows share the first row of the
  // next, so the last that does not begin behind the row has it.
  int64_t image_of(int64_t row) const {
    const auto after =
        std::upper_bound(images.begin(), images.end(), row,
                         [](int64_t i, const Image& image) { return i < image.first_row; });
    return after - images.begin() - 1;
  }

  const std::vector<Image> images;
  const bool is_same;  // the batch is compared with itself
  const Outlines rows;
  const std::unique_ptr<const Outlines> others;
  const Outlines& columns;
  const Boxes boxes;
};

// Calls work(item) for every item, from this thread alone until it is known what an item takes,
// then from as many threads as the rest is worth. Where other processes keep the cores busy a
// thread that was started can cost 10 ms, so some time must be there to be won.
template <class Work>
void parallel_if_long(int64_t items, int num_threads, Work work) {
  using Microseconds = std::chrono::duration<double, std::micro>;
  constexpr double kAlone = 500, kWorthAThread = 1500;
  const auto start = std::chrono::steady_clock::now();
  double elapsed = 0;
  int64_t done = 0;
  while (done < items && (num_threads == 1 || elapsed < kAlone)) {
    work(done++);
    if (num_threads > 1) elapsed = Microseconds(std::chrono::steady_clock::now() - start).count();
  }
  if (done == items) return;
  const double rest = elapsed / static_cast<double>(done) * static_cast<double>(items - done);
  const double worth = std::min(1 + rest / kWorthAThread, static_cast<double>(num_threads));
  parallel_for(items - done, static_cast<int>(worth), [&](int64_t i, int) { work(done + i); });
}

// Calls write(at, i, j, area of mask i, area of mask j, pixels in common) for each mask i of one
// batch and j of another with a pixel in common; `at` is their place in [num_rows][num_columns], of
// batches grouped by image in [num_images][num_rows][num_columns]. From several threads at once.
template <class Write>
int64_t for_each_pair(const Batch& a, const Batch& b, int64_t num_images, int64_t num_rows,
                      int64_t num_columns, int num_threads, Write write) {
  std::vector<Image> images;
  const int64_t status = find_images(a, b, num_images, &images);
  if (status != kOk) return status;
  for (const Image& image : images) {
    if (image.rows > num_rows || image.columns > num_columns) return kBadHeader;
  }
  if (a.num_masks == 0 || b.num_masks == 0) return kOk;
  const Sides sides(a, b, std::move(images), num_threads);
  parallel_if_long(a.num_masks, num_threads, [&](int64_t i) {
    const int64_t k = sides.image_of(i);
    const Image& image = sides.images[k];
    const int64_t first = image.first_column, end = first + image.columns;
    const Outline& row = sides.rows[i];
    const auto at = [&](int64_t r, int64_t c) {
      return (k * num_rows + r - image.first_row) * num_columns + c - image.first_column;
    };
    // Of a batch with itself: the diagonal and what is right of it, which gives what is below.
    const int64_t begin = sides.is_same ? i : first;
    sides.boxes.for_each_meeting(row.box, begin, end, [&](int64_t j) {
      const Outline& column = sides.columns[j];
      const bool itself = sides.is_same && i == j;
      const uint32_t shared = itself ? row.area : intersect(row, column);
      if (shared == 0) return;
      write(at(i, j), i, j, row.area, column.area, shared);
      if (sides.is_same && !itself) write(at(j, i), j, i, column.area, row.area, shared);
    });
  });
  return kOk;
}

}  // namespace sa1b::cpu
