// Paints masks into maps of labels on the GPU, from the one on top downwards.
//
// Split: first `parse`; then a warp for each tile of a map, 32 rows of 32 columns, a lane a column.
// Its lanes test the boxes of 32 masks at a time. Of each mask whose box meets the tile, from the
// top down, a lane searches the run ends for its column's part of the tile, and labels the pixels
// that no mask above has. Once all pixels have a label, what lies below is not looked at. So no
// pixel is labelled twice, no tile depends on another, and nothing is stored in between.
//
// Passes: the output is written once; of run ends, one search a column for each tile that meets the
// box, from L2. Bound: the latency of those searches, one mask after another, as deep as boxes lie
// over a tile.
#include "../labels.h"
#include "runs.cuh"
#include "warp.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kWarps = kThreads / kWarp;
constexpr int kBlocks = 8;  // on a multiprocessor, at least: threads have up to 64 registers
constexpr uint32_t kTileRows = 32;  // bits of a word

struct Painting {
  Runs runs;
  int64_t num_masks;
  const int64_t* image_begins;  // [num_planes + 1] of a grouped batch; or null
  LabelPlanes planes;
  int64_t num_planes, tile_rows, tile_columns;  // tiles of a plane
};

// A piece of a plane.
struct Tile {
  int64_t begin, end;  // the masks of its plane
  uint32_t row, rows;
  uint32_t column;  // the first of 32, of which some may lie beyond the plane
};

__device__ uint32_t low_bits(uint32_t n) { return n < 32 ? (1u << n) - 1 : ~0u; }

// The pixels that a mask has in 32 rows of column x, from `row` on, a bit each. The row is one of
// the mask.
__device__ uint32_t bits_of_column(const Runs& runs, const MaskRuns& mask, uint32_t x,
                                   uint32_t row) {
  if (x < mask.box.left || x >= mask.box.right) return 0;
  const uint32_t* const ends = runs.ends + mask.begin;
  const uint32_t first = x * mask.h + row, n = min(mask.h - row, kTileRows);
  uint32_t bits = 0, at = 0;
  for (uint32_t k = first_beyond(ends, mask.num_ends, first); k < mask.num_ends && at < n; ++k) {
    const uint32_t end = min(ends[k] - first, n);
    if (k % 2 != 0) bits |= low_bits(end) & ~low_bits(at);  // runs of odd numbers are foreground
    at = end;
  }
  return bits;
}

__device__ bool meets(const Box& box, const Tile& tile) {
  return box.top < tile.row + tile.rows && box.bottom > tile.row &&
         box.left <= tile.column + (kWarp - 1) && box.right > tile.column;
}

// Labels the pixels of a tile that a mask has, and no others: in row y of this lane's column
// labels[32 * y].
__device__ void paint_masks(const Painting& painting, const Tile& tile, uint32_t lane,
                            int32_t* labels) {
  const Runs& runs = painting.runs;
  const LabelPlanes& planes = painting.planes;
  const uint32_t column = tile.column + lane;
  uint32_t free = column < planes.out_w ? low_bits(tile.rows) : 0;  // that no mask has yet
  for (int64_t last = tile.end; last > tile.begin; last -= kWarp) {
    const int64_t place = last - 1 - lane;  // lane 0 has the one on top
    const int64_t own = place >= tile.begin ? planes.order[place] : -1;
    const bool is_here = own >= tile.begin && own < tile.end && meets(runs.masks[own].box, tile);
    for (uint32_t found = __ballot_sync(kAllLanes, is_here); found != 0; found &= found - 1) {
      const int64_t i = from_lane(own, __ffs(static_cast<int>(found)) - 1);
      uint32_t bits = free & bits_of_column(runs, runs.masks[i], column, tile.row);
      free &= ~bits;
      for (; bits != 0; bits &= bits - 1) {
        labels[kWarp * (__ffs(static_cast<int>(bits)) - 1)] = planes.labels[i];
      }
      if (__all_sync(kAllLanes, free == 0)) return;
    }
  }
}

__global__ void __launch_bounds__(kThreads, kBlocks) paint_labels_kernel(Painting painting) {
  SA1B_SHARED(int32_t[kWarps * kTileRows * kWarp], labels);  // a lane reads only what it wrote
  const LabelPlanes& planes = painting.planes;
  const uint32_t lane = lane_index();
  int32_t* const own = labels + warp_index() * kTileRows * kWarp + lane;
  const int64_t tiles_of_plane = painting.tile_rows * painting.tile_columns;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t i = int64_t{blockIdx.x} * kWarps + warp_index();
       i < painting.num_planes * tiles_of_plane; i += step) {
    const int64_t plane = i / tiles_of_plane, place = i % tiles_of_plane;
    const int64_t* const begins = painting.image_begins;
    Tile tile;
    tile.begin = begins ? begins[plane] : 0;
    tile.end = begins ? begins[plane + 1] : painting.num_masks;
    tile.row = static_cast<uint32_t>(place / painting.tile_columns) * kTileRows;
    tile.column = static_cast<uint32_t>(place % painting.tile_columns) * kWarp;
    tile.rows = static_cast<uint32_t>(min(planes.out_h - tile.row, int64_t{kTileRows}));
#pragma unroll
    for (uint32_t y = 0; y < kTileRows; ++y) own[kWarp * y] = planes.background;
    paint_masks(painting, tile, lane, own);
    const int64_t column = int64_t{tile.column} + lane;
    if (column >= planes.out_w) continue;
    int32_t* const out = planes.out + (plane * planes.out_h + tile.row) * planes.out_w + column;
    for (uint32_t y = 0; y < tile.rows; ++y) out[y * planes.out_w] = own[kWarp * y];
  }
}

}  // namespace

int paint_labels(const Batch& batch, const LabelPlanes& planes, void* workspace,
                 const Stream& stream) {
  const bool grouped = planes.num_images != kNotGrouped;
  if (!header_fits(batch, planes.num_images)) return kBadHeader;
  if (planes.out_h > UINT32_MAX || planes.out_w > UINT32_MAX) return kBadWindow;
  Workspace memory(workspace);
  Painting painting = {};
  painting.runs = memory.take_runs(batch);
  painting.num_masks = batch.num_masks;
  int64_t* const begins = memory.take_image_begins(planes.num_images);
  painting.image_begins = begins;
  painting.planes = planes;
  painting.num_planes = grouped ? planes.num_images : 1;
  painting.tile_rows = (planes.out_h + kTileRows - 1) / kTileRows;
  painting.tile_columns = (planes.out_w + kWarp - 1) / kWarp;
  const int64_t tiles = painting.num_planes * painting.tile_rows * painting.tile_columns;
  if (tiles == 0) return cudaSuccess;

  cudaError_t error = cudaSetDevice(stream.device);
  if (error == cudaSuccess) error = parse(batch, painting.runs, {}, handle(stream));
  if (error == cudaSuccess && grouped) {
    error = find_image_begins(batch, planes.num_images, begins, handle(stream));
  }
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(paint_labels_kernel, blocks_for((tiles + kWarps - 1) / kWarps), kThreads, 0,
                     handle(stream), painting);
}

}  // namespace sa1b::cuda
