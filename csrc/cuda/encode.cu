// Encodes dense masks: finds the boundaries of runs in column-major order and writes their
// distances.
//
// The masks are read once, and that is the bound: what is written and read beside them is 1/8 of a
// byte for each pixel near a border. Four kernels, none of which waits for the host:
//
//   1. columns (columns.cu): the pixels become words of bits.
//   2. measure: a block of threads takes the columns of a strip, 256 at a time, a thread for each.
//      It walks down the words of its column, once for the last boundaries in it and, after a scan,
//      once for the characters that its counts take.
//   3. join: one block scans the strips: a count's characters depend on the three boundaries before
//      it, so a strip does not know those of its first three. Then follows where each strip writes.
//   4. write: as measure, but each thread knows what it needs and writes its characters.
//
// A strip is as many columns as make some thousand strips in all, up to a whole mask.
#include <algorithm>
#include <cstdint>

#include "columns.cuh"
#include "history.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 256;
// Fewer where grids are small, in tests, so that there is more than one turn of every loop.
constexpr int64_t kWantedStrips = std::min<int64_t>(4096, 4 * kMaxGrid);

// What comes before a column in its strip.
struct alignas(16) Column {
  History before;
  uint32_t chars;  // of all boundaries but the heads. Strings are no longer than h*w + 1.
};

// A strip on its own.
struct Strip {
  uint32_t heads[3];  // its first boundaries: their characters depend on the strips before
  History last;
  int64_t chars;  // of all boundaries but the heads
};

// A strip in its place.
struct Place {
  History before;
  uint32_t head_chars[4];  // of the first 0, 1, 2, 3 heads
  int64_t offset;          // where its characters start, from those of the first mask on
};

// How the work is split, and where in the workspace everything is.
struct Plan : ColumnWords {
  Plan(const Dense& dense, Workspace memory);

  int64_t strips_per_mask;  // each of `strip_columns` columns, a multiple of kThreads
  uint32_t strip_columns;

  Column* columns;    // [num_masks][w]
  Strip* strips;      // [num_masks][strips_per_mask]
  Place* places;      // [num_masks][strips_per_mask]
  int64_t num_bytes;  // of the workspace

  __host__ __device__ int64_t num_strips() const { return num_masks * strips_per_mask; }
};

Plan::Plan(const Dense& dense, Workspace memory) : ColumnWords(dense, &memory) {
  const int64_t tiles = divided_up(w, kThreads);
  const int64_t wanted = kWantedStrips / std::max<int64_t>(num_masks, 1) + 1;
  const int64_t tiles_per_strip = divided_up(tiles, wanted);
  strip_columns = static_cast<uint32_t>(tiles_per_strip * kThreads);
  strips_per_mask = divided_up(tiles, tiles_per_strip);

  columns = memory.take<Column>(num_masks * w);
  strips = memory.take<Strip>(num_strips());
  places = memory.take<Place>(num_strips());
  num_bytes = memory.num_bytes();
}

// --- 2. Measure --------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads) measure_kernel(const Plan plan) {
  SA1B_SHARED(uint32_t[3], heads);
  const auto concatenate = [](const History& a, const History& b) { return concatenated(a, b); };
  const auto add = [](uint32_t a, uint32_t b) { return a + b; };
  for (int64_t i = blockIdx.x; i < plan.num_strips(); i += gridDim.x) {
    const int64_t mask = i / plan.strips_per_mask;
    const auto begin = static_cast<uint32_t>(i % plan.strips_per_mask) * plan.strip_columns;
    const uint32_t end = min(plan.w, begin + plan.strip_columns);
    if (threadIdx.x < 3) heads[threadIdx.x] = kNoBoundary;
    __syncthreads();
    History tiles_before = History::none();
    int64_t chars_before = 0;
    for (uint32_t tile = begin; tile < end; tile += kThreads) {
      const uint32_t x = tile + threadIdx.x;
      History own = History::none();
      for_each_boundary(plan, mask, x, [&](uint32_t position) { own.add(position); });
      History of_tile;
      const History before =
          concatenated(tiles_before,
                       block_exclusive_scan<kThreads>(own, History::none(), concatenate, &of_tile));
      uint32_t chars = 0;
      if (__any_sync(kAllLanes, own.last != kNoBoundary)) {
        History history = before;
        for_each_boundary(plan, mask, x, [&](uint32_t position) {
          if (history.third != kNoBoundary) {
            chars += num_chars_to(position, history);
          } else {
            heads[history.size()] = position;
          }
          history.add(position);
        });
      }
      uint32_t chars_of_tile;
      chars = block_exclusive_scan<kThreads>(chars, 0u, add, &chars_of_tile);
      if (x < end) {
        plan.columns[mask * plan.w + x] = {before, static_cast<uint32_t>(chars_before) + chars};
      }
      tiles_before = concatenated(tiles_before, of_tile);
      chars_before += chars_of_tile;
    }
    if (threadIdx.x == 0) {
      plan.strips[i] = {{heads[0], heads[1], heads[2]}, tiles_before, chars_before};
    }
    __syncthreads();  // the next strip has heads of its own
  }
}

// --- 3. Join -----------------------------------------------------------------------------------

// A history that does not go on before the first strip of a mask.
struct Reach {
  History history;
  uint32_t from_start;
};

__global__ void __launch_bounds__(kJoinThreads) join_kernel(const Plan plan, int64_t* num_chars) {
  const auto concatenate = [](const Reach& a, const Reach& b) {
    return b.from_start ? b : Reach{concatenated(a.history, b.history), a.from_start};
  };
  const auto add = [](int64_t a, int64_t b) { return a + b; };
  const Reach nothing = {History::none(), 0};
  Reach all_before = nothing;
  int64_t chars_before = 0;
  for (int64_t first = 0; first < plan.num_strips(); first += kJoinThreads) {
    const int64_t i = first + threadIdx.x;
    const bool inside = i < plan.num_strips();
    Strip strip = {{kNoBoundary, kNoBoundary, kNoBoundary}, History::none(), 0};
    if (inside) strip = plan.strips[i];
    const auto number = static_cast<uint32_t>(i % plan.strips_per_mask);
    Reach of_all;
    const Reach before =
        concatenate(all_before, block_exclusive_scan<kJoinThreads>(Reach{strip.last, number == 0},
                                                                   nothing, concatenate, &of_all));
    all_before = concatenate(all_before, of_all);

    Place place = {number == 0 ? History::none() : before.history, {}, 0};
    uint32_t chars = 0;
    History history = place.before;
#pragma unroll
    for (uint32_t k = 0; k < 3; ++k) {
      if (strip.heads[k] != kNoBoundary) {
        chars += num_chars_to(strip.heads[k], history);
        history.add(strip.heads[k]);
      }
      place.head_chars[k + 1] = chars;
    }
    int64_t chars_of_strip = inside ? chars + strip.chars : 0;
    if (inside && number == plan.strips_per_mask - 1) {  // the last run ends with the mask
      chars_of_strip += num_chars_to(plan.pixels, concatenated(place.before, strip.last));
    }
    int64_t chars_of_all;
    place.offset = chars_before + block_exclusive_scan<kJoinThreads>(chars_of_strip, int64_t{0},
                                                                     add, &chars_of_all);
    chars_before += chars_of_all;
    if (inside) plan.places[i] = place;
  }
  if (threadIdx.x == 0) *num_chars = chars_before;
}

// --- 4. Write ----------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads)
    write_kernel(const Plan plan, int64_t h, int64_t w, uint8_t* block) {
  auto* const sizes = reinterpret_cast<int64_t*>(block);
  int64_t* const offsets = sizes + 2 * plan.num_masks;
  const int64_t header_bytes = 8 * (3 * plan.num_masks + 1);
  if (blockIdx.x == 0 && threadIdx.x == 0) offsets[0] = header_bytes;
  for (int64_t i = blockIdx.x; i < plan.num_strips(); i += gridDim.x) {
    const int64_t mask = i / plan.strips_per_mask;
    const auto begin = static_cast<uint32_t>(i % plan.strips_per_mask) * plan.strip_columns;
    const uint32_t end = min(plan.w, begin + plan.strip_columns);
    const Place& place = plan.places[i];
    for (uint32_t x = begin + threadIdx.x; x - threadIdx.x < end; x += kThreads) {
      Column column = {History::none(), 0};
      if (x < end) column = plan.columns[mask * plan.w + x];
      const History before = concatenated(place.before, column.before);
      uint32_t last = before.last == kNoBoundary ? 0 : before.last;
      CountWriter counts =
          counts_after(before, block + header_bytes + place.offset +
                                   place.head_chars[column.before.size()] + column.chars);
      for_each_boundary(plan, mask, x, [&](uint32_t position) {
        counts.add(position - last);
        last = position;
      });
      if (x != plan.w - 1) continue;
      counts.add(plan.pixels - last);
      sizes[2 * mask] = h;
      sizes[2 * mask + 1] = w;
      offsets[mask + 1] = counts.at() - block;
    }
  }
}

// At least one: N = 0 has an offset, too.
dim3 strip_blocks(const Plan& plan) { return {std::max(blocks_for(plan.num_strips()), 1u)}; }

}  // namespace

int64_t encode_workspace(const Dense& dense) { return Plan(dense, Workspace(nullptr)).num_bytes; }

int encode_measure(const Dense& dense, void* workspace, int64_t* num_chars, const Stream& on) {
  const Plan plan(dense, Workspace(workspace));
  const cudaStream_t stream = handle(on);
  cudaError_t error = cudaSetDevice(on.device);
  if (error == cudaSuccess && plan.num_masks > 0 && plan.pixels > 0) {
    error = read_columns(plan, dense.item_size, stream);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(measure_kernel, strip_blocks(plan), kThreads, 0, stream, plan);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(join_kernel, 1, kJoinThreads, 0, stream, plan, num_chars);
  }
  return error;
}

int encode_write(const Dense& dense, const void* workspace, uint8_t* block, const Stream& on) {
  // write_kernel only reads it.
  const Plan plan(dense, Workspace(const_cast<void*>(workspace)));
  const cudaError_t error = cudaSetDevice(on.device);
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(write_kernel, strip_blocks(plan), kThreads, 0, handle(on), plan, dense.h,
                     dense.w, block);
}

}  // namespace sa1b::cuda
