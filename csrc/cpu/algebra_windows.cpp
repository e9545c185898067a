// Crop, pad, translate and resize: the window of a mask, zeros where it reaches out of the mask,
// stretched to a size.
//
// Both axes map monotonically, as in plane_map.h, so runs stay in order and one pass over them is
// enough: those of one column of the mask are gathered and written once for each column of the
// result that shows it. A run over many columns maps to one run where its columns are whole.
//
// Work is split into masks.
#include <algorithm>

#include "../algebra.h"
#include "../plane_map.h"
#include "count_blocks.h"
#include "toggle_writer.h"

namespace sa1b::cpu {
namespace {

// One axis of a window: where a boundary of the mask lies in the result.
struct Shift {
  int64_t begin, length;

  Shift(int64_t window_begin, int64_t window_length, int64_t)
      : begin(window_begin), length(window_length) {}
  uint32_t map(int64_t at) const {
    return static_cast<uint32_t>(std::clamp<int64_t>(at - begin, 0, length));
  }
};

struct Stretch {
  Shift shift;
  NearestAxis axis;

  Stretch(int64_t begin, int64_t length, int64_t out_length)
      : shift(begin, length, length),
        axis(static_cast<uint32_t>(length), static_cast<uint32_t>(out_length)) {}
  uint32_t map(int64_t at) const { return axis.first_at_or_after(shift.map(at)); }
};

struct Rows {
  uint32_t top, bottom;
};

template <class Axis>
class Placer {
 public:
  // `column` has room for all the runs of one column of the mask.
  Placer(const Mask& mask, const int64_t* window, const int64_t* size, Rows* column,
         CharStream& stream)
      : rows_(window[0], window[2], size[0]),
        columns_(window[1], window[3], size[1]),
        h_(mask.h),
        out_h_(static_cast<uint64_t>(size[0])),
        all_rows_{rows_.map(0), rows_.map(mask.h)},
        column_(column),
        out_(stream) {}

  void place(const Mask& mask, uint64_t out_pixels) {
    Cursor at(h_);
    for_each_run(mask, [&](uint32_t start, uint32_t end) SA1B_ALWAYS_INLINE {
      at.move_to(start);
      const uint32_t x = at.x(), top = at.y();
      if (end - start <= h_ - top) {
        add(x, {rows_.map(top), rows_.map(top + (end - start))});
        return;
      }
      add(x, {rows_.map(top), all_rows_.bottom});
      at.move_to(end - 1);
      flush();
      write_columns(columns_.map(int64_t{x} + 1), columns_.map(at.x()), &all_rows_, 1);
      add(at.x(), {all_rows_.top, rows_.map(int64_t{at.y()} + 1)});
    });
    flush();
    out_.finish(out_pixels);
  }

 private:
  SA1B_ALWAYS_INLINE void add(uint32_t x, Rows rows) {
    if (x != x_) {
      flush();
      x_ = x;
    }
    if (rows.top < rows.bottom) column_[size_++] = rows;
  }

  // Writes what was gathered of column x_ to all columns that show it.
  SA1B_ALWAYS_INLINE void flush() {
    if (size_ == 0) return;
    write_columns(columns_.map(x_), columns_.map(int64_t{x_} + 1), column_, size_);
    size_ = 0;
  }

  SA1B_ALWAYS_INLINE void write_columns(uint64_t begin, uint64_t end, const Rows* rows, size_t n) {
    if (n == 1 && rows[0].top == 0 && rows[0].bottom == out_h_) {
      out_.add_run(begin * out_h_, end * out_h_);
      return;
    }
    for (uint64_t x = begin; x < end; ++x) {
      for (size_t i = 0; i < n; ++i) {
        out_.add_run(x * out_h_ + rows[i].top, x * out_h_ + rows[i].bottom);
      }
    }
  }

  Axis rows_, columns_;
  uint32_t h_;
  uint64_t out_h_;
  Rows all_rows_;
  uint32_t x_ = 0;
  Rows* column_;
  size_t size_ = 0;
  ToggleWriter out_;
};

template <class Axis>
void place_mask(const Mask& mask, const int64_t* window, const int64_t* size, Rows* column,
                CharStream& stream) {
  Placer<Axis> placer(mask, window, size, column, stream);
  placer.place(mask, static_cast<uint64_t>(size[0]) * static_cast<uint64_t>(size[1]));
}

// How many runs one column of a mask can have, whatever its string is.
size_t most_runs_of_column(const Mask& mask) {
  return std::min<size_t>(mask.h, static_cast<size_t>(mask.end - mask.begin) / 2) + 1;
}

}  // namespace

int64_t place(const Batch& batch, const Place& p, int num_threads, Encoded* encoded) {
  if (check_header(batch) != kOk) return kBadHeader;
  constexpr int64_t kFar = int64_t{1} << 33;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    const int64_t *window = p.windows + 4 * i, *size = p.sizes + 2 * i;
    const auto most = static_cast<int64_t>(kMaxPixels);
    if (size[0] < 0 || size[1] < 0 || size[0] > most || size[1] > most ||
        (size[0] > 0 && size[1] > most / size[0])) {
      return kBadShape;
    }
    if (window[0] < -kFar || window[0] > kFar || window[1] < -kFar || window[1] > kFar ||
        window[2] < 0 || window[2] > most || window[3] < 0 || window[3] > most) {
      return kBadWindow;
    }
  }
  const int threads = algebra_threads(num_threads, batch.num_masks, batch.num_bytes);
  std::vector<int64_t> sizes(p.sizes, p.sizes + 2 * batch.num_masks);
  encoded->state = std::make_unique<Encoded::State>(std::move(sizes), p.images, threads);
  struct Scratch {
    std::unique_ptr<Rows[]> column;
    size_t size = 0;
  };
  std::vector<Scratch> scratches(threads);
  encoded->state->write_masks([&](int64_t i, CharStream& stream, int thread) {
    const int64_t *window = p.windows + 4 * i, *size = p.sizes + 2 * i;
    Mask mask;
    batch.mask(i, &mask);
    if (window[2] == 0 || window[3] == 0) mask.end = mask.begin;  // shows nothing
    Scratch& scratch = scratches[thread];
    const size_t room = most_runs_of_column(mask);
    if (scratch.size < room) {
      scratch.column.reset(new Rows[room]);  // make_unique would clear it
      scratch.size = room;
    }
    const bool same_size = window[2] == size[0] && window[3] == size[1];
    (same_size ? place_mask<Shift> : place_mask<Stretch>)(mask, window, size, scratch.column.get(),
                                                          stream);
  });
  return kOk;
}

}  // namespace sa1b::cpu
