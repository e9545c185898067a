// Compressed strings to runs, and what can be said of a mask at once: area, box, centroid.
//
// Split: a block for each mask, tiles of 1024 characters, 8 for each thread. Every character says
// whether it ends its value, so a thread finds the values that end among its own by looking back at
// the 8 characters before. Difference coding and running sum are one associative scan (Segment).
// Each thread walks its characters twice, before the scan and after it.
//
// Passes: characters once, run ends written once. Bound: latency, some microseconds; the strings of
// an SA-1B image are 80 KB.
#include <limits>

#include "runs.cuh"
#include "warp.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kWarps = kThreads / kWarp;
constexpr int kBlocks = 8;  // on a multiprocessor, at least: threads have up to 64 registers
constexpr uint32_t kCharsPerThread = 8;  // a 64-bit word; no count has more characters than that
constexpr uint32_t kTileChars = kThreads * kCharsPerThread;
constexpr uint8_t kNoEnd = kCharBase + kMore;  // a character that ends no value and adds nothing
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();  // the centroid of nothing
static_assert(kMaxCharsPerCount <= kCharsPerThread, "values would reach back too far");

// What a piece of a string does to the state before it. The state is a Segment too: that of the
// whole string before. `append` is one value, `followed_by` two pieces.
struct Segment {
  uint32_t n;             // values
  uint32_t older, newer;  // the last two counts, as far as they come from these values
  uint32_t sum;           // of all counts, likewise

  // The first count of a mask never serves as a base: the rule "index > 2".
  __device__ void append(uint32_t delta, bool first_of_mask) {
    const uint32_t count = older + delta;
    sum += count;
    older = newer;
    newer = first_of_mask ? 0 : count;
    ++n;
  }

  // The values after take turns in building upon the older and upon the newer count of these.
  __device__ Segment followed_by(const Segment& after) const {
    const uint32_t on_newer = after.n / 2, on_older = after.n - on_newer;
    Segment both;
    both.n = n + after.n;
    both.sum = sum + on_older * older + on_newer * newer + after.sum;
    both.older = after.older + (after.n % 2 ? newer : older);
    both.newer = after.newer + (after.n % 2 ? older : newer);
    return both;
  }
};

// Calls visit(delta) for each value that ends in `own`; `before` are the characters before these.
template <class Visit>
__device__ void for_each_value(uint64_t before, uint64_t own, Visit visit) {
  uint32_t value = 0, shift = 0;
#pragma unroll
  for (uint32_t i = 0; i < 2 * kCharsPerThread; ++i) {
    const uint64_t word = i < kCharsPerThread ? before : own;
    const uint32_t c =
        (static_cast<uint32_t>(word >> (8 * (i % kCharsPerThread))) & 0xff) - kCharBase;
    if (shift < 32) value |= (c & kPayload) << shift;
    shift += kPayloadBits;
    if (!(c & kMore)) {
      if (i >= kCharsPerThread) {
        if ((c & kSign) && shift < 32) value |= ~0u << shift;
        visit(value);
      }
      value = shift = 0;
    }
  }
}

// What a thread has seen of the mask's foreground, and then the block.
struct Foreground {
  uint32_t area;
  uint32_t top, bottom, left, right;
  CoordinateSums sums;

  __device__ static Foreground none() { return {0, ~0u, 0, ~0u, 0, {0, 0}}; }

  __device__ void add_run(uint32_t start, uint32_t end, uint32_t h, bool with_sums) {
    const uint32_t first_x = start / h, first_y = start - first_x * h;
    const uint32_t last_x = (end - 1) / h, last_y = end - 1 - last_x * h;
    const bool one_column = first_x == last_x;
    area += end - start;
    left = min(left, first_x);
    right = max(right, last_x + 1);
    top = min(top, one_column ? first_y : 0);
    bottom = max(bottom, one_column ? last_y + 1 : h);
    if (with_sums) sums.add_run(first_y, first_x, last_y, last_x, h);
  }

  __device__ void add(const Foreground& other) {
    area += other.area;
    top = min(top, other.top);
    bottom = max(bottom, other.bottom);
    left = min(left, other.left);
    right = max(right, other.right);
    sums.y += other.sums.y;
    sums.x += other.sums.x;
  }
};

__device__ void write_mask(const Runs& runs, const RegionOutputs& out, int64_t i, const Mask& mask,
                           int64_t begin, uint32_t num_ends, const Foreground& seen) {
  Box box;
  if (seen.area != 0) {
    box.top = seen.top;
    box.bottom = seen.bottom;
    box.left = seen.left;
    box.right = seen.right;
  }
  if (runs.masks) runs.masks[i] = {begin, num_ends, mask.h, mask.w, seen.area, box};
  if (out.area) out.area[i] = seen.area;
  if (out.bbox) {
    float* const bbox = out.bbox + 4 * i;
    bbox[0] = static_cast<float>(box.left);
    bbox[1] = static_cast<float>(box.top);
    bbox[2] = static_cast<float>(box.right - box.left);
    bbox[3] = static_cast<float>(box.bottom - box.top);
  }
  if (out.centroid) {
    out.centroid[2 * i] = kNone;
    out.centroid[2 * i + 1] = kNone;
    if (seen.area != 0) {
      out.centroid[2 * i] = mean_of(seen.sums.y, seen.area);
      out.centroid[2 * i + 1] = mean_of(seen.sums.x, seen.area);
    }
  }
}

// What all threads have seen, in thread 0.
__device__ Foreground seen_by_all(Foreground seen) {
  SA1B_SHARED(Foreground[kWarps], of_warps);
  const auto shift = [](uint32_t lanes) {
    return [lanes](uint32_t word) { return __shfl_down_sync(kAllLanes, word, lanes); };
  };
  for (uint32_t lanes = kWarp / 2; lanes != 0; lanes /= 2) seen.add(shuffled(seen, shift(lanes)));
  if (lane_index() == 0) of_warps[warp_index()] = seen;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (uint32_t w = 1; w < kWarps; ++w) seen.add(of_warps[w]);
  }
  return seen;
}

__device__ void parse_mask(const Batch& batch, const Runs& runs, const RegionOutputs& out,
                           int64_t i) {
  SA1B_SHARED(uint64_t[kThreads + 1], words);  // the 8 characters before the tile, and the tile
  const uint32_t thread = threadIdx.x;
  auto* const chars = reinterpret_cast<uint8_t*>(words);

  Mask mask;
  // Ends are counted in 32 bits; no mask has a use for as many.
  if (!batch.mask(i, &mask) || mask.end - mask.begin > UINT32_MAX) {
    mask = {batch.data, batch.data, 0, 0};
  }
  const auto pixels = static_cast<uint32_t>(mask.pixels());
  const int64_t begin = mask.begin - batch.data;
  if (thread < kCharsPerThread) chars[thread] = kCharBase;  // before the string a value has ended
  Segment before_tile = {};
  Foreground seen = Foreground::none();
  for (const uint8_t* tile = mask.begin; tile < mask.end; tile += kTileChars) {
    const int64_t left = mask.end - tile;
    for (uint32_t k = thread; k < kTileChars; k += kThreads) {
      chars[kCharsPerThread + k] = k < left ? tile[k] : kNoEnd;
    }
    __syncthreads();
    const uint64_t before = words[thread], own = words[thread + 1];
    const bool starts_mask = tile == mask.begin && thread == 0;
    Segment piece = {};
    for_each_value(before, own,
                   [&](uint32_t delta) { piece.append(delta, starts_mask && piece.n == 0); });
    const auto join = [](const Segment& a, const Segment& b) { return a.followed_by(b); };
    Segment of_tile;
    Segment state =
        before_tile.followed_by(block_exclusive_scan<kThreads>(piece, Segment{}, join, &of_tile));
    before_tile = before_tile.followed_by(of_tile);

    for_each_value(before, own, [&](uint32_t delta) {
      const uint32_t start = min(state.sum, pixels);
      state.append(delta, starts_mask && state.n == 0);
      const uint32_t end = min(state.sum, pixels);
      if (runs.ends) runs.ends[begin + state.n - 1] = end;
      const bool foreground = state.n % 2 == 0;
      if (foreground && start < end) seen.add_run(start, end, mask.h, out.centroid != nullptr);
    });
    if (thread == kThreads - 1) words[0] = own;  // all have read theirs, or the scan had not ended
  }

  seen = seen_by_all(seen);
  if (thread == 0) write_mask(runs, out, i, mask, begin, before_tile.n, seen);
  __syncthreads();  // before the next mask takes the shared memory
}

__global__ void __launch_bounds__(kThreads, kBlocks)
    parse_kernel(Batch batch, Runs runs, RegionOutputs out) {
  for (int64_t i = blockIdx.x; i < batch.num_masks; i += gridDim.x) parse_mask(batch, runs, out, i);
}

// One block. Whatever the table says, no image begins or ends outside the batch.
__global__ void __launch_bounds__(kThreads, kBlocks)
    image_begins_kernel(Batch batch, int64_t num_images, int64_t* begins) {
  const int64_t n = batch.num_masks;
  const auto masks_of = [=](int64_t image) {
    const int64_t number = batch.word(3 * n + 1 + 3 * image);
    return number < 0 ? 0 : min(number, n);
  };
  sum_up<kThreads>(num_images, masks_of, n, begins);
}

}  // namespace

cudaError_t parse(const Batch& batch, const Runs& runs, const RegionOutputs& regions,
                  cudaStream_t stream) {
  if (batch.num_masks == 0) return cudaSuccess;
  return SA1B_LAUNCH(parse_kernel, blocks_for(batch.num_masks), kThreads, 0, stream, batch, runs,
                     regions);
}

cudaError_t find_image_begins(const Batch& batch, int64_t num_images, int64_t* begins,
                              cudaStream_t stream) {
  return SA1B_LAUNCH(image_begins_kernel, 1, kThreads, 0, stream, batch, num_images, begins);
}

int regions(const Batch& batch, int64_t* area, float* bbox, float* centroid, const Stream& stream) {
  if (!batch.header_fits()) return kBadHeader;
  const cudaError_t error = cudaSetDevice(stream.device);
  if (error != cudaSuccess) return error;
  return parse(batch, Runs(), {area, bbox, centroid}, handle(stream));
}

}  // namespace sa1b::cuda
