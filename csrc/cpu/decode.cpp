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
#include "flip_bitmap.h"
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

// The window of the mask that plane `plane` shows, if it shows one; a status.
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

// How the planes are cut into tiles, and how many threads take them.
struct Tiling {
  int threads;
  int64_t rows, columns, words;  // of a tile; the last of a row or column of tiles may be smaller

  Tiling(const Batch& batch, const Decode& d, int64_t num_bytes, int num_threads) {
    threads = useful_threads(num_threads, INT32_MAX, num_bytes + 16 * batch.num_bytes);
    columns = std::min(d.out_w, kTileColumns);
    words = (columns + 63) / 64;
    rows = std::clamp<int64_t>(kScratchBytes / threads / (8 * words), 1, d.out_h);
    if (d.num_planes < threads) {
      rows = std::min(rows, (d.out_h * d.num_planes + threads - 1) / threads);
    }
    threads = static_cast<int>(std::min<int64_t>(threads, d.num_planes * tiles(d)));
  }

  int64_t row_tiles(const Decode& d) const { return (d.out_h + rows - 1) / rows; }
  int64_t column_tiles(const Decode& d) const { return (d.out_w + columns - 1) / columns; }
  int64_t tiles(const Decode& d) const { return row_tiles(d) * column_tiles(d); }
};

// Calls visit(plane, tile, rows, flips, thread) for every tile, with the flips of the mask drawn
// into `bitmap_of(thread)`; all lie in the first `rows` rows.
template <class Bitmap, class Visit>
void for_each_tile(const Batch& batch, const Decode& d, const Tiling& tiling, Bitmap bitmap_of,
                   Visit visit) {
  const int64_t tiles = tiling.tiles(d), column_tiles = tiling.column_tiles(d);
  parallel_for(d.num_planes * tiles, tiling.threads, [&](int64_t item, int thread) {
    const int64_t plane = item / tiles, tile_index = item % tiles;
    const int64_t row = tile_index / column_tiles * tiling.rows;
    const int64_t column = tile_index % column_tiles * tiling.columns;
    const Tile tile = {static_cast<uint32_t>(row),
                       static_cast<uint32_t>(std::min(tiling.rows, d.out_h - row)),
                       static_cast<uint32_t>(column),
                       static_cast<uint32_t>(std::min(tiling.columns, d.out_w - column))};
    Mask mask;
    Window window;
    bool shown;
    find_window(batch, d, plane, &mask, &window, &shown);  // checked by the caller
    // Rows below the window stay zero whatever its columns end with.
    Tile used = tile;
    used.rows = shown && window.out_h > tile.row ? std::min(tile.rows, window.out_h - tile.row) : 0;
    FlipBitmap flips(bitmap_of(thread), used);
    if (used.rows > 0) {
      if (d.resize) {
        flips.flip_all(mask, Resize(window));
      } else if (d.crops) {
        flips.flip_all(mask, Crop(window));
      } else {
        flips.flip_all(mask, Whole(window));
      }
    }
    visit(plane, tile, used.rows, flips, thread);
  });
}

template <class T>
int64_t decode_as(const Batch& batch, const Decode& d, int num_threads) {
  const int64_t plane_size = d.out_h * d.out_w;
  const int64_t bytes = d.num_planes * plane_size * static_cast<int64_t>(sizeof(T));
  const bool mapped = d.fresh && static_cast<uint64_t>(bytes) >= ZeroPages::kMappedBytes;
  if (mapped && !d.crops && !d.resize) prepare_pages(batch, d);
  const bool streaming = !d.fresh && bytes >= kStreamingBytes;

  const Tiling tiling(batch, d, bytes, num_threads);
  std::vector<Scratch<T>> scratches;
  scratches.reserve(tiling.threads);
  for (int thread = 0; thread < tiling.threads; ++thread) {
    scratches.emplace_back(tiling.rows, tiling.words);
  }
  const auto visit = [&](int64_t plane, const Tile& tile, uint32_t rows, FlipBitmap& flips,
                         int thread) {
    T* to = static_cast<T*>(d.out) + plane * plane_size + tile.row * d.out_w + tile.column;
    TileWriter<T> writer(tile, to, d.out_w);
    Scratch<T>& scratch = scratches[thread];
    if (streaming) {
      StreamWriter stream(reinterpret_cast<uint8_t*>(to));
      if (flips.empty()) {
        writer.stream_zero(stream);
      } else {
        writer.stream_all(flips, rows, static_cast<T>(d.one), scratch, stream);
      }
    } else {
      if (!d.fresh) writer.fill_zero();
      if (!flips.empty()) writer.write_box(flips, rows, static_cast<T>(d.one), scratch);
    }
  };
  for_each_tile(batch, d, tiling, [&](int thread) { return scratches[thread].flips.get(); }, visit);
  return kOk;
}

// Eight pixels to a byte, the first in its lowest bit; rows begin with a byte of their own. The
// state of a tile's columns is that already.
int64_t decode_bits(const Batch& batch, const Decode& d, int num_threads) {
  const int64_t row_bytes = (d.out_w + 7) / 8;
  const int64_t bytes = d.num_planes * d.out_h * row_bytes;
  const Tiling tiling(batch, d, bytes, num_threads);
  const size_t words = tiling.words, rows_and_state = tiling.rows + 1;
  const auto bitmaps = zeros<uint64_t>(tiling.threads * rows_and_state * words);
  const auto bitmap_of = [&](int thread) { return &bitmaps[thread * rows_and_state * words]; };
  const auto visit = [&](int64_t plane, const Tile& tile, uint32_t rows, FlipBitmap& flips,
                         int thread) {
    uint8_t* to =
        static_cast<uint8_t*>(d.out) + (plane * d.out_h + tile.row) * row_bytes + tile.column / 8;
    const size_t tile_words = (tile.columns + 63) / 64, tile_bytes = (tile.columns + 7) / 8;
    uint64_t* state = bitmap_of(thread) + tiling.rows * words;
    for (uint32_t y = 0; y < tile.rows; ++y, to += row_bytes) {
      if (y >= rows) {
        memset(to, 0, tile_bytes);
        continue;
      }
      uint64_t* flip = flips.row(y);
      for (size_t word = 0; word < tile_words; ++word) {
        state[word] ^= flip[word];
        flip[word] = 0;
      }
      memcpy(to, state, tile_bytes);
    }
    std::fill(state, state + tile_words, 0);
  };
  for_each_tile(batch, d, tiling, bitmap_of, visit);
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
    case 0:
      return decode_bits(batch, d, num_threads);
    case 1:
      return decode_as<uint8_t>(batch, d, num_threads);
    case 2:
      return decode_as<uint16_t>(batch, d, num_threads);
    default:
      return decode_as<uint32_t>(batch, d, num_threads);
  }
}

}  // namespace sa1b::cpu
