// What the threads of one warp do together.
#pragma once

#include "scan.cuh"

namespace sa1b::cuda {

// Transposes 32 x 32 bits: before, bit r of lane c is element (r, c); afterwards bit c of lane r
// is.
__device__ inline uint32_t transpose_bits(uint32_t bits, uint32_t lane) {
  uint32_t low = 0x0000ffff;  // of every 2*step bits the first step
#pragma unroll
  for (uint32_t step = 16; step != 0; step >>= 1) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, bits, step);
    bits = (lane & step) ? ((other >> step) & low) | (bits & ~low)
                         : (bits & low) | ((other & low) << step);
    low ^= low << (step >> 1);
  }
  return bits;
}

// Bit i becomes the XOR of bits 0 to i.
__device__ inline uint32_t prefix_xor_of_bits(uint32_t bits) {
#pragma unroll
  for (uint32_t step = 1; step < kWarp; step <<= 1) bits ^= bits << step;
  return bits;
}

// The sum over all lanes, in every lane.
template <class T>
__device__ T sum_of_lanes(T value) {
#pragma unroll
  for (uint32_t step = kWarp / 2; step != 0; step >>= 1) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

}  // namespace sa1b::cuda
