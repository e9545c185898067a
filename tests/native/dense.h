// Masks to encode, in memory of exact size with elements and strides of any kind.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>

#include "reference.h"

namespace sa1b::test {

// Masks in memory of their own, with elements and strides of any kind.
struct Elements {
  std::unique_ptr<uint8_t[]> memory;
  Dense dense;
};

using IsForeground = std::function<bool(int64_t mask, int64_t y, int64_t x)>;

// Lays out masks with the axes (mask, y, x) from the slowest to the fastest in `order`, each with
// `gap` elements after each of its own, backwards if its bit in `backwards` is set.
inline Elements lay_out(Random& random, const int64_t (&shape)[3], const int (&order)[3],
                        const int64_t (&gaps)[3], int backwards, int item_size, uint64_t value_bits,
                        int64_t shift, const IsForeground& is_foreground) {
  Elements e;
  int64_t strides[3], size = item_size;
  for (int k = 2; k >= 0; --k) {
    const int axis = order[k];
    strides[axis] = size * (1 + gaps[axis]);
    size = strides[axis] * std::max<int64_t>(shape[axis], 1);
  }
  // Up to the last byte of the last element, not to the end of its gaps.
  int64_t last = 0;
  for (int axis = 0; axis < 3; ++axis) {
    last += strides[axis] * std::max<int64_t>(shape[axis] - 1, 0);
  }
  const bool none = shape[0] == 0 || shape[1] == 0 || shape[2] == 0;
  const int64_t num_bytes = none ? 0 : shift + last + item_size;
  e.memory = exactly<uint8_t>(num_bytes);
  for (int64_t i = 0; i < num_bytes; ++i) e.memory[i] = random.byte();
  int64_t start = none ? 0 : shift;
  for (int axis = 0; axis < 3; ++axis) {
    if ((backwards >> axis & 1) == 0) continue;
    if (!none) start += strides[axis] * (shape[axis] - 1);
    strides[axis] = -strides[axis];
  }
  e.dense = {e.memory.get() + start,
             shape[0],
             shape[1],
             shape[2],
             strides[0],
             strides[1],
             strides[2],
             item_size,
             value_bits};
  for (int64_t mask = 0; mask < shape[0]; ++mask) {
    for (int64_t y = 0; y < shape[1]; ++y) {
      for (int64_t x = 0; x < shape[2]; ++x) {
        // Any of the bits that count, and any of those that do not.
        uint64_t element = random.bits() & ~value_bits;
        if (is_foreground(mask, y, x)) {
          do {
            element |= random.bits() & value_bits & random.bits();
          } while ((element & value_bits) == 0);
        }
        memcpy(e.memory.get() + start + mask * strides[0] + y * strides[1] + x * strides[2],
               &element, static_cast<size_t>(item_size));
      }
    }
  }
  return e;
}

}  // namespace sa1b::test
