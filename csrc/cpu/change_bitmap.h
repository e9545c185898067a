// Where the rows of dense pixels change from one to the next, as bits that are found row by row and
// read column by column; for encoders. encode.cpp says how it is used.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "bits.h"

namespace sa1b::cpu {

// Where the rows of a strip change from one to the next: blocks of 64 x 64 bits, those of the same
// 64 columns one below the other. What was never touched is never read.
class ChangeBitmap {
 public:
  ChangeBitmap(int64_t h, int64_t columns)
      : bands_((h + 63) / 64),
        groups_((columns + 63) / 64),
        blocks_(static_cast<uint64_t*>(malloc(512 * bands_ * groups_))),
        touched_(bands_ * groups_),
        first_(groups_),
        above_(groups_) {
    if (!blocks_) throw std::bad_alloc();
  }

  static int64_t bytes_for_64_columns(int64_t h) { return (h + 63) / 64 * (512 + 1); }

  uint64_t* first() { return first_.data(); }
  uint64_t* above() { return above_.data(); }

  // Row y of the 64 columns `group`. Once for each.
  void set(int64_t group, int64_t y, uint64_t changes) {
    const int64_t block = group * bands_ + y / 64;
    if (!touched_[block]) {
      touched_[block] = 1;
      memset(&blocks_[64 * block], 0, 512);
    }
    blocks_[64 * block + y % 64] = changes;
  }

  // Hands all changes of a strip to `writer`, column by column, and forgets them: calls
  // writer.add(position, bits) for up to 64 rows at a time, a set bit i for a change at position +
  // i.
  template <class Writer>
  void write(uint32_t position, uint32_t h, int64_t columns, Writer& writer) {
    for (int64_t group = 0; 64 * group < columns; ++group) {
      uint64_t* const blocks = &blocks_[64 * group * bands_];
      uint8_t* const touched = &touched_[group * bands_];
      uint32_t first = static_cast<uint32_t>(bands_), last = 0;
      for (uint32_t band = 0; band < bands_; ++band) {
        if (!touched[band]) continue;
        transpose_64x64(blocks + 64 * band);
        first = std::min(first, band);
        last = band + 1;
      }
      const int64_t n = std::min<int64_t>(64, columns - 64 * group);
      if (first < last) {
        write_columns(position, h, static_cast<uint32_t>(n), first, last, blocks, touched, writer);
      }
      position += static_cast<uint32_t>(n) * h;
      memset(touched, 0, static_cast<size_t>(bands_));
    }
  }

 private:
  struct Free {
    void operator()(void* memory) const { free(memory); }
  };

  template <class Writer>
  static void write_columns(uint32_t position, uint32_t h, uint32_t columns, uint32_t first,
                            uint32_t last, const uint64_t* blocks, const uint8_t* touched,
                            Writer& to) {
    Writer writer = to;  // a copy stays in registers
    for (uint32_t column = 0; column < columns; ++column, position += h) {
      for (uint32_t band = first; band < last; ++band) {
        if (!touched[band]) continue;
        const uint64_t changes = blocks[64 * band + column];
        if (changes != 0) writer.add(position + 64 * band, changes);
      }
    }
    to = writer;
  }

  int64_t bands_, groups_;
  std::unique_ptr<uint64_t[], Free> blocks_;  // [groups_][bands_][64]
  std::vector<uint8_t> touched_;              // [groups_][bands_]
  std::vector<uint64_t> first_, above_;       // [groups_] the bits of row 0, and of the row above
};

}  // namespace sa1b::cpu
