// What masks have in common, pair by pair, from their runs, on the GPU: no pixel is made.
//
// Split: first `parse` of each batch; then a warp for some pairs of one row of the output. Its
// lanes test boxes and sizes, one pair each; the pairs that meet are then taken one by one by the
// whole warp. Their run ends are merged inside the columns that both boxes share: a search along a
// diagonal splits the merged sequence evenly, each lane walks its share and adds up where both
// masks are foreground. A batch with itself is half the pairs.
//
// `count_pairs` and `write_pairs` give a warp one row of the output, whose pairs it takes in order,
// so that their list is sorted by construction.
//
// Passes: run ends from L2, once for each pair that meets. Bound: latency, some microseconds a
// pair.
#include "runs.cuh"
#include "warp.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kWarps = kThreads / kWarp;
constexpr int kBlocks = 8;  // on a multiprocessor, at least: threads have up to 64 registers
// With that many warps a GPU is full; from there on a warp takes more pairs.
constexpr int64_t kManyWarps = 1 << 17;

// The masks of both batches, and which are compared: all, or those of the same image.
struct Sides {
  Runs a, b;
  int64_t num_images;       // 1 where nothing is grouped
  const int64_t* a_begins;  // [num_images + 1] of grouped batches, else null
  const int64_t* b_begins;
  int64_t num_a, num_b;  // masks in all
  bool same;             // both are one batch

  __device__ int64_t a_begin(int64_t image) const { return begin(a_begins, image, num_a); }
  __device__ int64_t b_begin(int64_t image) const { return begin(b_begins, image, num_b); }

 private:
  __device__ static int64_t begin(const int64_t* begins, int64_t image, int64_t n) {
    if (begins) return begins[image];
    return image == 0 ? 0 : n;
  }
};

__device__ bool may_meet(const MaskRuns& a, const MaskRuns& b) {
  return a.h == b.h && a.w == b.w && max(a.box.left, b.box.left) < min(a.box.right, b.box.right) &&
         max(a.box.top, b.box.top) < min(a.box.bottom, b.box.bottom);
}

// Which ends of a mask lie in an interval of positions.
struct Ends {
  const uint32_t* ends;
  uint32_t begin, end;

  // Those in (first, last].
  __device__ Ends(const Runs& runs, const MaskRuns& mask, uint32_t first, uint32_t last)
      : ends(runs.ends + mask.begin),
        begin(first_beyond(ends, mask.num_ends, first)),
        end(max(begin, first_beyond(ends, mask.num_ends, last))) {}

  __device__ uint32_t at(uint32_t k, uint32_t beyond) const { return k < end ? ends[k] : beyond; }
};

// How many of the first `n` ends of both, in order, are of `a`; the search along a diagonal.
__device__ uint32_t share_of_a(const Ends& a, const Ends& b, uint64_t n) {
  const uint32_t num_a = a.end - a.begin, num_b = b.end - b.begin;
  auto low = static_cast<uint32_t>(n > num_b ? n - num_b : 0);
  auto high = static_cast<uint32_t>(min(n, uint64_t{num_a}));
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const bool more = a.ends[a.begin + middle] <= b.ends[b.begin + (n - 1 - middle)];
    (more ? low : high) = more ? middle + 1 : middle;
  }
  return low;
}

// Pixels that two masks share, in every lane of the warp that calls.
__device__ uint32_t shared_pixels(const Runs& a_runs, const MaskRuns& a_mask, const Runs& b_runs,
                                  const MaskRuns& b_mask, uint32_t lane) {
  // Positions [first, last) are the columns that both boxes have.
  const uint32_t h = a_mask.h;
  const uint32_t first = max(a_mask.box.left, b_mask.box.left) * h;
  const uint32_t last = min(a_mask.box.right, b_mask.box.right) * h;
  const Ends a(a_runs, a_mask, first, last - 1), b(b_runs, b_mask, first, last - 1);
  // The ends split [first, last) into one stretch more than there are; that may be 2**33.
  const uint64_t stretches = uint64_t{a.end - a.begin} + (b.end - b.begin) + 1;
  const uint64_t from = stretches * lane / kWarp, upto = stretches * (lane + 1) / kWarp;
  uint32_t pixels = 0;
  if (from < upto) {
    const uint32_t of_a = share_of_a(a, b, from);
    uint32_t i = a.begin + of_a, j = b.begin + static_cast<uint32_t>(from - of_a);
    uint32_t position = first;
    if (i > a.begin) position = a.ends[i - 1];
    if (j > b.begin) position = max(position, b.ends[j - 1]);
    uint32_t next_a = a.at(i, last), next_b = b.at(j, last);
    for (auto left = static_cast<uint32_t>(upto - from); left != 0; --left) {
      const uint32_t next = min(next_a, next_b);
      if (i & j & 1) pixels += next - position;  // runs of odd numbers are foreground
      position = next;
      if (next_a <= next_b) {
        next_a = a.at(++i, last);
      } else {
        next_b = b.at(++j, last);
      }
    }
  }
  return sum_of_lanes(pixels);
}

// Calls visit(j, pixels) for each j in [begin, end), at most 32, in whose mask mask i has pixels,
// in order; the whole warp does.
template <class Visit>
__device__ void for_each_met(const Sides& sides, int64_t i, int64_t begin, int64_t end,
                             uint32_t lane, Visit visit) {
  const MaskRuns& a = sides.a.masks[i];
  const bool meets = begin + lane < end && may_meet(a, sides.b.masks[begin + lane]);
  for (uint32_t left = __ballot_sync(kAllLanes, meets); left != 0; left &= left - 1) {
    const int64_t j = begin + __ffs(static_cast<int>(left)) - 1;
    const MaskRuns& b = sides.b.masks[j];
    const uint32_t pixels = shared_pixels(sides.a, a, sides.b, b, lane);
    if (pixels != 0) visit(j, pixels);
  }
}

__global__ void __launch_bounds__(kThreads, kBlocks)
    pairwise_kernel(Sides sides, Pairwise pairs, int64_t pairs_per_warp) {
  const uint32_t lane = threadIdx.x % kWarp;
  const int64_t pieces = (pairs.columns + pairs_per_warp - 1) / pairs_per_warp;
  const int64_t num_items = sides.num_images * pairs.rows * pieces;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; item < num_items;
       item += step) {
    const int64_t image = item / (pairs.rows * pieces);
    const int64_t row = item / pieces % pairs.rows;
    const int64_t column = item % pieces * pairs_per_warp;
    const int64_t a_begin = sides.a_begin(image), b_begin = sides.b_begin(image);
    const int64_t i = a_begin + row;
    if (i >= sides.a_begin(image + 1)) continue;
    const int64_t begin = max(b_begin + column, sides.same ? i : 0);
    const int64_t end = min(min(b_begin + column + pairs_per_warp, b_begin + pairs.columns),
                            sides.b_begin(image + 1));
    const int64_t first = image * pairs.rows * pairs.columns;
    for_each_met(sides, i, begin, end, lane, [&](int64_t j, uint32_t pixels) {
      if (lane != 0) return;
      const uint32_t area_i = sides.a.masks[i].area, area_j = sides.b.masks[j].area;
      const int64_t k = j - b_begin;
      pairs.write(first + row * pairs.columns + k, j, area_i, area_j, pixels);
      if (sides.same && i != j && k < pairs.rows && row < pairs.columns) {
        pairs.write(first + k * pairs.columns + row, i, area_j, area_i, pixels);
      }
    });
  }
}

// Which image mask i of the first batch belongs to: the last that begins at or before it and is not
// empty.
__device__ int64_t image_of(const Sides& sides, int64_t i) {
  int64_t low = 0, high = sides.num_images;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (sides.a_begin(middle) <= i ? low : high) = middle;
  }
  return low;
}

// Calls visit(i, lane) for each row of the first batch, and a warp does that.
template <class Visit>
__device__ void for_each_row(const Sides& sides, Visit visit) {
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; i < sides.num_a; i += step) {
    const int64_t image = image_of(sides, i);
    visit(i, sides.b_begin(image), sides.b_begin(image + 1), threadIdx.x % kWarp);
  }
}

__global__ void __launch_bounds__(kThreads, kBlocks)
    count_pairs_kernel(Sides sides, int64_t* counts) {
  for_each_row(sides, [&](int64_t i, int64_t begin, int64_t end, uint32_t lane) {
    int64_t count = 0;
    for (; begin < end; begin += kWarp) {
      for_each_met(sides, i, begin, min(begin + kWarp, end), lane,
                   [&](int64_t, uint32_t) { ++count; });
    }
    if (lane == 0) counts[i] = count;
  });
}

__global__ void __launch_bounds__(kThreads, kBlocks)
    write_pairs_kernel(Sides sides, const int64_t* begins, IntersectingPairs pairs) {
  for_each_row(sides, [&](int64_t i, int64_t begin, int64_t end, uint32_t lane) {
    int64_t at = begins[i];
    for (; begin < end; begin += kWarp) {
      for_each_met(sides, i, begin, min(begin + kWarp, end), lane, [&](int64_t j, uint32_t pixels) {
        if (lane == 0 && at < pairs.capacity) {
          pairs.indices[2 * at] = i;
          pairs.indices[2 * at + 1] = j;
          pairs.intersection[at] = pixels;
        }
        ++at;
      });
    }
  });
}

// Turns the counts of n rows into what comes before each. One block.
__global__ void __launch_bounds__(kThreads, kBlocks) begins_kernel(int64_t* counts, int64_t n) {
  sum_up<kThreads>(n, [=](int64_t i) { return counts[i]; }, INT64_MAX, counts);
}

// Lays out the runs of both batches.
Sides take_sides(const Batch& a, const Batch& b, int64_t num_images, Workspace* workspace) {
  Sides sides = {};
  sides.same = is_same(a, b);
  sides.a = workspace->take_runs(a);
  sides.b = sides.same ? sides.a : workspace->take_runs(b);
  sides.num_a = a.num_masks;
  sides.num_b = b.num_masks;
  sides.num_images = num_images == kNotGrouped ? 1 : num_images;
  sides.a_begins = workspace->take_image_begins(num_images);
  sides.b_begins = sides.same ? sides.a_begins : workspace->take_image_begins(num_images);
  return sides;
}

bool headers_fit(const Batch& a, const Batch& b, int64_t num_images) {
  return header_fits(a, num_images) && header_fits(b, num_images);
}

cudaError_t parse_side(const Batch& batch, const Runs& runs, const int64_t* begins,
                       int64_t num_images, cudaStream_t stream) {
  const cudaError_t error = parse(batch, runs, {}, stream);
  if (error != cudaSuccess || !begins) return error;
  return find_image_begins(batch, num_images, const_cast<int64_t*>(begins), stream);
}

cudaError_t parse_sides(const Batch& a, const Batch& b, const Sides& sides, const Stream& stream) {
  cudaError_t error = cudaSetDevice(stream.device);
  if (error == cudaSuccess) {
    error = parse_side(a, sides.a, sides.a_begins, sides.num_images, handle(stream));
  }
  if (error == cudaSuccess && !sides.same) {
    error = parse_side(b, sides.b, sides.b_begins, sides.num_images, handle(stream));
  }
  return error;
}

}  // namespace

int64_t pairs_workspace(const Batch& a, const Batch& b, int64_t num_images) {
  if (!headers_fit(a, b, num_images)) return 0;
  Workspace needed(nullptr);
  take_sides(a, b, num_images, &needed);
  return needed.num_bytes();
}

int pairwise(const Batch& a, const Batch& b, const Pairwise& pairs, void* workspace,
             const Stream& stream) {
  if (!headers_fit(a, b, pairs.num_images)) return kBadHeader;
  Workspace memory(workspace);
  const Sides sides = take_sides(a, b, pairs.num_images, &memory);
  const int64_t num_pairs = sides.num_images * pairs.rows * pairs.columns;
  if (num_pairs == 0) return cudaSuccess;
  const cudaError_t error = parse_sides(a, b, sides, stream);
  if (error != cudaSuccess) return error;
  const int64_t pairs_per_warp = min(max(num_pairs / kManyWarps, int64_t{1}), int64_t{kWarp});
  const int64_t warps =
      sides.num_images * pairs.rows * ((pairs.columns + pairs_per_warp - 1) / pairs_per_warp);
  return SA1B_LAUNCH(pairwise_kernel, blocks_for((warps + kWarps - 1) / kWarps), kThreads, 0,
                     handle(stream), sides, pairs, pairs_per_warp);
}

int count_pairs(const Batch& a, const Batch& b, int64_t num_images, int64_t* begins,
                void* workspace, const Stream& stream) {
  if (!headers_fit(a, b, num_images)) return kBadHeader;
  Workspace memory(workspace);
  const Sides sides = take_sides(a, b, num_images, &memory);
  cudaError_t error = parse_sides(a, b, sides, stream);
  if (error == cudaSuccess && sides.num_a > 0) {
    error = SA1B_LAUNCH(count_pairs_kernel, blocks_for((sides.num_a + kWarps - 1) / kWarps),
                        kThreads, 0, handle(stream), sides, begins);
  }
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(begins_kernel, 1, kThreads, 0, handle(stream), begins, sides.num_a);
}

int write_pairs(const Batch& a, const Batch& b, const IntersectingPairs& pairs,
                const int64_t* begins, void* workspace, const Stream& stream) {
  if (!headers_fit(a, b, pairs.num_images)) return kBadHeader;
  Workspace memory(workspace);
  const Sides sides = take_sides(a, b, pairs.num_images, &memory);
  if (sides.num_a == 0 || pairs.capacity == 0) return cudaSuccess;
  const cudaError_t error = cudaSetDevice(stream.device);
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(write_pairs_kernel, blocks_for((sides.num_a + kWarps - 1) / kWarps), kThreads,
                     0, handle(stream), sides, begins, pairs);
}

}  // namespace sa1b::cuda
