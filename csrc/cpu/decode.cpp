// Decodes a batch into dense planes.
//
// A run boundary at (y, x) flips column x from row y downward, and a run that goes on into the next
// column flips that column from row 0. So: set one bit a flip in a bitmap of the plane (1/8 byte a
// pixel, in cache); then walk its rows from the top, XOR each into the row of bits above, expand to
// elements the words that changed, and write the row out. The row-major output appears in order and
// is written once; no transpose exists anywhere. Crop and resize only move the flips, since both
// map rows and columns monotonically.
//
// Work is split into tiles: a plane, or rows or columns of a large one, so that scratch memory
// stays within kScratchBytes for all threads. The bound is memset of the output: memory that is
// known to be zero gets only the box of the mask; an output larger than the cache leaves by
// streaming stores.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "../launch.h"
#include "box.h"
#include "parallel.h"
#include "stream_writer.h"
#include "zero_pages.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kScratchBytes = 8 << 20;  // for the bitmaps of all threads
constexpr int64_t kTileColumns = 1 << 16;   // bounds a row of elements
// Masks with more characters than one for this many pixels touch most of their plane; finding where
// exactly would cost more than it could save.
constexpr uint64_t kPlanCharacters = 64;
constexpr int64_t kStreamingBytes = 16 << 20;  // outputs from here on bypass the cache

// Where the window of a mask lies in its plane.
struct Window {
  uint32_t y, x, h, w;    // in the mask
  uint32_t out_h, out_w;  // in the plane, from its top left
};

// Source boundaries to output boundaries: the first output row whose source row is >= y.
struct Identity {
  explicit Identity(const Window&) {}
  uint32_t row(uint32_t y) const { return y; }
  uint32_t column(uint32_t x) const { return x; }
};

struct Crop {
  explicit Crop(const Window& window) : window_(window) {}
  uint32_t row(uint32_t y) const { return clip(y, window_.y, window_.h); }
  uint32_t column(uint32_t x) const { return clip(x, window_.x, window_.w); }

 private:
  static uint32_t clip(uint32_t at, uint32_t begin, uint32_t length) {
    return at <= begin ? 0 : std::min(at - begin, length);
  }
  Window window_;
};

class Resize {
 public:
  explicit Resize(const Window& window)
      : crop_(window), rows_(window.h, window.out_h), columns_(window.w, window.out_w) {}
  uint32_t row(uint32_t y) const { return rows_.first_at_or_after(crop_.row(y)); }
  uint32_t column(uint32_t x) const { return columns_.first_at_or_after(crop_.column(x)); }

 private:
  class Axis {
   public:
    Axis(uint32_t in, uint32_t out)
        : in_(in), out_(out), scale_(static_cast<float>(in) / static_cast<float>(out)) {}
    uint32_t first_at_or_after(uint32_t source) const {
      if (source == 0) return 0;
      if (source >= in_) return out_;
      // nearest_source is monotone and about d * scale: start there and step to the exact place.
      uint32_t d =
          static_cast<uint32_t>(std::min<double>(static_cast<double>(source) / scale_, out_));
      while (d > 0 && nearest_source(d - 1, scale_, in_) >= source) --d;
      while (d < out_ && nearest_source(d, scale_, in_) < source) ++d;
      return d;
    }

   private:
    uint32_t in_, out_;
    float scale_;
  };
  Crop crop_;
  Axis rows_, columns_;
};

// A part of a plane: rows [row, row + rows), columns [column, column + columns).
struct Tile {
  uint32_t row, rows, column, columns;
};

// The flips of one mask inside one tile, as bits, and the box around them.
class FlipBitmap {
 public:
  FlipBitmap(uint64_t* bits, const Tile& tile)
      : bits_(bits),
        words_((tile.columns + 63) / 64),
        tile_(tile),
        left_(tile.columns),
        top_(tile.rows) {}

  // Flips columns [from, to) of the plane from row y downward.
  SA1B_ALWAYS_INLINE void flip(uint32_t from, uint32_t to, uint32_t y) {
    // What lies left of or above the tile: nothing to do, or a flip that enters at its first row.
    from = from > tile_.column ? from - tile_.column : 0;
    to = to > tile_.column ? std::min(to - tile_.column, tile_.columns) : 0;
    y = y > tile_.row ? y - tile_.row : 0;
    if (from >= to || y >= tile_.rows) return;
    left_ = std::min(left_, from);
    right_ = std::max(right_, to);
    top_ = std::min(top_, y);
    bottom_ = std::max(bottom_, y + 1);
    uint64_t* row = bits_ + uint64_t{y} * words_;
    const uint32_t first = from / 64, last = (to - 1) / 64;
    const uint64_t first_bits = ~uint64_t{0} << (from % 64);
    const uint64_t last_bits = ~uint64_t{0} >> (63 - (to - 1) % 64);
    if (first == last) {
      row[first] ^= first_bits & last_bits;
      return;
    }
    row[first] ^= first_bits;
    for (uint32_t word = first + 1; word < last; ++word) row[word] ^= ~uint64_t{0};
    row[last] ^= last_bits;
  }

  // Draws a run that lies in one column of the mask: rows [top, bottom) of column x.
  template <class Map>
  SA1B_ALWAYS_INLINE void flip_run(const Map& map, uint32_t x, uint32_t top, uint32_t bottom,
                                   uint32_t h) {
    flip(map.column(x), map.column(x + 1), map.row(top));
    if (bottom < h) flip(map.column(x), map.column(x + 1), map.row(bottom));
  }

  // The same where columns and rows are the plane's own. Noise is nothing but such runs.
  SA1B_ALWAYS_INLINE void flip_run(const Identity&, uint32_t x, uint32_t top, uint32_t bottom,
                                   uint32_t h) {
    x -= tile_.column;
    const uint32_t tile_bottom = tile_.row + tile_.rows;
    if (x >= tile_.columns || top >= tile_bottom) return;
    top = top > tile_.row ? top - tile_.row : 0;
    left_ = std::min(left_, x);
    right_ = std::max(right_, x + 1);
    top_ = std::min(top_, top);
    uint64_t* const word = bits_ + x / 64;
    const uint64_t bit = uint64_t{1} << (x % 64);
    word[uint64_t{top} * words_] ^= bit;
    bottom_ = std::max(bottom_, top + 1);
    if (bottom >= std::min(tile_bottom, h)) return;
    bottom = bottom > tile_.row ? bottom - tile_.row : 0;
    word[uint64_t{bottom} * words_] ^= bit;
    bottom_ = std::max(bottom_, bottom + 1);
  }

  template <class Map>
  void flip_all(const Mask& mask, const Map& map) {
    FlipBitmap flips = *this;  // a copy that can live in registers
    const uint32_t h = mask.h;
    Cursor at(h);
    for_each_run(mask, [&](uint32_t start, uint32_t end) SA1B_ALWAYS_INLINE {
      at.move_to(start);
      const uint32_t x = at.x(), top = at.y();
      if (end - start <= h - top) {
        flips.flip_run(map, x, top, top + (end - start), h);
        return;
      }
      at.move_to(end - 1);
      flips.flip(map.column(x), map.column(x + 1), map.row(top));
      flips.flip(map.column(x + 1), map.column(at.x() + 1), 0);
      if (at.y() + 1 < h)
        flips.flip(map.column(at.x()), map.column(at.x() + 1), map.row(at.y() + 1));
    });
    *this = flips;
  }

  bool empty() const { return bottom_ == 0; }
  uint32_t words() const { return words_; }
  uint64_t* row(uint32_t y) { return bits_ + uint64_t{y} * words_; }
  uint32_t left() const { return left_; }
  uint32_t right() const { return right_; }
  uint32_t top() const { return top_; }
  uint32_t bottom() const { return bottom_; }

 private:
  uint64_t* bits_;  // [tile.rows][words_], all zero at first
  uint32_t words_;
  Tile tile_;
  uint32_t left_, right_ = 0, top_, bottom_ = 0;
};

// 64 bits to 64 elements.
template <class T>
void expand(uint64_t bits, T one, T* to) {
  for (int i = 0; i < 64; ++i) to[i] = static_cast<T>(-((bits >> i) & 1)) & one;
}

template <>
void expand<uint8_t>(uint64_t bits, uint8_t one, uint8_t* to) {
  for (int i = 0; i < 8; ++i) {
    // Copy a byte 8 times, keep one bit in each, and turn "not zero" into 1.
    uint64_t spread = ((bits >> (8 * i)) & 0xff) * 0x0101010101010101ull & 0x8040201008040201ull;
    spread = ((spread + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull) * one;
    memcpy(to + 8 * i, &spread, 8);
  }
}

struct Free {
  void operator()(void* memory) const { free(memory); }
};
template <class T>
using Array = std::unique_ptr<T[], Free>;

// calloc, because the pages of a large bitmap that no flip touches are then never made.
template <class T>
Array<T> zeros(size_t n) {
  Array<T> array(static_cast<T*>(calloc(n, sizeof(T))));
  if (!array) throw std::bad_alloc();
  return array;
}

// What one thread works with: sized for the largest tile, all zero between tiles.
template <class T>
struct Scratch {
  Scratch(size_t rows, size_t words)
      : flips(zeros<uint64_t>(rows * words)),
        state(zeros<uint64_t>(words)),
        row(zeros<T>(64 * words)) {}

  Array<uint64_t> flips;  // [rows][words]
  Array<uint64_t> state;  // [words]
  Array<T> row;           // [words * 64] elements
};

template <class T>
class TileWriter {
 public:
  // `to` is the tile's first element in the output; rows are `row_stride` elements apart.
  TileWriter(const Tile& tile, T* to, int64_t row_stride)
      : tile_(tile), to_(to), stride_(row_stride) {}

  // Calls write(y) for each row from the first flip on, with the row's elements in scratch.row.
  // Returns the row after the last one written. Leaves the scratch zero again.
  template <class WriteRow>
  static uint32_t walk_rows(FlipBitmap& flips, uint32_t rows, T one, Scratch<T>& scratch,
                            WriteRow write) {
    const uint32_t first_word = flips.left() / 64, last_word = (flips.right() + 63) / 64;
    uint64_t* state = scratch.state.get();
    T* row = scratch.row.get();
    uint32_t y = flips.top();
    for (; y < flips.bottom(); ++y) {
      uint64_t* flip = flips.row(y);
      for (uint32_t word = first_word; word < last_word; ++word) {
        if (flip[word] == 0) continue;
        state[word] ^= flip[word];
        flip[word] = 0;
        expand<T>(state[word], one, row + 64 * word);
      }
      write(y);
    }
    // Columns that no run closed go on to the last row.
    if (std::any_of(state + first_word, state + last_word, [](uint64_t bits) { return bits; })) {
      for (; y < rows; ++y) write(y);
      std::fill(state + first_word, state + last_word, 0);
      std::fill(row + 64 * first_word, row + 64 * last_word, T{0});
    }
    return y;
  }

  // Only the box of the mask, onto zeros.
  void write_box(FlipBitmap& flips, uint32_t rows, T one, Scratch<T>& scratch) {
    const uint32_t left = flips.left();
    const size_t bytes = sizeof(T) * (flips.right() - left);
    const T* row = scratch.row.get() + left;
    walk_rows(flips, rows, one, scratch,
              [&](uint32_t y) { memcpy(to_ + y * stride_ + left, row, bytes); });
  }

  void fill_zero() {
    if (tile_.columns == stride_) {
      memset(to_, 0, sizeof(T) * tile_.rows * stride_);
    } else {
      for (uint32_t y = 0; y < tile_.rows; ++y) {
        memset(to_ + y * stride_, 0, sizeof(T) * tile_.columns);
      }
    }
  }

  // All of the tile, in order, past the cache.
  void stream_all(FlipBitmap& flips, uint32_t rows, T one, Scratch<T>& scratch,
                  StreamWriter& stream) {
    const auto* row = reinterpret_cast<const uint8_t*>(scratch.row.get());
    stream_zero_rows(0, flips.top(), stream);
    const uint32_t end = walk_rows(flips, rows, one, scratch, [&](uint32_t y) {
      stream.seek(bytes_of_row(y));
      stream.copy(row, sizeof(T) * tile_.columns);
    });
    stream_zero_rows(end, tile_.rows, stream);
  }

  void stream_zero(StreamWriter& stream) { stream_zero_rows(0, tile_.rows, stream); }

 private:
  uint8_t* bytes_of_row(uint32_t y) { return reinterpret_cast<uint8_t*>(to_ + y * stride_); }

  void stream_zero_rows(uint32_t from, uint32_t to, StreamWriter& stream) {
    if (tile_.columns == stride_) {
      stream.seek(bytes_of_row(from));
      stream.zero(sizeof(T) * (to - from) * stride_);
      return;
    }
    for (uint32_t y = from; y < to; ++y) {
      stream.seek(bytes_of_row(y));
      stream.zero(sizeof(T) * tile_.columns);
    }
  }

  Tile tile_;
  T* to_;
  int64_t stride_;
};

// The window of the mask that plane `plane` shows. False if it does not exist or does not fit.
int64_t find_window(const Batch& batch, const Decode& d, int64_t plane, Mask* mask, Window* window,
                    bool* shown) {
  const int64_t i = d.planes ? d.planes[plane] : plane;
  *shown = i != -1;
  if (!*shown) return kOk;
  if (i < 0 || i >= batch.num_masks) return kBadPlane;
  if (!batch.mask(i, mask)) return kBadHeader;
  int64_t y = 0, x = 0, h = mask->h, w = mask->w;
  if (d.crops) {
    const int64_t* crop = d.crops + 4 * plane;
    y = crop[0], x = crop[1], h = crop[2], w = crop[3];
    if (y < 0 || x < 0 || h < 0 || w < 0 || h > mask->h - y || w > mask->w - x) return kBadWindow;
  }
  if (!d.resize && (h > d.out_h || w > d.out_w)) return kBadWindow;
  *window = {static_cast<uint32_t>(y),
             static_cast<uint32_t>(x),
             static_cast<uint32_t>(h),
             static_cast<uint32_t>(w),
             static_cast<uint32_t>(d.resize ? d.out_h : h),
             static_cast<uint32_t>(d.resize ? d.out_w : w)};
  *shown = h > 0 && w > 0;
  return kOk;
}

// Tells fresh memory which of its pages the masks are going to touch.
void prepare_pages(const Batch& batch, const Decode& d) {
  const size_t row_bytes = static_cast<size_t>(d.out_w) * d.item_size;
  TouchedPages pages(static_cast<uint8_t*>(d.out), d.num_planes * d.out_h * row_bytes);
  for (int64_t plane = 0; plane < d.num_planes; ++plane) {
    const int64_t i = d.planes ? d.planes[plane] : plane;
    Mask mask;
    if (i < 0 || !batch.mask(i, &mask)) continue;
    const size_t begin = plane * d.out_h * row_bytes;
    const size_t chars = mask.end - mask.begin;
    if (chars * kPlanCharacters > mask.pixels()) {
      pages.add(begin, mask.h * row_bytes);
      continue;
    }
    const Box box = find_box(mask);
    for (uint32_t y = box.top; y < box.bottom; ++y) {
      pages.add(begin + y * row_bytes + size_t{box.left} * d.item_size,
                size_t{box.right - box.left} * d.item_size);
    }
  }
  pages.prepare();
}

template <class T>
int64_t decode_as(const Batch& batch, const Decode& d, int num_threads) {
  const int64_t plane_size = d.out_h * d.out_w;
  const int64_t bytes = d.num_planes * plane_size * static_cast<int64_t>(sizeof(T));
  const bool mapped = d.fresh && static_cast<uint64_t>(bytes) >= ZeroPages::kMappedBytes;
  if (mapped && !d.crops && !d.resize) prepare_pages(batch, d);
  const bool streaming = !d.fresh && bytes >= kStreamingBytes;

  int threads = useful_threads(num_threads, INT32_MAX, bytes + 16 * batch.num_bytes);
  const int64_t columns = std::min(d.out_w, kTileColumns);
  const int64_t words = (columns + 63) / 64;
  int64_t rows = std::clamp<int64_t>(kScratchBytes / threads / (8 * words), 1, d.out_h);
  if (d.num_planes < threads) {
    rows = std::min(rows, (d.out_h * d.num_planes + threads - 1) / threads);
  }
  const int64_t row_tiles = (d.out_h + rows - 1) / rows;
  const int64_t column_tiles = (d.out_w + columns - 1) / columns;
  const int64_t tiles = row_tiles * column_tiles;
  threads = static_cast<int>(std::min<int64_t>(threads, d.num_planes * tiles));

  std::vector<Scratch<T>> scratches;
  scratches.reserve(threads);
  for (int thread = 0; thread < threads; ++thread) scratches.emplace_back(rows, words);

  parallel_for(d.num_planes * tiles, threads, [&](int64_t item, int thread) {
    const int64_t plane = item / tiles, tile_index = item % tiles;
    const int64_t row = tile_index / column_tiles * rows;
    const int64_t column = tile_index % column_tiles * columns;
    const Tile tile = {
        static_cast<uint32_t>(row), static_cast<uint32_t>(std::min(rows, d.out_h - row)),
        static_cast<uint32_t>(column), static_cast<uint32_t>(std::min(columns, d.out_w - column))};
    T* to = static_cast<T*>(d.out) + plane * plane_size + row * d.out_w + column;
    TileWriter<T> writer(tile, to, d.out_w);
    Scratch<T>& scratch = scratches[thread];
    Mask mask;
    Window window;
    bool shown;
    find_window(batch, d, plane, &mask, &window, &shown);  // checked by the caller
    // Rows below the window stay zero whatever its columns end with.
    Tile used = tile;
    used.rows = shown && window.out_h > tile.row ? std::min(tile.rows, window.out_h - tile.row) : 0;
    FlipBitmap flips(scratch.flips.get(), used);
    if (used.rows > 0) {
      if (d.resize) {
        flips.flip_all(mask, Resize(window));
      } else if (d.crops) {
        flips.flip_all(mask, Crop(window));
      } else {
        flips.flip_all(mask, Identity(window));
      }
    }
    if (streaming) {
      StreamWriter stream;
      if (flips.empty()) {
        writer.stream_zero(stream);
      } else {
        writer.stream_all(flips, used.rows, static_cast<T>(d.one), scratch, stream);
      }
    } else {
      if (!d.fresh) writer.fill_zero();
      if (!flips.empty()) writer.write_box(flips, used.rows, static_cast<T>(d.one), scratch);
    }
  });
  return kOk;
}

}  // namespace

int64_t decode(const Batch& batch, const Decode& d, int num_threads) {
  if (!batch.header_fits()) return kBadHeader;
  if (d.num_planes == 0) return kOk;
  if (d.planes == nullptr && d.num_planes != batch.num_masks) return kBadPlane;
  if (d.out_h > UINT32_MAX || d.out_w > UINT32_MAX) return kBadWindow;
  for (int64_t plane = 0; plane < d.num_planes; ++plane) {
    Mask mask;
    Window window;
    bool shown;
    const int64_t status = find_window(batch, d, plane, &mask, &window, &shown);
    if (status != kOk) return status;
  }
  if (d.out_h == 0 || d.out_w == 0) return kOk;
  switch (d.item_size) {
    case 1:
      return decode_as<uint8_t>(batch, d, num_threads);
    case 2:
      return decode_as<uint16_t>(batch, d, num_threads);
    default:
      return decode_as<uint32_t>(batch, d, num_threads);
  }
}

}  // namespace sa1b::cpu
