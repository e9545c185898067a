// Where a mask changes, as its string needs it: what a count is written as depends on the three
// boundaries before the one that ends it.
#pragma once

#include "../rle_format.h"
#include "launch_kernel.h"

namespace sa1b::cuda {

// In place of a boundary. None lies there: they are below h*w < 2**32.
constexpr uint32_t kNoBoundary = ~0u;

// The latest three boundaries of those that came before a place, if there are as many.
struct History {
  uint32_t last, second, third;

  __device__ static History none() { return {kNoBoundary, kNoBoundary, kNoBoundary}; }
  __device__ uint32_t size() const {
    return (last != kNoBoundary) + (second != kNoBoundary) + (third != kNoBoundary);
  }
  __device__ void add(uint32_t boundary) {
    third = second;
    second = last;
    last = boundary;
  }

  // The last two counts as the format's differences take them: the first one is no base for any.
  __device__ uint32_t newer_count() const { return second == kNoBoundary ? 0 : last - second; }
  __device__ uint32_t older_count() const { return third == kNoBoundary ? 0 : second - third; }
  // The count that ends at `position`.
  __device__ uint32_t count_to(uint32_t position) const {
    return last == kNoBoundary ? position : position - last;
  }
};

// `later` follows on `earlier`.
__device__ __forceinline__ History concatenated(const History& earlier, const History& later) {
  const bool one = later.last != kNoBoundary, two = later.second != kNoBoundary,
             three = later.third != kNoBoundary;
  return {one ? later.last : earlier.last,
          two ? later.second : (one ? earlier.last : earlier.second),
          three ? later.third : (two ? earlier.last : (one ? earlier.second : earlier.third))};
}

// How many characters CountWriter writes for the count that ends at `position`.
__device__ __forceinline__ uint32_t num_chars_to(uint32_t position, const History& history) {
  const uint32_t count = history.count_to(position), base = history.older_count();
  // All bits of the difference that are not copies of its sign.
  const uint32_t bits = count >= base ? count - base : base - count - 1;
  return (32 - static_cast<uint32_t>(__clz(static_cast<int>(bits)))) / kPayloadBits + 1;
}

// Writes the counts that end beyond these boundaries.
__device__ __forceinline__ CountWriter counts_after(const History& history, uint8_t* at) {
  CountWriter counts(at);
  if (history.last != kNoBoundary) counts.go_on_after(history.older_count(), history.newer_count());
  return counts;
}

}  // namespace sa1b::cuda
