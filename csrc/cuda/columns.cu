// Reads dense masks into columns of bits.
//
// Split: a warp takes 32 rows of 32 or 128 columns. Passes: the masks once, and that is the bound:
// what is written is 1/8 of a byte for each pixel near a border, since a block of 32 x 32 pixels
// that are all alike is only noted as such, and most of a mask is.
//
// Masks whose pixels have one distance from each to the next are taken as columns of 1024 pixels,
// whatever their sides, so that all threads that walk down a column have work.
#include <algorithm>

#include "columns.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 256, kWarps = kThreads / kWarp;
constexpr uint32_t kMaxGridY = 65535;  // of any GPU
// On each multiprocessor: as many as keep memory busy.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr uint32_t kBlocks = 4;  // there is no room for more
#else
constexpr uint32_t kBlocks = 6;
#endif
constexpr uint32_t kLinearRows = 1024;

enum class Read { kAcross, kAcrossBytes, kDown };

template <class T>
__device__ __forceinline__ bool is_foreground(const ColumnWords& columns, const uint8_t* at) {
  return (__ldg(reinterpret_cast<const T*>(at)) & static_cast<T>(columns.value_bits)) != 0;
}

// The rows of a band as 32 bits, for the column of each lane. Rows below the last one repeat it, so
// that nothing changes there.
template <class T>
__device__ __forceinline__ uint32_t read_across(const ColumnWords& columns, const uint8_t* mask,
                                                uint32_t band, uint32_t x) {
  uint32_t bits = 0;
  if (x >= columns.w) return bits;
  mask += x * columns.column_stride;
#pragma unroll
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t y = min(32 * band + i, columns.h - 1);
    bits |= uint32_t{is_foreground<T>(columns, mask + y * columns.row_stride)} << i;
  }
  return bits;
}

// The same, where pixels of a column are nearer to each other than those of a row.
template <class T>
__device__ __forceinline__ uint32_t read_down(const ColumnWords& columns, const uint8_t* mask,
                                              uint32_t band, uint32_t group) {
  uint32_t bits = 0;
#pragma unroll
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t x = 32 * group + i;
    bool foreground = false;
    if (x < columns.w) {
      const uint32_t y = min(32 * band + lane_index(), columns.last_row(x));
      foreground =
          is_foreground<T>(columns, mask + x * columns.column_stride + y * columns.row_stride);
    }
    const uint32_t column = __ballot_sync(kAllLanes, foreground);
    if (lane_index() == i) bits = column;
  }
  return bits;
}

// Four bytes of each of eight rows: low and high word, to be shifted right by 8 * phase together.
struct EightRows {
  uint32_t low[8], high[8];
  uint32_t phase, phase_step;  // of the first row, and from row to row; modulo 4
};

// At any address, by aligned words, which may reach four bytes beyond on either side.
__device__ __forceinline__ void load_words(const uint8_t* at, int64_t row_stride, EightRows& rows) {
  rows.phase = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(at));
  rows.phase_step = static_cast<uint32_t>(row_stride);
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i, at += row_stride) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    const auto* words = reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3});
    rows.low[i] = __ldg(words);
    rows.high[i] = address % 4 == 0 ? 0 : __ldg(words + 1);
  }
}

// The same by bytes, of which `n` are there.
__device__ __forceinline__ void load_bytes(const uint8_t* at, int64_t row_stride, uint32_t n,
                                           EightRows& rows) {
  rows.phase = rows.phase_step = 0;
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i, at += row_stride) {
    rows.low[i] = rows.high[i] = 0;
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      if (k < n) rows.low[i] |= uint32_t{__ldg(at + k)} << (8 * k);
    }
  }
}

// Four columns a lane, of bytes without gaps and at least 32 rows. Of eight rows at a time, bit 7
// of each byte moves down until the byte has a bit of each row; four such bytes are a column's
// word.
__device__ __forceinline__ void read_bytes_across(const ColumnWords& columns, const uint8_t* mask,
                                                  uint32_t band, uint32_t x, uint32_t (&bits)[4]) {
  constexpr uint32_t kOnes = 0x01010101, kLow = 0x7f * kOnes, kHigh = 0x80 * kOnes;
  const uint32_t value_bits = static_cast<uint8_t>(columns.value_bits) * kOnes;
  // The last band begins early, so that its rows are there, and those above it are shifted out.
  const uint32_t y = min(32 * band, columns.h - 32), rows_above = 32 * band - y;
  const uint32_t inside = x < columns.w ? columns.w - x : 0;
  const bool far_from_ends = x >= 4 && inside >= 8;
  const uint8_t* at = mask + y * columns.row_stride + x;
  uint32_t eights[4];
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i, at += 8 * columns.row_stride) {
    EightRows rows;
    if (far_from_ends) {
      load_words(at, columns.row_stride, rows);
    } else {
      load_bytes(at, columns.row_stride, inside, rows);
    }
    uint32_t any = 0;
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) any |= rows.low[k] | rows.high[k];
    eights[i] = 0;
    if ((any & value_bits) == 0) continue;  // as most are
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) {
      const uint32_t shift = 8 * (rows.phase + k * rows.phase_step);  // modulo 32
      const uint32_t four = __funnelshift_r(rows.low[k], rows.high[k], shift) & value_bits;
      eights[i] = eights[i] >> 1 | ((((four & kLow) + kLow) | four) & kHigh);
    }
  }
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t select = i | (i + 4) << 4;  // byte i of each
    const uint32_t word = __byte_perm(__byte_perm(eights[0], eights[1], select),
                                      __byte_perm(eights[2], eights[3], select), 0x5410);
    bits[i] = static_cast<uint32_t>(static_cast<int32_t>(word) >> rows_above);
  }
}

// Notes what blocks are, and the words of those that need it, of `n` columns a lane.
template <uint32_t n>
__device__ __forceinline__ void store_columns(const ColumnWords& columns, int64_t mask,
                                              uint32_t band, uint32_t x,
                                              const uint32_t (&bits)[n]) {
  uint32_t any = 0, all = ~0u;
#pragma unroll
  for (uint32_t i = 0; i < n; ++i) {
    if (x + i >= columns.w) continue;
    any |= bits[i];
    all &= bits[i];
  }
  const uint32_t lanes = n == 1 ? kAllLanes : 0xffu << (lane_index() & 24);  // of 32 columns
  const bool background = (__ballot_sync(kAllLanes, any != 0) & lanes) == 0;
  const bool foreground = (__ballot_sync(kAllLanes, all != ~0u) & lanes) == 0;
  if (x >= columns.w) return;
  const Kind kind = background ? kBackground : foreground ? kForeground : kMixed;
  if (x % 32 == 0) columns.kinds[(mask * columns.groups + x / 32) * columns.bands + band] = kind;
  if (kind != kMixed) return;
  uint32_t* const to = columns.words + (mask * columns.bands + band) * columns.groups * 32 + x;
  if constexpr (n == 4) {
    *reinterpret_cast<uint4*>(to) = make_uint4(bits[0], bits[1], bits[2], bits[3]);
  } else {
    *to = bits[0];
  }
}

template <class T, Read kRead>
__global__ void __launch_bounds__(kThreads, kBlocks) columns_kernel(const ColumnWords columns) {
  constexpr uint32_t kPerLane = kRead == Read::kAcrossBytes ? 4 : 1;
  const uint32_t stripes = (columns.w + 32 * kPerLane - 1) / (32 * kPerLane);
  const uint32_t items = stripes * columns.bands;
  for (int64_t i = blockIdx.y; i < columns.num_masks; i += gridDim.y) {
    const uint8_t* const mask = columns.data + i * columns.mask_stride;
    for (uint32_t item = blockIdx.x * kWarps + warp_index(); item < items;
         item += gridDim.x * kWarps) {
      // Neighbours in memory go to neighbouring warps.
      const uint32_t major = item / (kRead == Read::kDown ? columns.bands : stripes);
      const uint32_t minor = item - major * (kRead == Read::kDown ? columns.bands : stripes);
      const uint32_t band = kRead == Read::kDown ? minor : major;
      const uint32_t stripe = kRead == Read::kDown ? major : minor;
      const uint32_t x = (32 * stripe + lane_index()) * kPerLane;
      uint32_t bits[kPerLane];
      if constexpr (kRead == Read::kAcrossBytes) {
        read_bytes_across(columns, mask, band, x, bits);
      } else if constexpr (kRead == Read::kAcross) {
        bits[0] = read_across<T>(columns, mask, band, x);
      } else {
        bits[0] = read_down<T>(columns, mask, band, stripe);
      }
      store_columns(columns, i, band, x, bits);
    }
  }
}

template <class T, Read kRead>
cudaError_t launch_columns(const ColumnWords& columns, cudaStream_t stream) {
  const int64_t width = kRead == Read::kAcrossBytes ? 128 : 32;
  const int64_t blocks = divided_up(int64_t{divided_up(columns.w, width)} * columns.bands, kWarps);
  const dim3 grid(blocks_for(blocks), std::min(blocks_for(columns.num_masks), kMaxGridY));
  return SA1B_LAUNCH((columns_kernel<T, kRead>), grid, kThreads, 0, stream, columns);
}

template <class T>
cudaError_t launch_columns_of(const ColumnWords& columns, cudaStream_t stream) {
  if (columns.down) return launch_columns<T, Read::kDown>(columns, stream);
  if constexpr (sizeof(T) == 1) {
    if (columns.column_stride == 1 && columns.h >= 32) {
      return launch_columns<T, Read::kAcrossBytes>(columns, stream);
    }
  }
  return launch_columns<T, Read::kAcross>(columns, stream);
}

}  // namespace

ColumnWords::ColumnWords(const Dense& dense, Workspace* memory)
    : data(dense.data),
      num_masks(dense.num_masks),
      mask_stride(dense.mask_stride),
      row_stride(dense.row_stride),
      column_stride(dense.column_stride),
      value_bits(dense.value_bits),
      h(static_cast<uint32_t>(dense.h)),
      w(static_cast<uint32_t>(dense.w)),
      pixels(static_cast<uint32_t>(dense.h * dense.w)) {
  const auto distance = [](int64_t stride) {
    return stride < 0 ? -static_cast<uint64_t>(stride) : static_cast<uint64_t>(stride);
  };
  down = distance(row_stride) < distance(column_stride);
  last_rows = h;
  // Unsigned: an axis of one element may have any stride.
  const bool no_gaps = static_cast<uint64_t>(column_stride) ==
                       static_cast<uint64_t>(row_stride) * static_cast<uint64_t>(h);
  if (pixels == 0) {
    h = last_rows = 0;
    w = 1;
  } else if (h == 1 || w == 1 || no_gaps) {
    if (h == 1) row_stride = column_stride;
    down = true;
    h = std::min(pixels, kLinearRows);
    w = divided_up(pixels, h);
    last_rows = pixels - (w - 1) * h;
    column_stride =
        static_cast<int64_t>(static_cast<uint64_t>(row_stride) * static_cast<uint64_t>(h));
  }
  bands = divided_up(h, 32);
  groups = divided_up(w, 32);
  words = memory->take<uint32_t>(num_masks * bands * groups * 32);
  kinds = memory->take<uint8_t>(num_masks * groups * bands);
}

cudaError_t read_columns(const ColumnWords& columns, int item_size, cudaStream_t stream) {
  switch (item_size) {
    case 1:
      return launch_columns_of<uint8_t>(columns, stream);
    case 2:
      return launch_columns_of<uint16_t>(columns, stream);
    case 4:
      return launch_columns_of<uint32_t>(columns, stream);
    default:
      return launch_columns_of<uint64_t>(columns, stream);
  }
}

}  // namespace sa1b::cuda
