// Dense masks as columns of bits: what `read_columns` makes of them, and a walk over the boundaries
// in a column.
#pragma once

#include "runs.cuh"
#include "scan.cuh"

namespace sa1b::cuda {

inline uint32_t divided_up(int64_t n, int64_t size) {
  return static_cast<uint32_t>((n + size - 1) / size);
}

// 32 x 32 pixels.
enum Kind : uint8_t { kBackground, kForeground, kMixed };

// How masks are read, and where in the workspace their bits are.
struct ColumnWords {
  ColumnWords(const Dense& dense, Workspace* memory);

  const uint8_t* data;
  int64_t num_masks;
  int64_t mask_stride, row_stride, column_stride;
  uint64_t value_bits;
  uint32_t h, w;       // as the pixels are taken; w > 0
  uint32_t last_rows;  // of the last column
  uint32_t pixels;
  bool down;               // lanes read along columns, else along rows
  uint32_t bands, groups;  // blocks of 32 x 32 pixels

  uint32_t* words;  // [num_masks][bands][groups * 32] rows of a column, of kMixed blocks only
  uint8_t* kinds;   // [num_masks][groups][bands] Kind

  __device__ uint32_t last_row(uint32_t x) const { return (x + 1 < w ? h : last_rows) - 1; }
};

// Reads the masks. Elements of `item_size` bytes are aligned to that.
cudaError_t read_columns(const ColumnWords& columns, int item_size, cudaStream_t stream);

// Calls visit(position) for each boundary in column x, from top to bottom; by whole warps, of which
// lanes beyond the mask have none.
template <class Visit>
__device__ __forceinline__ void for_each_boundary(const ColumnWords& columns, int64_t mask,
                                                  uint32_t x, Visit visit) {
  const int64_t pitch = int64_t{32} * columns.groups;
  const uint32_t* const words = columns.words + mask * columns.bands * pitch;
  const uint8_t* const kinds = columns.kinds + mask * columns.groups * columns.bands;
  const bool inside = x < columns.w;
  // The pixel before: at first the last one of the column to the left.
  uint32_t before = 0;
  if (inside && x > 0 && columns.bands > 0) {
    const uint32_t bottom = columns.bands - 1, left = x - 1;
    const uint8_t kind = kinds[int64_t{left / 32} * columns.bands + bottom];
    before = kind == kMixed ? words[bottom * pitch + left] >> 31 : kind == kForeground;
  }
  const int64_t group = min(x / 32, columns.groups - 1);
  const uint32_t top = x * columns.h;
  for (uint32_t first = 0; first < columns.bands; first += 32) {
    const uint32_t n = min(32u, columns.bands - first);
    const uint8_t kind = lane_index() < n ? kinds[group * columns.bands + first + lane_index()] : 0;
    const uint32_t mixed = __ballot_sync(kAllLanes, kind == kMixed);
    const uint32_t full = __ballot_sync(kAllLanes, kind == kForeground);
    // Others than these are of one colour with the block above.
    uint32_t left = (mixed | mixed << 1 | (full ^ full << 1) | 1) & (~0u >> (32 - n));
    for (; left != 0; left &= left - 1) {
      const auto i = static_cast<uint32_t>(__ffs(static_cast<int>(left)) - 1);
      if (!inside) continue;
      uint32_t word = full >> i & 1 ? ~0u : 0;
      if (mixed >> i & 1) word = words[(first + i) * pitch + x];
      uint32_t changes = word ^ (word << 1 | before);
      before = word >> 31;
      for (; changes != 0; changes &= changes - 1) {
        const auto row = static_cast<uint32_t>(__ffs(static_cast<int>(changes)) - 1);
        visit(top + 32 * (first + i) + row);
      }
    }
  }
}

}  // namespace sa1b::cuda
