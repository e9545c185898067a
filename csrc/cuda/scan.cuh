// Scans over the threads of a warp or of a block, with any associative operator: op(earlier,
// later). All threads take part; blocks have one dimension, of whole warps.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "launch_kernel.h"

namespace sa1b::cuda {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kAllLanes = ~0u;

__device__ __forceinline__ uint32_t lane_index() { return threadIdx.x % kWarp; }
__device__ __forceinline__ uint32_t warp_index() { return threadIdx.x / kWarp; }

// Calls `shuffle` with each 32 bits of a value of any kind.
template <class T, class Shuffle>
__device__ __forceinline__ T shuffled(const T& value, Shuffle shuffle) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0, "made of 32-bit words");
  uint32_t words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
  for (uint32_t& word : words) word = shuffle(word);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
}

// The value of the lane that lies `distance` lower. Lanes without such a one keep their own.
template <class T>
__device__ __forceinline__ T from_lower_lane(const T& value, uint32_t distance) {
  return shuffled(value, [=](uint32_t word) { return __shfl_up_sync(kAllLanes, word, distance); });
}

// The value of one lane.
template <class T>
__device__ __forceinline__ T from_lane(const T& value, uint32_t lane) {
  return shuffled(
      value, [=](uint32_t word) { return __shfl_sync(kAllLanes, word, static_cast<int>(lane)); });
}

// Of all lanes up to this one.
template <class T, class Op>
__device__ __forceinline__ T warp_inclusive_scan(T value, Op op) {
  for (uint32_t distance = 1; distance < kWarp; distance *= 2) {
    const T earlier = from_lower_lane(value, distance);
    if (lane_index() >= distance) value = op(earlier, value);
  }
  return value;
}

// Of all threads before this one, from `identity` on; `total` of all threads of the block.
template <uint32_t kThreads, class T, class Op>
__device__ __forceinline__ T block_exclusive_scan(T value, T identity, Op op, T* total) {
  constexpr uint32_t kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0 && kWarps <= kWarp, "a warp scans the totals of all warps");
  SA1B_SHARED(T[kWarps], totals);
  const T inclusive = warp_inclusive_scan(value, op);
  if (lane_index() == kWarp - 1) totals[warp_index()] = inclusive;
  __syncthreads();
  // Every warp does this for itself, which saves a barrier.
  const T of_warps =
      warp_inclusive_scan(lane_index() < kWarps ? totals[lane_index()] : identity, op);
  __syncthreads();  // the next call may write
  *total = from_lane(of_warps, kWarps - 1);
  const T warps_before = from_lane(of_warps, warp_index() == 0 ? 0 : warp_index() - 1);
  const T lanes_before = from_lower_lane(inclusive, 1);
  const T before = lane_index() == 0 ? identity : lanes_before;
  return warp_index() == 0 ? before : op(warps_before, before);
}

// Sums up n counts, up to `limit`: begins[i] becomes the sum of those before the i-th, begins[n] of
// all. By one block; count(i) may lie where begins[i] will.
template <uint32_t kThreads, class Count>
__device__ void sum_up(int64_t n, Count count, int64_t limit, int64_t* begins) {
  const auto add = [=](int64_t a, int64_t b) { return a < limit - b ? a + b : limit; };
  int64_t before = 0;
  for (int64_t first = 0; first < n; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const int64_t own = i < n ? count(i) : 0;
    int64_t of_tile;
    const int64_t begin =
        add(before, block_exclusive_scan<kThreads>(own, int64_t{0}, add, &of_tile));
    if (i < n) begins[i] = begin;
    before = add(before, of_tile);
  }
  if (threadIdx.x == 0) begins[n] = before;
}

}  // namespace sa1b::cuda
