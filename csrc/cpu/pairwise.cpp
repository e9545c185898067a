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
#include "box.h"
#include "parallel.h"

namespace sa1b::cpu {
namespace {

constexpr uint32_t kMaxTableRows = 32767;  // rows are compared as signed 16-bit numbers
constexpr uint32_t kMaxTableColumns = 1 << 14;
constexpr int64_t kMaxRunsPerColumn = 4;   // with more than that a table would hold too few of them
constexpr int64_t kSearchRatio = 16;       // a list that many times longer is searched, not merged
constexpr int64_t kScratchHits = 1 << 20;  // 8 MB of pairs between the threads and their output

// A listed run. It has next->before - before pixels, so one entry more ends the list.
struct Run {
  uint32_t start;   // position of its first pixel
  uint32_t before;  // pixels of the listed runs before it
};

uint32_t end_of(const Run* run) { return run->start + (run[1].before - run->before); }

// The runs of one mask, split into table and list.
struct Outline {
  Box box;
  uint32_t h = 0;
  uint32_t area = 0;
  uint32_t table_end = 0;            // the table holds columns [box.left, table_end)
  const uint16_t* top = nullptr;     // [table_end - box.left] first row of the column's run
  const uint16_t* bottom = nullptr;  // [table_end - box.left] the row after its last; 0, 0 for none
  const Run* runs = nullptr;         // [num_runs + 1], sorted
  int64_t num_runs = 0;

  const uint16_t* end_of_table() const { return bottom + (table_end - box.left); }
};

// A table whose width is not known yet.
struct Scratch {
  uint16_t top[kMaxTableColumns], bottom[kMaxTableColumns];
};

// Splits the runs of a mask. The list goes to `memory`, and behind it the table.
Outline split_runs(const Mask& mask, Scratch* scratch, uint8_t* memory) {
  const uint32_t h = mask.h;
  const int64_t chars = mask.end - mask.begin;
  const bool tabled = h <= kMaxTableRows && chars <= 2 * kMaxRunsPerColumn * mask.w;
  uint16_t *const top = scratch->top, *const bottom = scratch->bottom;
  auto* const runs = reinterpret_cast<Run*>(memory);
  Run* next = runs;
  uint32_t area = 0, listed = 0, columns = 0;  // columns of the table so far
  uint32_t most_columns = tabled ? 2 : 0;      // it may have two for each of its runs
  Box box;
  box.top = h;
  Cursor at(h);
  for_each_run(mask, [&](uint32_t start, uint32_t end) SA1B_ALWAYS_INLINE {
    at.move_to(start);
    const uint32_t x = at.x(), y = at.y(), length = end - start;
    at.move_to(end - 1);  // from there the next run is less than a column away, as `at` expects
    if (area == 0) box.left = x;
    area += length;
    box.right = at.x() + 1;
    if (at.x() == x) {
      box.top = std::min(box.top, y);
      box.bottom = std::max(box.bottom, y + length);
      const uint32_t column = x - box.left;
      if (column >= columns && column < most_columns) {
        for (; columns < column; ++columns) top[columns] = bottom[columns] = 0;
        top[columns] = static_cast<uint16_t>(y);
        bottom[columns] = static_cast<uint16_t>(y + length);
        ++columns;
        most_columns = std::min(most_columns + 2, kMaxTableColumns);
        return;
      }
    } else {
      box.top = 0;
      box.bottom = h;
    }
    *next++ = {start, listed};
    listed += length;
  });
  *next = {~0u, listed};
  auto* const table = reinterpret_cast<uint16_t*>(next + 1);
  std::copy_n(top, columns, table);
  std::copy_n(bottom, columns, table + columns);
  Outline outline;
  outline.box = area == 0 ? Box{} : box;
  outline.h = h;
  outline.area = area;
  outline.table_end = outline.box.left + columns;
  outline.top = table;
  outline.bottom = table + columns;
  outline.runs = runs;
  outline.num_runs = next - runs;
  return outline;
}

// The outlines of a batch whose header is sound.
class Outlines {
 public:
  Outlines(const Batch& batch, int num_threads) : outlines_(batch.num_masks) {
    const int64_t n = batch.num_masks;
    const int64_t first_char = batch.word(2 * n), chars = batch.word(3 * n) - first_char;
    // Room for the most that there can be, a run every two characters and the end of each list.
    // What a thread does not fill it does not touch, and memory nobody touches costs nothing.
    const auto room_before = [&](int64_t i) {
      return 8 * ((batch.word(2 * n + i) - first_char) / 2 + i);
    };
    memory_.reset(new uint8_t[room_before(n)]);
    const int threads = useful_threads(num_threads, n, 16 * chars);
    const std::unique_ptr<Scratch[]> scratch(new Scratch[threads]);
    parallel_for(threads, threads, [&](int64_t part, int) {
      // Parts of about as many characters; the outlines of each lie one behind the other.
      const auto begin_of = [&](int64_t p) {
        int64_t low = 0, high = n;
        while (low < high) {
          const int64_t middle = (low + high) / 2;
          const bool before = batch.word(2 * n + middle) - first_char < chars * p / threads;
          (before ? low : high) = before ? middle + 1 : middle;
        }
        return p == threads ? n : p == 0 ? 0 : low;
      };
      const int64_t end = begin_of(part + 1);
      int64_t i = begin_of(part);
      uint8_t* memory = memory_.get() + room_before(i);
      for (; i < end; ++i) {
        Mask mask;
        batch.mask(i, &mask);
        outlines_[i] = split_runs(mask, &scratch[part], memory);
        const auto used = reinterpret_cast<const uint8_t*>(outlines_[i].end_of_table()) - memory;
        memory += (used + 7) / 8 * 8;
      }
    });
  }

  const Outline& operator[](int64_t i) const { return outlines_[i]; }
  int64_t size() const { return static_cast<int64_t>(outlines_.size()); }

 private:
  std::vector<Outline> outlines_;
  std::unique_ptr<uint8_t[]> memory_;
};

// ---- One pair

uint32_t shared_rows(uint32_t top_a, uint32_t bottom_a, uint32_t top_b, uint32_t bottom_b) {
  const uint32_t top = std::max(top_a, top_b), bottom = std::min(bottom_a, bottom_b);
  return bottom > top ? bottom - top : 0;
}

// Sum over [0, n) of the rows that two tables share.
uint32_t shared_by_tables(const uint16_t* top_a, const uint16_t* bottom_a, const uint16_t* top_b,
                          const uint16_t* bottom_b, uint32_t n) {
  uint32_t total = 0, i = 0;
#if SA1B_GROUPS_OF_16
  const auto load = [](const uint16_t* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  };
  __m128i sums = _mm_setzero_si128();
  for (; n - i >= 8; i += 8) {
    const __m128i top = _mm_max_epi16(load(top_a + i), load(top_b + i));
    const __m128i bottom = _mm_min_epi16(load(bottom_a + i), load(bottom_b + i));
    const __m128i rows = _mm_subs_epu16(bottom, top);
    sums = _mm_add_epi32(sums, _mm_madd_epi16(rows, _mm_set1_epi16(1)));
  }
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, _MM_SHUFFLE(1, 0, 3, 2)));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, _MM_SHUFFLE(2, 3, 0, 1)));
  total = static_cast<uint32_t>(_mm_cvtsi128_si32(sums));
#endif
  for (; i < n; ++i) total += shared_rows(top_a[i], bottom_a[i], top_b[i], bottom_b[i]);
  return total;
}

// The first listed run that ends after a position.
const Run* first_ending_after(const Outline& mask, uint32_t position) {
  const Run* low = mask.runs;
  for (int64_t n = mask.num_runs; n > 0;) {
    const int64_t half = n / 2;
    const bool before = end_of(low + half) <= position;
    low = before ? low + half + 1 : low;
    n = before ? n - half - 1 : half;
  }
  return low;
}

// Pixels that the listed runs of `a` share with the table of `b`.
uint32_t shared_by_list_and_table(const Outline& a, const Outline& b) {
  const uint32_t left = std::max(a.box.left, b.box.left);
  const uint32_t right = std::min(a.box.right, b.table_end);
  if (a.num_runs == 0 || left >= right) return 0;
  const uint32_t h = a.h, begin = left * h, end = right * h;
  const Run* const last = a.runs + a.num_runs;
  uint32_t total = 0;
  for (const Run* run = first_ending_after(a, begin); run != last && run->start < end; ++run) {
    uint32_t at = std::max(run->start, begin);
    const uint32_t stop = std::min(end_of(run), end);
    uint32_t x = at / h, y = at - x * h;
    while (at < stop) {  // column by column
      const uint32_t rows = std::min(stop - at, h - y), column = x - b.box.left;
      total += shared_rows(y, y + rows, b.top[column], b.bottom[column]);
      at += rows;
      y = 0;
      ++x;
    }
  }
  return total;
}

// Pixels of listed runs that lie before a position. All runs before `from` start at it or earlier;
// `from` moves on to the first that starts later.
uint32_t pixels_before(const Run* runs, const Run** from, const Run* end, uint32_t position) {
  const Run* low = *from;
  int64_t step = 1;
  while (step <= end - low && low[step - 1].start <= position) {
    low += step;
    step *= 2;
  }
  low = std::upper_bound(low, std::min(low + step, end), position,
                         [](uint32_t p, const Run& run) { return p < run.start; });
  *from = low;
  if (low == runs) return 0;
  const Run& run = low[-1];
  return run.before + std::min(position - run.start, low->before - run.before);
}

uint32_t shared_by_search(const Run* shorter, const Run* shorter_end, const Outline& longer) {
  const Run* const end = longer.runs + longer.num_runs;
  const Run* from = longer.runs;
  uint32_t total = 0;
  for (; shorter != shorter_end; ++shorter) {
    const uint32_t before = pixels_before(longer.runs, &from, end, shorter->start);
    total += pixels_before(longer.runs, &from, end, end_of(shorter)) - before;
  }
  return total;
}

uint32_t shared_by_merge(const Run* a, const Run* a_end, const Run* b, const Run* b_end) {
  uint32_t total = 0;
  while (a != a_end && b != b_end) {
    const uint32_t end_a = end_of(a), end_b = end_of(b);
    total += shared_rows(a->start, end_a, b->start, end_b);
    a += end_a <= end_b;
    b += end_b <= end_a;
  }
  return total;
}

// Pixels that are in a listed run of either mask.
uint32_t shared_by_lists(const Outline& a, const Outline& b) {
  if (a.num_runs == 0 || b.num_runs == 0) return 0;
  const uint32_t begin = std::max(a.box.left, b.box.left) * a.h;
  const uint32_t end = std::min(a.box.right, b.box.right) * a.h;
  const auto starts_before = [](const Run& run, uint32_t p) { return run.start < p; };
  const Run* const a_first = first_ending_after(a, begin);
  const Run* const b_first = first_ending_after(b, begin);
  const Run* const a_last = std::lower_bound(a_first, a.runs + a.num_runs, end, starts_before);
  const Run* const b_last = std::lower_bound(b_first, b.runs + b.num_runs, end, starts_before);
  if ((a_last - a_first) * kSearchRatio < b_last - b_first) {
    return shared_by_search(a_first, a_last, b);
  }
  if ((b_last - b_first) * kSearchRatio < a_last - a_first) {
    return shared_by_search(b_first, b_last, a);
  }
  return shared_by_merge(a_first, a_last, b_first, b_last);
}

// The pixels of two masks of one size that are in both.
uint32_t intersect(const Outline& a, const Outline& b) {
  uint32_t total = 0;
  const uint32_t left = std::max(a.box.left, b.box.left);
  const uint32_t table_end = std::min(a.table_end, b.table_end);
  if (left < table_end) {
    const uint32_t in_a = left - a.box.left, in_b = left - b.box.left;
    total = shared_by_tables(a.top + in_a, a.bottom + in_a, b.top + in_b, b.bottom + in_b,
                             table_end - left);
  }
  total += shared_by_list_and_table(a, b) + shared_by_list_and_table(b, a);
  return total + shared_by_lists(a, b);
}

// ---- Which pairs

// The sides of all boxes, each side by itself, so that several boxes are compared at once; as
// signed numbers, which is what vector registers compare.
class Boxes {
 public:
  explicit Boxes(const Outlines& masks) : n_(masks.size()), sides_(4 * masks.size()) {
    for (int64_t i = 0; i < n_; ++i) {
      const Box& box = masks[i].box;
      left()[i] = ordered(box.left);
      right()[i] = ordered(box.right);
      top()[i] = ordered(box.top);
      bottom()[i] = ordered(box.bottom);
    }
  }

  // Calls visit(i) for every box in [begin, end) that has a pixel in common with this one.
  template <class Visit>
  void for_each_meeting(const Box& box, int64_t begin, int64_t end, Visit visit) const {
    if (box.right == 0) return;
    const int32_t left_of = ordered(box.left), right_of = ordered(box.right);
    const int32_t top_of = ordered(box.top), bottom_of = ordered(box.bottom);
    constexpr int64_t kBlock = 256;
    for (; begin < end; begin += kBlock) {
      uint8_t meets[kBlock] = {};
      const int64_t n = std::min(kBlock, end - begin);
      const int32_t *const l = left() + begin, *const r = right() + begin;
      const int32_t *const t = top() + begin, *const b = bottom() + begin;
      for (int64_t i = 0; i < n; ++i) {
        meets[i] = (l[i] < right_of) & (r[i] > left_of) & (t[i] < bottom_of) & (b[i] > top_of);
      }
      for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, meets + i, 8);
        if (eight == 0) continue;
        for (int64_t k = i; k < i + 8; ++k) {
          if (meets[k]) visit(begin + k);
        }
      }
    }
  }

 private:
  static int32_t ordered(uint32_t side) { return static_cast<int32_t>(side ^ 0x80000000u); }
  int32_t* left() { return sides_.data(); }
  int32_t* right() { return sides_.data() + n_; }
  int32_t* top() { return sides_.data() + 2 * n_; }
  int32_t* bottom() { return sides_.data() + 3 * n_; }
  const int32_t* left() const { return sides_.data(); }
  const int32_t* right() const { return sides_.data() + n_; }
  const int32_t* top() const { return sides_.data() + 2 * n_; }
  const int32_t* bottom() const { return sides_.data() + 3 * n_; }

  int64_t n_;
  std::vector<int32_t> sides_;
};

// The masks of one image in both batches; of flat batches, all.
struct Image {
  int64_t first_row, rows, first_column, columns;
};

// How many masks image k has. The table of images follows the offsets.
int64_t masks_of_image(const Batch& batch, int64_t k) {
  return batch.word(3 * batch.num_masks + 1 + 3 * k);
}

bool images_fit(const Batch& batch, int64_t num_images) {
  const int64_t words = batch.num_bytes / 8 - (3 * batch.num_masks + 1);
  return num_images >= 0 && num_images <= words / 3;
}

// Whether every header is sound, and every two masks that are compared have one size.
int64_t find_images(const Batch& a, const Batch& b, int64_t num_images,
                    std::vector<Image>* images) {
  for (const Batch* batch : {&a, &b}) {
    if (!batch->header_fits()) return kBadHeader;
    Mask mask;
    for (int64_t i = 0; i < batch->num_masks; ++i) {
      if (!batch->mask(i, &mask)) return kBadHeader;
    }
  }
  if (num_images == kNotGrouped) {
    images->push_back({0, a.num_masks, 0, b.num_masks});
  } else {
    if (!images_fit(a, num_images) || !images_fit(b, num_images)) return kBadHeader;
    Image image = {0, 0, 0, 0};
    for (int64_t k = 0; k < num_images; ++k) {
      image.first_row += image.rows;
      image.first_column += image.columns;
      image.rows = masks_of_image(a, k);
      image.columns = masks_of_image(b, k);
      if (image.rows < 0 || image.rows > a.num_masks - image.first_row) return kBadHeader;
      if (image.columns < 0 || image.columns > b.num_masks - image.first_column) return kBadHeader;
      images->push_back(image);
    }
    image.first_row += image.rows;
    image.first_column += image.columns;
    if (image.first_row != a.num_masks || image.first_column != b.num_masks) return kBadHeader;
  }
  for (const Image& image : *images) {
    if (image.rows == 0 || image.columns == 0) continue;
    const int64_t h = a.word(2 * image.first_row), w = a.word(2 * image.first_row + 1);
    const auto has_other_size = [&](const Batch& batch, int64_t first, int64_t n) {
      for (int64_t i = first; i < first + n; ++i) {
        if (batch.word(2 * i) != h || batch.word(2 * i + 1) != w) return true;
      }
      return false;
    };
    if (has_other_size(a, image.first_row, image.rows) ||
        has_other_size(b, image.first_column, image.columns)) {
      return kMixedSizes;
    }
  }
  return kOk;
}

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
