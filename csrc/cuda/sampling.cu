// Pixels of masks by their rank, from the runs, on the GPU: no pixel is made.
//
// Split: `parse`; then a block for each mask, a thread a run of foreground, sums up the pixels of
// the region that come before each run; then a thread for each rank searches these sums for the run
// that has the pixel. Background has the sums of foreground: before a run, it is all other pixels.
//
// What is no boundary lies inside a run and inside the same mask moved by a column both ways, and
// not in the first or the last row. The first of that is stretches of positions, for which a thread
// walks two more lists beside its run; rows are counted, not walked. A run of any length, moved by
// a column, meets itself and otherwise ends of one column only. So no walk takes more than about h
// steps, and those of all threads together are as many as there are ends, a few times over.
//
// Passes: run ends from L2 once, three times for a boundary. Bound: latency, some microseconds.
#include "../sampling.h"
#include "runs.cuh"
#include "scan.cuh"

namespace sa1b::cuda {
namespace {

// The mask of most runs takes the longest, so its runs are taken many at a time.
constexpr uint32_t kSumThreads = 512;
constexpr int kSumBlocks = 2;  // on a multiprocessor, at least: threads have up to 64 registers
constexpr uint32_t kRankThreads = 128;
constexpr int kRankBlocks = 8;

// The runs of foreground of one mask, by number; some may be empty. What is missing at the end of a
// string is background.
struct Foreground {
  const uint32_t* ends;
  uint32_t num_runs, h, pixels;

  __device__ Foreground(const Runs& runs, const MaskRuns& mask)
      : ends(runs.ends + mask.begin),
        num_runs(mask.num_ends / 2),
        h(mask.h),
        pixels(mask.h * mask.w) {}

  __device__ uint32_t start(uint32_t run) const { return ends[2 * run]; }
  __device__ uint32_t end(uint32_t run) const { return ends[2 * run + 1]; }

  // If its number is odd, the pixel of the position is foreground.
  __device__ uint32_t first_end_beyond(uint32_t position) const {
    return first_beyond(ends, 2 * num_runs, position);
  }

  // Whether the pixel before a run, or behind it, is foreground: of other runs, parted by nothing.
  __device__ bool goes_on_before(uint32_t run) const {
    return run > 0 && end(run - 1) == start(run) && first_end_beyond(start(run) - 1) % 2 == 1;
  }
  __device__ bool goes_on_behind(uint32_t run) const {
    return run + 1 < num_runs && start(run + 1) == end(run) && first_end_beyond(end(run)) % 2 == 1;
  }
};

// Calls visit(begin, end) for each stretch of positions of a run whose neighbours in position and
// in both columns beside are foreground, in order; false from it ends the walk. They lie in the run
// and do not overlap whatever the ends are.
template <class Visit>
__device__ void for_each_inner_stretch(const Foreground& mask, uint32_t run, Visit visit) {
  const uint32_t h = mask.h, num_ends = 2 * mask.num_runs;
  // Of so few rows all are the first or the last one.
  if (h < 3 || mask.start(run) >= mask.end(run)) return;
  const uint32_t first = max(mask.start(run) + !mask.goes_on_before(run), h);
  const uint32_t last = min(mask.end(run) - !mask.goes_on_behind(run), mask.pixels - h);
  if (first >= last) return;
  uint32_t left = mask.first_end_beyond(first - h), right = mask.first_end_beyond(first + h);
  const auto left_end = [&] { return left < num_ends ? min(mask.ends[left], last - h) + h : last; };
  const auto right_end = [&] { return right < num_ends ? mask.ends[right] - h : last; };
  uint32_t next_left = left_end(), next_right = right_end();
  for (uint32_t at = first; at < last;) {
    const uint32_t next = max(at, min(min(next_left, next_right), last));
    if ((left & right & 1) && at < next && !visit(at, next)) return;
    at = next;
    if (next_left <= next_right) {
      ++left;
      next_left = left_end();
    } else {
      ++right;
      next_right = right_end();
    }
  }
}

// How many pixels before a position are neither of the first row nor of the last; h > 2.
__device__ uint32_t between_rows(uint32_t position, uint32_t h) {
  const uint32_t x = position / h, y = position - x * h;
  return x * (h - 2) + (y == 0 ? 0 : y - 1);
}

__device__ uint32_t count_boundary(const Foreground& mask, uint32_t run) {
  const uint32_t h = mask.h;
  uint32_t pixels = mask.end(run) - mask.start(run);
  for_each_inner_stretch(mask, run, [&](uint32_t begin, uint32_t end) {
    pixels -= between_rows(end, h) - between_rows(begin, h);
    return true;
  });
  return pixels;
}

// The position of a boundary pixel by its rank among those of a run.
__device__ int64_t find_in_boundary(const Foreground& mask, uint32_t run, int64_t rank) {
  const uint32_t h = mask.h;
  int64_t at = mask.start(run);  // `rank` counts from here on
  for_each_inner_stretch(mask, run, [&](uint32_t begin, uint32_t end) {
    if (rank < begin - at) return false;
    rank -= begin - at;
    // In a stretch only the first and the last row are boundary: two pixels of each column.
    const uint32_t before = begin - between_rows(begin, h);
    const uint32_t pixels = end - between_rows(end, h) - before;
    if (rank < pixels) {
      const int64_t edge = before + rank;
      at = edge / 2 * h + edge % 2 * (h - 1);
      rank = 0;
      return false;
    }
    rank -= pixels;
    at = end;
    return true;
  });
  return at + rank;
}

// The position of a pixel of a region by its rank. Of strings that overlap, sums may be those of
// another mask: the result is then any number.
__device__ int64_t find_pixel(const Foreground& mask, Region region,
                              const int64_t* sums,  // [mask.num_runs + 1] if there are runs
                              int64_t rank) {
  const int64_t total = mask.num_runs == 0 ? 0 : sums[mask.num_runs];
  const bool background = region == Region::kBackground;
  if (rank < 0 || rank >= (background ? mask.pixels - total : total)) return -1;
  const uint32_t run = first_where(mask.num_runs, [&](uint32_t k) {
    return (background ? mask.start(k) - sums[k] : sums[k]) > rank;
  });
  if (background) return run == 0 ? rank : rank + sums[run];
  if (run == 0) return -1;
  const int64_t rank_in_run = rank - sums[run - 1];
  if (region == Region::kForeground) return mask.start(run - 1) + rank_in_run;
  return find_in_boundary(mask, run - 1, rank_in_run);
}

// Sums up the pixels of a region, or of foreground in place of background: sums[begin + k] come
// before run k of the mask whose ends begin there, sums[begin + number of runs] are all.
__global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    sum_runs_kernel(Runs runs, int64_t num_masks, Region region, int64_t* sums,
                    int64_t* totals) {  // [num_masks], or null
  for (int64_t i = blockIdx.x; i < num_masks; i += gridDim.x) {
    const Foreground mask(runs, runs.masks[i]);
    const uint32_t n = mask.num_runs;
    int64_t* const begins = sums + runs.masks[i].begin;
    if (n > 0) {
      const auto count = [&](int64_t k) -> int64_t {
        const auto run = static_cast<uint32_t>(k);
        if (mask.start(run) >= mask.end(run)) return 0;
        if (region == Region::kBoundary) return count_boundary(mask, run);
        return mask.end(run) - mask.start(run);
      };
      sum_up<kSumThreads>(n, count, INT64_MAX, begins);
    }
    if (totals && threadIdx.x == 0) totals[i] = n == 0 ? 0 : begins[n];
  }
}

__global__ void __launch_bounds__(kRankThreads, kRankBlocks)
    find_ranks_kernel(Runs runs, int64_t num_masks, Region region, const int64_t* sums,
                      const int64_t* ranks, int64_t num_ranks, int64_t* points) {
  const int64_t step = int64_t{gridDim.x} * kRankThreads;
  for (int64_t item = int64_t{blockIdx.x} * kRankThreads + threadIdx.x;
       item < num_masks * num_ranks; item += step) {
    const MaskRuns& mask_runs = runs.masks[item / num_ranks];
    const Foreground mask(runs, mask_runs);
    const int64_t position = find_pixel(mask, region, sums + mask_runs.begin, ranks[item]);
    int64_t x = -1, y = -1;
    if (position >= 0 && position < mask.pixels) {
      x = static_cast<uint32_t>(position) / mask.h;
      y = position - x * mask.h;
    }
    points[2 * item] = x;
    points[2 * item + 1] = y;
  }
}

struct Memory {
  Runs runs;
  int64_t* sums;  // [num_bytes of the batch]: a mask with runs has more ends than runs
};

Memory take_memory(const Batch& batch, Workspace* workspace) {
  Memory memory;
  memory.runs = workspace->take_runs(batch);
  memory.sums = workspace->take<int64_t>(batch.num_bytes);
  return memory;
}

// Parses a batch of one mask at least, and sums up the pixels of a region.
cudaError_t sum_runs(const Batch& batch, Region region, const Memory& memory, int64_t* totals,
                     const Stream& stream) {
  cudaError_t error = cudaSetDevice(stream.device);
  if (error == cudaSuccess) error = parse(batch, memory.runs, {}, handle(stream));
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(sum_runs_kernel, blocks_for(batch.num_masks), kSumThreads, 0, handle(stream),
                     memory.runs, batch.num_masks, region, memory.sums, totals);
}

}  // namespace

int64_t sampling_workspace(const Batch& batch) {
  if (!batch.header_fits()) return 0;
  Workspace needed(nullptr);
  take_memory(batch, &needed);
  return needed.num_bytes();
}

int boundary_area(const Batch& batch, int64_t* area, void* workspace, const Stream& stream) {
  if (!batch.header_fits()) return kBadHeader;
  if (batch.num_masks == 0) return cudaSuccess;
  Workspace taken(workspace);
  return sum_runs(batch, Region::kBoundary, take_memory(batch, &taken), area, stream);
}

int pixels_at_ranks(const Batch& batch, Region region, const int64_t* ranks, int64_t num_ranks,
                    int64_t* points, void* workspace, const Stream& stream) {
  if (!batch.header_fits()) return kBadHeader;
  if (batch.num_masks == 0 || num_ranks == 0) return cudaSuccess;
  Workspace taken(workspace);
  const Memory memory = take_memory(batch, &taken);
  const cudaError_t error = sum_runs(batch, region, memory, nullptr, stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks = (batch.num_masks * num_ranks + kRankThreads - 1) / kRankThreads;
  return SA1B_LAUNCH(find_ranks_kernel, blocks_for(blocks), kRankThreads, 0, handle(stream),
                     memory.runs, batch.num_masks, region, memory.sums, ranks, num_ranks, points);
}

}  // namespace sa1b::cuda
