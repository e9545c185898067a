// Greedy non-maximum suppression on the GPU, from the list of all pairs that meet.
//
// Split: one block; 1024 masks at a time by falling score, a thread a mask. Whether a mask is kept
// depends on those before it only: on masks of earlier tiles, which are decided, and on others of
// its own tile. Those decide in rounds: each thread goes through its mask's pairs until one that is
// kept removes it, or until one that is undecided makes it wait for the next round, which goes on
// from there. The best of the undecided never waits, so every round decides something, and the
// result is the one that walking all masks one by one gives.
//
// Passes: each pair once, and once more for each round that waits for it. Bound: latency; as many
// rounds as the longest chain of masks in a tile, of which each may be removed by the one before.
#include "../matching.h"
#include "runs.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 1024;

enum State : uint8_t { kRemoved = 0, kKept = 1, kUndecided = 2 };

struct Suppressing {
  Overlaps overlaps;
  Suppression suppression;
  int64_t* ranks;  // [N] the place of each mask in the order, INT64_MAX where it has none

  __device__ bool is_mask(int64_t i) const { return i >= 0 && i < overlaps.num_masks; }
};

// Notes where each mask is in the order, the first time if it is there several times.
__device__ void find_ranks(const Suppressing& s) {
  const int64_t n = s.overlaps.num_masks;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    s.ranks[i] = INT64_MAX;
    s.suppression.keep[i] = kKept;
  }
  __syncthreads();
  for (int64_t rank = threadIdx.x; rank < n; rank += kThreads) {
    const int64_t i = s.suppression.order[rank];
    if (s.is_mask(i)) atomicMin(reinterpret_cast<long long*>(s.ranks + i), rank);
  }
  __syncthreads();
}

// A mask that is not decided, and how far its pairs were looked at.
struct Candidate {
  int64_t mask, rank;
  int64_t pair, end;

  // Goes on with the pairs. The states are those of the tile, whose first mask has rank `first`.
  __device__ State decide(const Suppressing& s, int64_t first, const State* states) {
    const Overlaps& overlaps = s.overlaps;
    const int64_t *const labels = s.suppression.labels, *const area = overlaps.area;
    for (; pair < end; ++pair) {
      const int64_t other = overlaps.indices[2 * pair + 1];
      if (!s.is_mask(other)) continue;
      const int64_t rank_of_other = s.ranks[other];
      if (rank_of_other >= rank) continue;  // itself, and those after it
      const State state = rank_of_other < first ? static_cast<State>(s.suppression.keep[other])
                                                : states[rank_of_other - first];
      if (state == kRemoved || (labels && labels[other] != labels[mask])) continue;
      const auto shared = static_cast<uint64_t>(overlaps.intersection[pair]);
      if (!s.suppression.is_over(area[other], area[mask], shared)) continue;
      return state == kKept ? kRemoved : kUndecided;
    }
    return kKept;
  }
};

__global__ void __launch_bounds__(kThreads) suppress_kernel(Suppressing s) {
  SA1B_SHARED(State[kThreads], states);
  const Overlaps& overlaps = s.overlaps;
  find_ranks(s);
  for (int64_t first = 0; first < overlaps.num_masks; first += kThreads) {
    Candidate own = {};
    own.rank = first + threadIdx.x;
    own.mask = own.rank < overlaps.num_masks ? s.suppression.order[own.rank] : -1;
    State state = kRemoved;
    if (s.is_mask(own.mask) && s.ranks[own.mask] == own.rank) {
      own.pair = max(overlaps.begins[own.mask], int64_t{0});
      own.end = min(overlaps.begins[own.mask + 1], overlaps.num_pairs);
      state = kUndecided;
    }
    const bool is_candidate = state == kUndecided;
    do {
      states[threadIdx.x] = state;
      __syncthreads();
      if (state == kUndecided) state = own.decide(s, first, states);
      // All have read what the others were before they say what they are now.
    } while (__syncthreads_or(state == kUndecided));
    if (is_candidate) s.suppression.keep[own.mask] = state;
    __syncthreads();  // before the next tile reads that, and takes the memory of this one's states
  }
}

}  // namespace

int suppress(const Overlaps& overlaps, const Suppression& suppression, int64_t* ranks,
             const Stream& stream) {
  if (overlaps.num_masks == 0) return cudaSuccess;
  const cudaError_t error = cudaSetDevice(stream.device);
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(suppress_kernel, 1, kThreads, 0, handle(stream),
                     Suppressing{overlaps, suppression, ranks});
}

}  // namespace sa1b::cuda
