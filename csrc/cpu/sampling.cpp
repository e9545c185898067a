// Picks pixels of masks by their rank, from the runs: no pixel is made.
//
// The ranks of a mask are sorted; then one walk over the runs of the region, adding up their
// lengths, meets each rank in the run that holds it. Boundary pixels are runs as well: a run within
// one column, without what lies inside it and inside the runs to its left and right. Those are the
// runs of the same mask a column's height further on and back, so three readers walk the string
// side by side and no column is ever stored.
//
// The most interior pixel is the centre of the largest square that fits in. Each pixel is the lower
// right corner of a square one larger than the smallest at its left, upper and upper left
// neighbour, so two columns of sides are enough, and only foreground is ever looked at: about 1.5
// ns a pixel.
//
// Work is split into masks. Bound: reading the characters, three times for a boundary.
#include "../sampling.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "count_blocks.h"
#include "parallel.h"
#include "run_reader.h"

namespace sa1b::cpu {
namespace {

// The runs of a mask, each moved by some positions.
class MovedRuns {
 public:
  MovedRuns(const Mask& mask, int64_t by) : runs_(mask), by_(by) { next(); }

  // The first run that ends behind a position; positions grow from call to call.
  void skip_to(int64_t position) {
    while (end <= position) next();
  }

  int64_t start, end;

 private:
  void next() {
    uint32_t first, last;
    if (runs_.next(&first, &last)) {
      start = int64_t{first} + by_;
      end = int64_t{last} + by_;
    } else {
      start = end = INT64_MAX;
    }
  }

  RunReader runs_;
  int64_t by_;
};

// Calls visit(start, end) for every run of boundary pixels, in order; false from it ends the walk.
template <class Visit>
void for_each_boundary_run(const Mask& mask, Visit visit) {
  const int64_t h = mask.h;
  RunReader runs(mask);
  MovedRuns left(mask, h), right(mask, -h);
  uint32_t run_start, run_end;
  while (runs.next(&run_start, &run_end)) {
    const int64_t stop = run_end;
    for (int64_t start = run_start; start < stop;) {  // column by column
      const int64_t end = std::min(stop, start / h * h + h);
      // [at, end) is what remains; first and last pixel are boundary whatever is beside them.
      int64_t at = start;
      for (int64_t inner = start + 1; inner < end - 1;) {
        left.skip_to(inner);
        right.skip_to(inner);
        const int64_t begin = std::max({inner, left.start, right.start});
        const int64_t last = std::min({end - 1, left.end, right.end});
        if (begin < last) {
          if (!visit(static_cast<uint32_t>(at), static_cast<uint32_t>(begin))) return;
          at = last;
          inner = last;
        } else {
          inner = begin;
        }
      }
      if (!visit(static_cast<uint32_t>(at), static_cast<uint32_t>(end))) return;
      start = end;
    }
  }
}

// The same for every run between those of the mask.
template <class Visit>
void for_each_background_run(const Mask& mask, Visit visit) {
  RunReader runs(mask);
  uint32_t at = 0, start, end;
  while (runs.next(&start, &end)) {
    if (start > at && !visit(at, start)) return;
    at = end;
  }
  const auto pixels = static_cast<uint32_t>(mask.pixels());
  if (at < pixels) visit(at, pixels);
}

template <class Visit>
void for_each_foreground_run(const Mask& mask, Visit visit) {
  RunReader runs(mask);
  uint32_t start, end;
  while (runs.next(&start, &end)) {
    if (!visit(start, end)) return;
  }
}

template <class Visit>
void for_each_run_of(Region region, const Mask& mask, Visit visit) {
  switch (region) {
    case Region::kForeground:
      return for_each_foreground_run(mask, visit);
    case Region::kBackground:
      return for_each_background_run(mask, visit);
    case Region::kBoundary:
      return for_each_boundary_run(mask, visit);
  }
}

void find_pixels(const Mask& mask, Region region, const int64_t* ranks, int64_t num_ranks,
                 int64_t* order, int64_t* points) {
  std::iota(order, order + num_ranks, 0);
  std::sort(order, order + num_ranks, [&](int64_t a, int64_t b) { return ranks[a] < ranks[b]; });
  std::fill_n(points, 2 * num_ranks, -1);
  int64_t next = 0, before = 0;  // pixels in the runs before
  while (next < num_ranks && ranks[order[next]] < 0) ++next;
  if (next == num_ranks) return;
  for_each_run_of(region, mask, [&](uint32_t start, uint32_t end) {
    const int64_t until = before + (end - start);
    for (; next < num_ranks && ranks[order[next]] < until; ++next) {
      const auto position = static_cast<uint32_t>(start + (ranks[order[next]] - before));
      points[2 * order[next]] = position / mask.h;
      points[2 * order[next] + 1] = position % mask.h;
    }
    before = until;
    return next < num_ranks;
  });
}

// The largest squares of foreground that end in the rows of two neighbouring columns.
class Squares {
 public:
  // For masks of up to `rows` rows.
  explicit Squares(int64_t rows) : left_(rows + 1), own_(rows + 1) {}

  // Finds x, y and the distance to the outside of the most interior pixel of a mask.
  void find_interior(const Mask& mask, int64_t* point) {
    const int64_t h = mask.h;
    int64_t x = -2, y = -1, best = 0;
    point[0] = point[1] = -1;
    RunReader runs(mask);
    uint32_t run_start, run_end;
    while (runs.next(&run_start, &run_end)) {
      for (int64_t start = run_start; start < run_end;) {  // column by column
        move_to(x, start / h);
        x = start / h;
        y = start - x * h;
        const int64_t bottom = std::min<int64_t>(h, y + (run_end - start));
        own_rows_ = {std::min(own_rows_.first, y), bottom};
        start += bottom - y;
        uint32_t above = 0;
        for (; y < bottom; ++y) {
          // Element y + 1 belongs to row y; above row 0 there is no square.
          above = 1 + std::min({above, left_[y], left_[y + 1]});
          own_[y + 1] = above;
          // Sides grow one by one, so no distance is left out.
          if (above < 2 * best + 1) continue;
          point[0] = x - best;
          point[1] = y - best;
          ++best;
        }
      }
    }
    point[2] = best;
    move_to(x, x + 2);
  }

 private:
  // Makes the column at `to` the own one; its left neighbour is all zero if that is not `from`.
  void move_to(int64_t from, int64_t to) {
    if (from == to) return;
    clear(left_, &left_rows_);
    if (to == from + 1) {
      left_.swap(own_);
      std::swap(left_rows_, own_rows_);
    } else {
      clear(own_, &own_rows_);
    }
  }

  using Rows = std::pair<int64_t, int64_t>;  // from, to; outside them all is zero
  static constexpr Rows kNoRows = {INT64_MAX, 0};

  static void clear(std::vector<uint32_t>& squares, Rows* rows) {
    if (rows->first < rows->second) {
      std::fill(squares.begin() + rows->first + 1, squares.begin() + rows->second + 1, 0);
    }
    *rows = kNoRows;
  }

  std::vector<uint32_t> left_, own_;  // sides
  Rows left_rows_ = kNoRows, own_rows_ = kNoRows;
};

bool headers_are_sound(const Batch& batch) {
  if (!batch.header_fits()) return false;
  Mask mask;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    if (!batch.mask(i, &mask)) return false;
  }
  return true;
}

}  // namespace

int64_t boundary_area(const Batch& batch, int64_t* area, int num_threads) {
  if (!headers_are_sound(batch)) return kBadHeader;
  // Three readers, each of which costs what moving 16 bytes a character does.
  const int threads = useful_threads(num_threads, batch.num_masks, 48 * batch.num_bytes);
  parallel_for(batch.num_masks, threads, [&](int64_t i, int) {
    Mask mask;
    batch.mask(i, &mask);
    int64_t total = 0;
    for_each_boundary_run(mask, [&](uint32_t start, uint32_t end) {
      total += end - start;
      return true;
    });
    area[i] = total;
  });
  return kOk;
}

int64_t pixels_at_ranks(const Batch& batch, Region region, const int64_t* ranks, int64_t num_ranks,
                        int64_t* points, int num_threads) {
  if (!headers_are_sound(batch)) return kBadHeader;
  const int threads = useful_threads(num_threads, batch.num_masks,
                                     48 * batch.num_bytes + 64 * batch.num_masks * num_ranks);
  std::vector<std::vector<int64_t>> orders(threads, std::vector<int64_t>(num_ranks));
  parallel_for(batch.num_masks, threads, [&](int64_t i, int thread) {
    Mask mask;
    batch.mask(i, &mask);
    find_pixels(mask, region, ranks + i * num_ranks, num_ranks, orders[thread].data(),
                points + 2 * i * num_ranks);
  });
  return kOk;
}

int64_t interior_points(const Batch& batch, int64_t* points, int num_threads) {
  if (!headers_are_sound(batch)) return kBadHeader;
  int64_t rows = 0, pixels = 0;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    rows = std::max(rows, batch.word(2 * i));
    pixels += std::min<int64_t>(batch.word(2 * i) * batch.word(2 * i + 1), 1 << 30);
  }
  if (rows > kMaxInteriorRows) return kBadShape;
  const int threads = useful_threads(num_threads, batch.num_masks, pixels);
  std::vector<Squares> squares(threads, Squares(rows));
  parallel_for(batch.num_masks, threads, [&](int64_t i, int thread) {
    Mask mask;
    batch.mask(i, &mask);
    squares[thread].find_interior(mask, points + 3 * i);
  });
  return kOk;
}

}  // namespace sa1b::cpu
