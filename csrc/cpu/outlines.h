// The runs of masks split so that what two of them share is found quickly; for all that compares
// pairs of masks. pairwise.cpp says why.
#pragma once

#include <memory>
#include <vector>

#include "box.h"
#include "parallel.h"

namespace sa1b::cpu {

constexpr uint32_t kMaxTableRows = 32767;  // rows are compared as signed 16-bit numbers
constexpr uint32_t kMaxTableColumns = 1 << 14;
constexpr int64_t kMaxRunsPerColumn = 4;  // with more than that a table would hold too few of them
constexpr int64_t kSearchRatio = 16;      // a list that many times longer is searched, not merged

// A listed run. It has next->before - before pixels, so one entry more ends the list.
struct Run {
  uint32_t start;   // position of its first pixel
  uint32_t before;  // pixels of the listed runs before it
};

inline uint32_t end_of(const Run* run) { return run->start + (run[1].before - run->before); }

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
inline Outline split_runs(const Mask& mask, Scratch* scratch, uint8_t* memory) {
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

inline uint32_t shared_rows(uint32_t top_a, uint32_t bottom_a, uint32_t top_b, uint32_t bottom_b) {
  const uint32_t top = std::max(top_a, top_b), bottom = std::min(bottom_a, bottom_b);
  return bottom > top ? bottom - top : 0;
}

// Sum over [0, n) of the rows that two tables share.
inline uint32_t shared_by_tables(const uint16_t* top_a, const uint16_t* bottom_a,
                                 const uint16_t* top_b, const uint16_t* bottom_b, uint32_t n) {
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
inline const Run* first_ending_after(const Outline& mask, uint32_t position) {
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
inline uint32_t shared_by_list_and_table(const Outline& a, const Outline& b) {
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
inline uint32_t pixels_before(const Run* runs, const Run** from, const Run* end,
                              uint32_t position) {
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

inline uint32_t shared_by_search(const Run* shorter, const Run* shorter_end,
                                 const Outline& longer) {
  const Run* const end = longer.runs + longer.num_runs;
  const Run* from = longer.runs;
  uint32_t total = 0;
  for (; shorter != shorter_end; ++shorter) {
    const uint32_t before = pixels_before(longer.runs, &from, end, shorter->start);
    total += pixels_before(longer.runs, &from, end, end_of(shorter)) - before;
  }
  return total;
}

inline uint32_t shared_by_merge(const Run* a, const Run* a_end, const Run* b, const Run* b_end) {
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
inline uint32_t shared_by_lists(const Outline& a, const Outline& b) {
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
inline uint32_t intersect(const Outline& a, const Outline& b) {
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

}  // namespace sa1b::cpu
