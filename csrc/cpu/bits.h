// Words of 64 bits as rows of pixels.
#pragma once

#include <cstdint>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace sa1b::cpu {

// The index of the lowest set bit; there must be one.
inline uint32_t lowest_bit(uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, bits);
  return static_cast<uint32_t>(index);
#else
  return static_cast<uint32_t>(__builtin_ctzll(bits));
#endif
}

// Swaps the upper right with the lower left quarter of every square of 2 * kHalf rows and columns.
template <int kHalf>
inline void swap_quarters(uint64_t* rows) {
  // The lower kHalf of each 2 * kHalf bits.
  constexpr uint64_t kLow = ~0ull / ((1ull << kHalf) + 1);
  for (int square = 0; square < 64; square += 2 * kHalf) {
    for (int i = square; i < square + kHalf; ++i) {
      const uint64_t swapped = ((rows[i] >> kHalf) ^ rows[i + kHalf]) & kLow;
      rows[i] ^= swapped << kHalf;
      rows[i + kHalf] ^= swapped;
    }
  }
}

// Afterwards bit y of word x is what bit x of word y was.
inline void transpose_64x64(uint64_t* rows) {
  swap_quarters<32>(rows);
  swap_quarters<16>(rows);
  swap_quarters<8>(rows);
  swap_quarters<4>(rows);
  swap_quarters<2>(rows);
  swap_quarters<1>(rows);
}

}  // namespace sa1b::cpu
