// Flips, turns by multiples of 90 degrees and transposition.
//
// Columns that stay columns: the runs are gathered once and written again in another order, 8 bytes
// a run. Reversing all positions is the half turn; reversing the order of the columns alone also
// parts the runs that lie in several. Reversing the rows alone is both, one after the other.
//
// Rows that become columns: where column x differs from the one before, a run of rows begins or
// ends in each of the rows of difference. These boundaries come ordered by x; a counting sort by
// row brings them into the order of the result. The runs are read twice, to count and to place, 4
// bytes a boundary of the result. The rows are those of the mask's box, in bands of at least
// kBandRows, so that neither a tall mask nor one of few boundaries needs a table of all its rows.
//
// Work is split into masks.
#include <algorithm>

#include "../algebra.h"
#include "box.h"
#include "count_blocks.h"
#include "toggle_writer.h"

namespace sa1b::cpu {
namespace {

constexpr uint32_t kBandRows = 1 << 16;
constexpr size_t kKeptChanges = 1 << 13;

// Memory that grows and is never cleared.
template <class T>
class Buffer {
 public:
  T* of_size(size_t n) {
    if (size_ < n) {
      memory_.reset();
      memory_.reset(new T[n]);  // make_unique would clear it
      size_ = n;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<T[]> memory_;
  size_t size_ = 0;
};

struct Run {
  uint32_t start, end;
};

// Calls write(start, end) for the runs with the columns in reversed order. Changes the runs.
template <class Write>
void mirror(Run* runs, size_t n, uint32_t h, uint64_t pixels, Write write) {
  while (n > 0) {
    Run& last = runs[n - 1];
    const uint32_t x = (last.end - 1) / h;
    const uint32_t column = x * h, column_end = column + h;
    if (last.start <= column && last.end == column_end) {
      // Whole columns, from the first one that the run fills.
      const uint32_t first = last.start == 0 ? 0 : ((last.start - 1) / h + 1) * h;
      write(pixels - column_end, pixels - first);
      last.end = first;
    } else {
      size_t first = n - 1;  // of the runs in this column
      while (first > 0 && runs[first - 1].end > column) --first;
      const uint64_t to = pixels - column_end;
      for (size_t i = first; i < n; ++i) {
        write(to + (std::max(runs[i].start, column) - column), to + (runs[i].end - column));
      }
      n = first + 1;
      runs[first].end = column;
    }
    if (runs[n - 1].start >= runs[n - 1].end) --n;
  }
}

// Writes a mask whose columns stay columns.
void reverse(const Mask& mask, bool rows, bool columns, Buffer<Run>& buffer, CharStream& stream) {
  const uint64_t pixels = mask.pixels();
  ToggleWriter out(stream);
  const auto write = [&](uint64_t start, uint64_t end)
                         SA1B_ALWAYS_INLINE { out.add_run(start, end); };
  if (!rows && !columns) {
    for_each_run(mask, write);
    out.finish(pixels);
    return;
  }
  Run* const runs = buffer.of_size(static_cast<size_t>(mask.end - mask.begin) / 2 + 1);
  size_t n = 0;
  for_each_run(mask,
               [&](uint32_t start, uint32_t end) SA1B_ALWAYS_INLINE { runs[n++] = {start, end}; });
  if (rows) {
    std::reverse(runs, runs + n);
    for (size_t i = 0; i < n; ++i) {
      runs[i] = {static_cast<uint32_t>(pixels - runs[i].end),
                 static_cast<uint32_t>(pixels - runs[i].start)};
    }
  }
  if (rows && columns) {
    for (size_t i = 0; i < n; ++i) write(runs[i].start, runs[i].end);
  } else {
    mirror(runs, n, mask.h, pixels, write);
  }
  out.finish(pixels);
}

// The rows of one column where the mask changes, top to bottom, twice if a run touches the next;
// an even number, then kNoRow.
class Column {
 public:
  static constexpr uint32_t kNoRow = ~0u;

  void reserve(size_t most_rows) { rows_ = buffer_.of_size(most_rows + 1); }
  void clear() {
    size_ = 0;
    rows_[0] = kNoRow;
  }
  void add(uint32_t top, uint32_t bottom) {
    rows_[size_] = top;
    rows_[size_ + 1] = bottom;
    rows_[size_ += 2] = kNoRow;
  }
  const uint32_t* rows() const { return rows_; }
  bool is_one_run() const { return size_ == 2; }

 private:
  Buffer<uint32_t> buffer_;
  uint32_t* rows_ = nullptr;  // [size_ + 1]
  size_t size_ = 0;
};

// Calls visit(x, top, bottom) for the rows in which column x differs from the one before it, of
// rows [top, bottom) of a mask.
template <class Visit>
class ColumnChanges {
 public:
  ColumnChanges(Column& before, Column& current, uint32_t top, uint32_t bottom, Visit visit)
      : before_(&before), current_(&current), top_(top), bottom_(bottom), visit_(visit) {}

  void read(const Mask& mask) {
    before_->clear();
    current_->clear();
    const uint32_t h = mask.h;
    Cursor at(h);
    for_each_run(mask, [&](uint32_t start, uint32_t end) SA1B_ALWAYS_INLINE {
      at.move_to(start);
      const uint32_t x = at.x(), top = at.y();
      if (end - start <= h - top) {
        add(x, top, top + (end - start));
        return;
      }
      add(x, top, h);
      at.move_to(end - 1);
      // The columns between are full: only the first of them can differ from the one before.
      if (x + 1 < at.x()) add(x + 1, 0, h);
      if (x + 2 < at.x()) {
        add(x + 2, 0, h);
        x_ = at.x() - 1;
      }
      add(at.x(), 0, at.y() + 1);
    });
    move_to(x_ + 2);
  }

 private:
  SA1B_ALWAYS_INLINE void add(uint32_t x, uint32_t top, uint32_t bottom) {
    if (x != x_) move_to(x);
    top = std::clamp(top, top_, bottom_);
    bottom = std::clamp(bottom, top_, bottom_);
    if (top < bottom) current_->add(top, bottom);
  }

  // Goes on to an empty column x > x_.
  void move_to(uint32_t x) {
    compare();
    std::swap(before_, current_);
    current_->clear();
    if (x > x_ + 1) {
      ++x_;
      compare();
      before_->clear();
    }
    x_ = x;
  }

  SA1B_ALWAYS_INLINE void compare() {
    const uint32_t *a = before_->rows(), *b = current_->rows();
    // Two runs that overlap, as most do: no branch depends on which of them reaches farther.
    if (before_->is_one_run() && current_->is_one_run() &&
        std::max(a[0], b[0]) <= std::min(a[1], b[1])) {
      visit_(x_, std::min(a[0], b[0]), std::max(a[0], b[0]));
      visit_(x_, std::min(a[1], b[1]), std::max(a[1], b[1]));
      return;
    }
    compare_many(a, b);
  }

  void compare_many(const uint32_t* a, const uint32_t* b) {
    uint32_t top = 0;
    bool open = false;
    while (*a != *b || *a != Column::kNoRow) {
      const uint32_t row = std::min(*a, *b);
      const bool in_a = *a == row, in_b = *b == row;
      a += in_a;
      b += in_b;
      if (in_a == in_b) continue;
      if (open) visit_(x_, top, row);
      top = row;
      open = !open;
    }
  }

  Column *before_, *current_;
  uint32_t x_ = 0;  // of the current column
  uint32_t top_, bottom_;
  Visit visit_;
};

template <class Visit>
void for_each_change(const Mask& mask, Column* columns, uint32_t top, uint32_t bottom,
                     Visit visit) {
  ColumnChanges<Visit>(columns[0], columns[1], top, bottom, visit).read(mask);
}

// Rows [from, to) of a band, in which column x differs from the one before it.
struct Change {
  uint32_t x, from, to;
};

struct Scratch {
  Buffer<Run> runs;
  Buffer<Change> changes;  // [kKeptChanges + 1]
  Column columns[2];
  Buffer<int64_t> ends;  // [rows + 1]
  Buffer<uint32_t> xs;
};

// Writes a mask whose rows become columns.
void transpose(const Mask& mask, bool reverse_rows, bool reverse_columns, Scratch& scratch,
               CharStream& stream) {
  ToggleWriter out(stream);
  const Box box = find_box(mask);
  const auto chars = static_cast<uint64_t>(mask.end - mask.begin);
  for (Column& column : scratch.columns) {
    column.reserve(2 * (std::min<uint64_t>(mask.h, chars / 2) + 1));
  }
  const uint64_t w = mask.w;
  const auto band_rows = static_cast<uint32_t>(
      std::min<uint64_t>(box.bottom - box.top, std::max<uint64_t>(kBandRows, chars)));
  const uint32_t bands = band_rows == 0 ? 0 : (box.bottom - box.top - 1) / band_rows + 1;
  for (uint32_t band = 0; band < bands; ++band) {
    const uint32_t top = box.top + (reverse_columns ? bands - 1 - band : band) * band_rows;
    const uint32_t bottom = top + std::min(band_rows, box.bottom - top);
    const uint32_t rows = bottom - top;
    // How many boundaries more a row has than the one above; then where each row's begin; while
    // they are placed, where the next one goes; at last where they end.
    int64_t* const ends = scratch.ends.of_size(size_t{rows} + 1);
    std::fill(ends, ends + rows + 1, 0);
    Change* const changes = scratch.changes.of_size(kKeptChanges + 1);
    size_t num_changes = 0;
    for_each_change(mask, scratch.columns, top, bottom,
                    [&](uint32_t x, uint32_t from, uint32_t to) SA1B_ALWAYS_INLINE {
                      ++ends[from - top];
                      --ends[to - top];
                      changes[std::min(num_changes, kKeptChanges)] = {x, from - top, to - top};
                      num_changes += from < to;
                    });
    int64_t total = 0, in_row = 0;
    for (uint32_t y = 0; y < rows; ++y) {
      in_row += ends[y];
      ends[y] = total;
      total += in_row;
    }
    uint32_t* const xs = scratch.xs.of_size(static_cast<size_t>(total));
    const auto place = [&](const Change& change) SA1B_ALWAYS_INLINE {
      for (uint32_t y = change.from; y < change.to; ++y) xs[ends[y]++] = change.x;
    };
    if (num_changes <= kKeptChanges) {
      std::for_each(changes, changes + num_changes, place);
    } else {
      for_each_change(mask, scratch.columns, top, bottom,
                      [&](uint32_t x, uint32_t from, uint32_t to)
                          SA1B_ALWAYS_INLINE { place({x, from - top, to - top}); });
    }
    for (uint32_t i = 0; i < rows; ++i) {
      const uint32_t y = reverse_columns ? rows - 1 - i : i;
      const uint32_t *x = xs + (y == 0 ? 0 : ends[y - 1]), *end = xs + ends[y];
      const uint64_t column = uint64_t{reverse_columns ? mask.h - 1 - (top + y) : top + y} * w;
      if (reverse_rows) {
        for (; end != x; end -= 2) out.add_run(column + w - end[-1], column + w - end[-2]);
      } else {
        for (; x != end; x += 2) out.add_run(column + x[0], column + x[1]);
      }
    }
  }
  out.finish(mask.pixels());
}

}  // namespace

int64_t turn(const Batch& batch, const Turn& t, int num_threads, Encoded* encoded) {
  if (check_header(batch) != kOk) return kBadHeader;
  std::vector<int64_t> sizes(2 * batch.num_masks);
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    Mask mask;
    batch.mask(i, &mask);
    sizes[2 * i] = t.transpose ? mask.w : mask.h;
    sizes[2 * i + 1] = t.transpose ? mask.h : mask.w;
  }
  const int threads = algebra_threads(num_threads, batch.num_masks, batch.num_bytes);
  encoded->state = std::make_unique<Encoded::State>(std::move(sizes), t.images, threads);
  std::vector<Scratch> scratches(threads);
  encoded->state->write_masks([&](int64_t i, CharStream& stream, int thread) {
    Mask mask;
    batch.mask(i, &mask);
    // A single row or column has the same order either way; reversing it is a half turn.
    if (t.transpose && (mask.h == 1 || mask.w == 1)) {
      const bool reversed = mask.w == 1 ? t.reverse_columns : t.reverse_rows;
      reverse(mask, reversed, reversed, scratches[thread].runs, stream);
    } else if (t.transpose) {
      transpose(mask, t.reverse_rows, t.reverse_columns, scratches[thread], stream);
    } else {
      reverse(mask, t.reverse_rows, t.reverse_columns, scratches[thread].runs, stream);
    }
  });
  return kOk;
}

}  // namespace sa1b::cpu
