// Draws the runs of a mask as flips: a bit at (y, x) says that column x changes from row y
// downward.
#pragma once

#include <algorithm>

#include "../plane_map.h"
#include "count_blocks.h"

namespace sa1b::cpu {

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
  SA1B_ALWAYS_INLINE void flip_run(const Whole&, uint32_t x, uint32_t top, uint32_t bottom,
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

}  // namespace sa1b::cpu
