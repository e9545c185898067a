// The runs of a batch on the GPU: what `parse` makes of the strings and all others read.
#pragma once

#include "../launch.h"
#include "../regions.h"
#include "launch_kernel.h"

namespace sa1b::cuda {

// The runs of one mask: positions where one run ends and the next begins, background first.
struct MaskRuns {
  int64_t begin;      // where its ends begin in `ends`
  uint32_t num_ends;  // ends[begin ..]; of strings that were validated they never fall
  uint32_t h, w;      // h*w < 2**32 whatever the header said; 0 where it contradicts itself
  uint32_t area;
  Box box;
};

// Where the runs of a batch lie.
struct Runs {
  MaskRuns* masks = nullptr;  // [num_masks]
  uint32_t* ends = nullptr;   // [num_bytes of the batch]: no string has more counts than characters
};

// The first of n for which `holds` is true, n if for none; it holds for all that follow, too.
template <class Holds>
__device__ uint32_t first_where(uint32_t n, Holds holds) {
  uint32_t low = 0, high = n;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const bool held = holds(middle);
    (held ? high : low) = held ? middle : middle + 1;
  }
  return low;
}

// The first of n ends that is beyond a position: the run that holds it.
__device__ inline uint32_t first_beyond(const uint32_t* ends, uint32_t n, uint32_t position) {
  return first_where(n, [=](uint32_t k) { return ends[k] > position; });
}

// Takes what kernels need in between from the memory that the caller lends; from null it only adds
// up how much that is.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}

  template <class T>
  T* take(int64_t n) {
    T* const taken = memory_ ? reinterpret_cast<T*>(memory_ + num_bytes_) : nullptr;
    num_bytes_ += (n * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return taken;
  }

  Runs take_runs(const Batch& batch) {
    Runs runs;
    runs.masks = take<MaskRuns>(batch.num_masks);
    runs.ends = take<uint32_t>(batch.num_bytes);
    return runs;
  }

  // Where the images of a batch begin; null if it is not grouped.
  int64_t* take_image_begins(int64_t num_images) {
    return num_images == kNotGrouped ? nullptr : take<int64_t>(num_images + 1);
  }

  int64_t num_bytes() const { return num_bytes_; }

 private:
  uint8_t* memory_;
  int64_t num_bytes_ = 0;
};

// Any of them may be null.
struct RegionOutputs {
  int64_t* area = nullptr;    // [N] pixels
  float* bbox = nullptr;      // [N][4] as cpu::regions
  float* centroid = nullptr;  // [N][2] as cpu::regions
};

// Finds the runs of all masks.
cudaError_t parse(const Batch& batch, const Runs& runs, const RegionOutputs& regions,
                  cudaStream_t stream);

// Of a batch grouped by image: begins[b] masks come before those of image b; begins[num_images]
// all. They never fall, and lie in the batch.
cudaError_t find_image_begins(const Batch& batch, int64_t num_images,
                              int64_t* begins,  // [num_images + 1]
                              cudaStream_t stream);

// Whether sizes, offsets and, if it is grouped, the table of images fit into the block.
inline bool header_fits(const Batch& batch, int64_t num_images) {
  return batch.header_fits() && (num_images == kNotGrouped || batch.images_fit(num_images));
}

inline bool is_same(const Batch& a, const Batch& b) {
  return a.data == b.data && a.num_masks == b.num_masks;
}

inline cudaStream_t handle(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.stream);
}

// Blocks for that many pieces of work, of which a block takes several if there are more than a grid
// may have. Tests lower the limit to see that.
#ifndef SA1B_MAX_GRID
#define SA1B_MAX_GRID 0x7fffffff
#endif
constexpr int64_t kMaxGrid = SA1B_MAX_GRID;
inline uint32_t blocks_for(int64_t pieces) {
  return static_cast<uint32_t>(pieces < kMaxGrid ? pieces : kMaxGrid);
}

// Threads of a block that alone joins what many have made; fewer in tests, so that it loops.
constexpr uint32_t kJoinThreads = kMaxGrid < 1024 ? 32 : 1024;

}  // namespace sa1b::cuda
