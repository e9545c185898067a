// Decodes a batch into dense planes on the GPU.
//
// Split: first `parse`; then a block for each tile: 32 rows of a plane and all of its columns (up
// to 4096, wider planes have several). 32 rows of all columns are one contiguous range of the
// output, whatever the width.
//
// A tile: every run boundary at (y, x) flips all pixels after it in column order: column x from row
// y downward, and every column after x. So it flips bit y of the word of column x, and bit 0 and
// bit y of the next one; with an XOR over the columns before, and one over the rows above in each
// word, the words become the columns' pixels. Crop and resize only move the flips (plane_map.h). 32
// x 32 bits are transposed across a warp into rows of bits, and the rows leave as elements, 16
// aligned bytes a thread. Tiles outside the mask's box, six of seven in SA-1B, are stores of zeros.
//
// Passes: the output is written once; run ends are read once for each tile that meets the box, from
// L2. Bound: memset of the output.
#include <type_traits>

#include "../plane_map.h"
#include "runs.cuh"
#include "warp.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kWarps = kThreads / kWarp;
constexpr uint32_t kTileRows = 32;       // bits of a word
constexpr uint32_t kTileColumns = 4096;  // shared memory: 4 bytes a column and 4 for its rows

struct Planes {
  Runs runs;
  int64_t num_masks;
  const int64_t* masks;         // [num_planes] the mask each shows, -1 for none; or null
  const int64_t* image_begins;  // [num_images + 1] of a grouped batch; or null
  const int64_t* crops;         // [num_planes][4]; or null
  int64_t num_planes, planes_per_image;
  bool resize;
  uint32_t out_h, out_w;
  uint32_t tile_rows, tile_columns;  // tiles of a plane
  void* out;
  uint32_t one;
};

// A piece of a plane.
struct Tile {
  uint32_t row, column;    // of its first pixel
  uint32_t rows, columns;  // in it
};

__device__ int64_t mask_of_plane(const Planes& planes, int64_t plane) {
  if (planes.masks) return planes.masks[plane];
  if (!planes.image_begins) return plane;
  const int64_t image = plane / planes.planes_per_image;
  const int64_t mask = planes.image_begins[image] + plane % planes.planes_per_image;
  return mask < planes.image_begins[image + 1] ? mask : -1;
}

// Which mask a plane shows, and where. False if nothing of any.
__device__ bool find_window(const Planes& planes, int64_t plane, MaskRuns* mask, Window* window) {
  const int64_t i = mask_of_plane(planes, plane);
  if (i < 0 || i >= planes.num_masks) return false;
  *mask = planes.runs.masks[i];
  if (mask->area == 0) return false;
  int64_t y = 0, x = 0, h = mask->h, w = mask->w;
  if (planes.crops) {
    const int64_t* const crop = planes.crops + 4 * plane;
    y = crop[0], x = crop[1], h = crop[2], w = crop[3];
    if (y < 0 || x < 0 || h < 0 || w < 0 || h > mask->h - y || w > mask->w - x) return false;
  }
  if (!planes.resize && (h > planes.out_h || w > planes.out_w)) return false;
  *window = {static_cast<uint32_t>(y),
             static_cast<uint32_t>(x),
             static_cast<uint32_t>(h),
             static_cast<uint32_t>(w),
             planes.resize ? planes.out_h : static_cast<uint32_t>(h),
             planes.resize ? planes.out_w : static_cast<uint32_t>(w)};
  return h > 0 && w > 0;
}

// The bits of a tile in shared memory.
struct TileBits {
  uint32_t* columns;  // [groups * 32] a word a column
  uint32_t* rows;     // [32][stride]
  uint32_t groups;    // of 32 columns
  uint32_t stride;    // odd, so that a column of words lies in different banks; one word to spare

  __device__ TileBits(uint32_t* memory, uint32_t num_columns) {
    groups = (num_columns + kWarp - 1) / kWarp;
    stride = (groups + 1) | 1;
    columns = memory;
    rows = memory + groups * kWarp;
  }
  static uint32_t num_bytes(uint32_t num_columns) {
    const uint32_t groups = (num_columns + kWarp - 1) / kWarp;
    return 4 * (groups * kWarp + kTileRows * ((groups + 1) | 1));
  }

  // The next `n` <= 16 bits from (row, column) on, row after row of `width` columns.
  __device__ uint32_t from(uint32_t row, uint32_t column, uint32_t width, uint32_t n) const {
    const uint32_t* const words = rows + row * stride + column / kWarp;
    uint32_t bits = __funnelshift_r(words[0], words[1], column % kWarp);
    for (uint32_t have = width - column; have < n; have += width) {
      bits |= rows[++row * stride] << have;
    }
    return bits;
  }
};

// Flips what the boundaries of the runs flip: afterwards column c of the tile is the XOR of the
// words of columns 0 to c, and its row r that of bits 0 to r.
template <class Map>
__device__ void flip(const Planes& planes, const MaskRuns& mask, const Map& map, const Tile& tile,
                     uint32_t* words) {
  const uint32_t* const ends = planes.runs.ends + mask.begin;
  const uint32_t n = mask.num_ends & ~1u;  // the last of an odd number ends the mask
  for (uint32_t k = threadIdx.x; k < n; k += min(kThreads, n - k)) {  // n may be near 2**32
    const uint32_t x = ends[k] / mask.h, y = ends[k] - x * mask.h;
    if (x >= mask.w) continue;
    const uint32_t column = map.column(x), next = map.column(x + 1);
    if (column >= tile.column + tile.columns) continue;
    const uint32_t row = max(map.row(y), tile.row) - tile.row;
    const uint32_t here = row < kTileRows ? 1u << row : 0;
    const uint32_t at = max(column, tile.column) - tile.column;
    const uint32_t after = max(next, tile.column) - tile.column;
    if (here != 0) atomicXor(&words[at], here);
    if (here != 1 && after < tile.columns) atomicXor(&words[after], here ^ 1);
  }
}

// Turns the flips of groups [first, last) into rows of bits, of which rows and columns outside the
// window are zero.
__device__ void finish(const TileBits& bits, uint32_t first, uint32_t last, uint32_t rows,
                       uint32_t columns) {
  SA1B_SHARED(uint32_t[kWarps], totals);  // of the groups of each warp
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t share = (last - first + kWarps - 1) / kWarps;
  const uint32_t begin = min(first + warp * share, last), end = min(begin + share, last);
  uint32_t total = 0;
  for (uint32_t group = begin; group < end; ++group) {
    uint32_t* const word = bits.columns + group * kWarp + lane;
    *word = total ^ warp_inclusive_scan(*word, [](uint32_t a, uint32_t b) { return a ^ b; });
    total = from_lane(*word, kWarp - 1);
  }
  if (lane == 0) totals[warp] = total;
  __syncthreads();
  uint32_t before = 0;
  for (uint32_t w = 0; w < warp; ++w) before ^= totals[w];
  const uint32_t rows_shown = rows < kTileRows ? (1u << rows) - 1 : ~0u;
  for (uint32_t group = begin; group < end; ++group) {
    const uint32_t column = group * kWarp + lane;
    const uint32_t word = prefix_xor_of_bits(bits.columns[column] ^ before);
    bits.rows[lane * bits.stride + group] =
        transpose_bits(column < columns ? word & rows_shown : 0, lane);
  }
}

// Makes the rows of bits of a tile. False if none is set; then they are not written.
template <class Map>
__device__ bool fill_bits(const Planes& planes, int64_t plane, const Tile& tile,
                          const TileBits& bits) {
  MaskRuns mask;
  Window window;
  if (!find_window(planes, plane, &mask, &window)) return false;
  if (tile.row >= window.out_h || tile.column >= window.out_w) return false;
  const Map map(window);
  const Box& box = mask.box;
  if (map.row(box.top) >= tile.row + tile.rows || map.row(box.bottom) <= tile.row) return false;
  const uint32_t left = max(map.column(box.left), tile.column) - tile.column;
  const uint32_t right = min(max(map.column(box.right), tile.column) - tile.column, tile.columns);
  if (left >= right) return false;
  for (uint32_t k = threadIdx.x; k < bits.groups * kWarp; k += kThreads) bits.columns[k] = 0;
  for (uint32_t k = threadIdx.x; k < kTileRows * bits.stride; k += kThreads) bits.rows[k] = 0;
  __syncthreads();
  flip(planes, mask, map, tile, bits.columns);
  __syncthreads();
  finish(bits, left / kWarp, (right + kWarp - 1) / kWarp, window.out_h - tile.row,
         min(tile.columns, window.out_w - tile.column));
  __syncthreads();
  return true;
}

// What is stored for each pixel, or for each 8 of them, one or as many as 16 bytes hold; `columns`
// is the width of a tile in these.
template <class T>
struct Elements {
  using Type = T;
  static constexpr uint32_t kPerStore = 16 / sizeof(T), kPerWord = 4 / sizeof(T);

  __host__ __device__ static uint32_t columns(uint32_t pixels) { return pixels; }
  __device__ static T at(const TileBits& bits, uint32_t row, uint32_t column, uint32_t one) {
    const uint32_t word = bits.rows[row * bits.stride + column / kWarp];
    return static_cast<T>((word >> (column % kWarp) & 1) * one);
  }
  __device__ static uint4 load(const TileBits& bits, uint32_t row, uint32_t column, uint32_t width,
                               uint32_t one) {
    const uint32_t from = bits.from(row, column, width, kPerStore);
    return make_uint4(expand(from, one), expand(from >> kPerWord, one),
                      expand(from >> 2 * kPerWord, one), expand(from >> 3 * kPerWord, one));
  }

 private:
  // The lowest bits to the elements of a word.
  __device__ static uint32_t expand(uint32_t from, uint32_t one) {
    if (sizeof(T) == 1) return ((from & 0xf) * 0x00204081 & 0x01010101) * one;
    if (sizeof(T) == 2) return ((from & 0x3) * 0x8001 & 0x00010001) * one;
    return (from & 1) * one;
  }
};

struct PackedBits {
  using Type = uint8_t;
  static constexpr uint32_t kPerStore = 16;

  __host__ __device__ static uint32_t columns(uint32_t pixels) { return (pixels + 7) / 8; }
  __device__ static uint8_t at(const TileBits& bits, uint32_t row, uint32_t column, uint32_t) {
    return static_cast<uint8_t>(bits.rows[row * bits.stride + column / 4] >> (8 * (column % 4)));
  }
  __device__ static uint4 load(const TileBits& bits, uint32_t row, uint32_t column, uint32_t width,
                               uint32_t) {
    if (column + 16 <= width) {
      const uint32_t* const words = bits.rows + row * bits.stride + column / 4;
      const uint32_t shift = 8 * (column % 4);
      const uint32_t last = shift == 0 ? 0 : words[4];
      return make_uint4(
          __funnelshift_r(words[0], words[1], shift), __funnelshift_r(words[1], words[2], shift),
          __funnelshift_r(words[2], words[3], shift), __funnelshift_r(words[3], last, shift));
    }
    uint32_t words[4];
#pragma unroll
    for (uint32_t& word : words) {
      word = 0;
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        word |= uint32_t{at(bits, row, column, 0)} << (8 * k);
        if (++column == width) {
          column = 0;
          ++row;
        }
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

// Writes `rows` rows of `columns` elements that lie one after another, from `row` of the tile on.
template <class E>
__device__ void store(typename E::Type* to, const TileBits& bits, bool any, uint32_t row,
                      uint32_t rows, uint32_t columns, uint32_t one) {
  using T = typename E::Type;
  const uint32_t n = rows * columns;
  const auto misaligned = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(to) % 16);
  const uint32_t head = min((16 - misaligned) % 16 / static_cast<uint32_t>(sizeof(T)), n);
  const uint32_t tail = head + (n - head) / E::kPerStore * E::kPerStore;
  // What is not aligned, in front and behind: fewer elements than there are threads.
  const uint32_t k = threadIdx.x < head ? threadIdx.x : tail + threadIdx.x - head;
  if (k < n) to[k] = any ? E::at(bits, row + k / columns, k % columns, one) : T{0};

  uint32_t at = head + threadIdx.x * E::kPerStore;
  if (!any) {
    const uint4 zero = make_uint4(0, 0, 0, 0);
    for (; at < tail; at += kThreads * E::kPerStore) *reinterpret_cast<uint4*>(to + at) = zero;
    return;
  }
  // Rows and columns are counted on: a division for each store would be most of its work.
  constexpr uint32_t kStep = kThreads * E::kPerStore;
  const uint32_t step_rows = kStep / columns, step_columns = kStep % columns;
  uint32_t column = at % columns;
  row += at / columns;
  for (; at < tail; at += kStep) {
    *reinterpret_cast<uint4*>(to + at) = E::load(bits, row, column, columns, one);
    row += step_rows;
    column += step_columns;
    if (column >= columns) {
      column -= columns;
      ++row;
    }
  }
}

// Blocks on a multiprocessor: without bounds of its own, resizing would take 70 registers a thread.
template <class Map>
constexpr int kBlocks = std::is_same_v<Map, Resize> ? 4 : 0;

template <class E, class Map>
__global__ void __launch_bounds__(kThreads, kBlocks<Map>) decode_kernel(Planes planes) {
  SA1B_DYNAMIC_SHARED(uint32_t, memory);
  const uint32_t row_length = E::columns(planes.out_w);
  const int64_t tiles_of_plane = int64_t{planes.tile_rows} * planes.tile_columns;
  for (int64_t i = blockIdx.x; i < planes.num_planes * tiles_of_plane; i += gridDim.x) {
    const int64_t plane = i / tiles_of_plane;
    const auto place = static_cast<uint32_t>(i % tiles_of_plane);
    Tile tile;
    tile.row = place / planes.tile_columns * kTileRows;
    tile.column = place % planes.tile_columns * kTileColumns;
    tile.rows = min(planes.out_h - tile.row, kTileRows);
    tile.columns = min(planes.out_w - tile.column, kTileColumns);
    const TileBits bits(memory, tile.columns);
    const bool any = fill_bits<Map>(planes, plane, tile, bits);
    auto* const to = static_cast<typename E::Type*>(planes.out) +
                     (plane * planes.out_h + tile.row) * row_length + E::columns(tile.column);
    const uint32_t rows = tile.columns == planes.out_w ? tile.rows : 1;  // that are contiguous
    for (uint32_t row = 0; row < tile.rows; row += rows) {
      store<E>(to + int64_t{row} * row_length, bits, any, row, rows, E::columns(tile.columns),
               planes.one);
    }
    __syncthreads();  // before the next tile takes this memory
  }
}

template <class E, class Map>
cudaError_t launch_decode(const Planes& planes, cudaStream_t stream) {
  const int64_t tiles = planes.num_planes * planes.tile_rows * planes.tile_columns;
  const uint32_t shared = TileBits::num_bytes(min(planes.out_w, kTileColumns));
  return SA1B_LAUNCH((decode_kernel<E, Map>), blocks_for(tiles), kThreads, shared, stream, planes);
}

template <class E>
cudaError_t launch_decode(const Planes& planes, cudaStream_t stream) {
  if (planes.resize) return launch_decode<E, Resize>(planes, stream);
  if (planes.crops) return launch_decode<E, Crop>(planes, stream);
  return launch_decode<E, Whole>(planes, stream);
}

}  // namespace

int64_t decode_workspace(const Batch& batch, int64_t num_images) {
  if (!header_fits(batch, num_images)) return 0;
  Workspace needed(nullptr);
  needed.take_runs(batch);
  needed.take_image_begins(num_images);
  return needed.num_bytes();
}

int decode(const Batch& batch, int64_t num_images, const Decode& d, void* workspace,
           const Stream& stream) {
  const bool grouped = num_images != kNotGrouped;
  if (!header_fits(batch, num_images)) return kBadHeader;
  if (d.num_planes == 0) return cudaSuccess;
  if (grouped && (num_images == 0 || d.num_planes % num_images != 0)) return kBadPlane;
  if (!d.planes && !grouped && d.num_planes != batch.num_masks) return kBadPlane;
  if (d.out_h > UINT32_MAX || d.out_w > UINT32_MAX) return kBadWindow;
  if (d.out_h == 0 || d.out_w == 0) return cudaSuccess;

  Workspace memory(workspace);
  Planes planes = {};
  planes.runs = memory.take_runs(batch);
  planes.num_masks = batch.num_masks;
  planes.masks = d.planes;
  planes.crops = d.crops;
  planes.num_planes = d.num_planes;
  planes.resize = d.resize;
  planes.out_h = static_cast<uint32_t>(d.out_h);
  planes.out_w = static_cast<uint32_t>(d.out_w);
  planes.tile_rows = (planes.out_h - 1) / kTileRows + 1;
  planes.tile_columns = (planes.out_w - 1) / kTileColumns + 1;
  planes.out = d.out;
  planes.one = d.one;

  cudaError_t error = cudaSetDevice(stream.device);
  if (error == cudaSuccess) error = parse(batch, planes.runs, {}, handle(stream));
  if (error == cudaSuccess && grouped && !d.planes) {
    int64_t* const begins = memory.take_image_begins(num_images);
    planes.image_begins = begins;
    planes.planes_per_image = d.num_planes / num_images;
    error = find_image_begins(batch, num_images, begins, handle(stream));
  }
  if (error != cudaSuccess) return error;
  switch (d.item_size) {
    case 0:
      return launch_decode<PackedBits>(planes, handle(stream));
    case 1:
      return launch_decode<Elements<uint8_t>>(planes, handle(stream));
    case 2:
      return launch_decode<Elements<uint16_t>>(planes, handle(stream));
    case 4:
      return launch_decode<Elements<uint32_t>>(planes, handle(stream));
    default:
      return cudaErrorInvalidValue;
  }
}

const char* describe(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace sa1b::cuda
