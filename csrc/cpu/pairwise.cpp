// What masks have in common, pair by pair, from their runs: no pixel is made.
//
// Outlines: one pass over the characters of each batch splits the runs of every mask in two. The
// first run of a column, if it ends in that column, goes into a table with two 16-bit rows a
// column; all others are listed by position, each with the pixels of those listed before it. In
// SA-1B 96 % of the runs go into the tables. A column takes 4 bytes, and a table has at most two
// for each of its runs; a listed run takes 8. So a run takes 4 bytes in most masks and never more
// than 8.
//
// Pairs: threads take rows of the output. The row's box is tested against all others, a few at a
// time in vector registers. Of two masks whose boxes meet only shared columns are looked at: table
// against table 8 columns in 9 instructions, a listed run against a table in one look-up a column,
// lists by a merge without branches, or by searching the longer one for each run of the shorter
// one. Pixels in common are the sum of the four. A batch with itself is half the pairs.
//
// Bound: splitting the runs, 75 us of 95 for 100 masks of SA-1B, of which reading characters is 20.
#include <chrono>
#include <memory>
#include <vector>

#include "../launch.h"
#include "candidates.h"
#include "outlines.h"
#include "parallel.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kScratchHits = 1 << 20;  // 8 MB of pairs between the threads and their output

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

}  // namespace

int64_t pairwise(const Batch& a, const Batch& b, const Pairwise& pairs, int num_threads) {
  std::vector<Image> images;
  const int64_t status = find_images(a, b, pairs.num_images, &images);
  if (status != kOk) return status;
  for (const Image& image : images) {
    if (image.rows > pairs.rows || image.columns > pairs.columns) return kBadHeader;
  }
  if (a.num_masks == 0 || b.num_masks == 0) return kOk;
  const Sides sides(a, b, std::move(images), num_threads);
  parallel_if_long(a.num_masks, num_threads, [&](int64_t i) {
    const int64_t k = sides.image_of(i);
    const Image& image = sides.images[k];
    const int64_t first = image.first_column, end = first + image.columns;
    const Outline& row = sides.rows[i];
    const auto at = [&](int64_t r, int64_t c) {
      return (k * pairs.rows + r - image.first_row) * pairs.columns + c - image.first_column;
    };
    // Of a batch with itself: the diagonal and what is right of it, which gives what is below.
    const int64_t begin = sides.is_same ? i : first;
    sides.boxes.for_each_meeting(row.box, begin, end, [&](int64_t j) {
      const Outline& column = sides.columns[j];
      const bool itself = sides.is_same && i == j;
      const uint32_t shared = itself ? row.area : intersect(row, column);
      if (shared == 0) return;
      pairs.write(at(i, j), j, row.area, column.area, shared);
      if (sides.is_same && !itself) pairs.write(at(j, i), i, column.area, row.area, shared);
    });
  });
  return kOk;
}

int64_t intersecting_pairs(const Batch& a, const Batch& b, const IntersectingPairs& pairs,
                           int num_threads) {
  std::vector<Image> images;
  const int64_t status = find_images(a, b, pairs.num_images, &images);
  if (status != kOk) return status;
  if (a.num_masks == 0 || b.num_masks == 0) return 0;
  int64_t most = 1;
  for (const Image& image : images) most = std::max(most, image.columns);
  const Sides sides(a, b, std::move(images), num_threads);

  // Threads fill rows of hits, a block of rows at a time; then the hits are written in order.
  struct Hit {
    uint32_t column, area;
  };
  const int64_t block = std::clamp<int64_t>(kScratchHits / most, 1, a.num_masks);
  const std::unique_ptr<Hit[]> hits(new Hit[block * most]);
  std::vector<int64_t> num_hits(block);
  int64_t found = 0;
  for (int64_t begin = 0; begin < a.num_masks; begin += block) {
    const int64_t rows = std::min(block, a.num_masks - begin);
    parallel_if_long(rows, num_threads, [&](int64_t r) {
      const Image& image = sides.images[sides.image_of(begin + r)];
      const Outline& row = sides.rows[begin + r];
      Hit* next = hits.get() + r * most;
      sides.boxes.for_each_meeting(
          row.box, image.first_column, image.first_column + image.columns, [&](int64_t j) {
            const uint32_t shared = intersect(row, sides.columns[j]);
            *next = {static_cast<uint32_t>(j - image.first_column), shared};
            next += shared > 0;
          });
      num_hits[r] = next - (hits.get() + r * most);
    });
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = sides.images[sides.image_of(begin + r)].first_column;
      for (int64_t k = 0; k < num_hits[r]; ++k, ++found) {
        if (found >= pairs.capacity) continue;
        const Hit& hit = hits[r * most + k];
        pairs.indices[2 * found] = begin + r;
        pairs.indices[2 * found + 1] = first + hit.column;
        pairs.intersection[found] = hit.area;
      }
    }
  }
  return found;
}

}  // namespace sa1b::cpu
