// Launchers between masks and label maps. Conventions and status codes are those of launch.h.
#pragma once

#include <memory>

#include "launch.h"

namespace sa1b {

// What `paint_labels` writes: a plane of labels for each image, or one for a flat batch.
struct LabelPlanes {
  int64_t num_images;     // or kNotGrouped
  const int64_t* order;   // [N] all masks as they are painted, each over those before it; grouped:
                          // those of the first image first
  const int32_t* labels;  // [N] the value of each mask's pixels
  int32_t background;     // of all other pixels
  int64_t out_h, out_w;
  int32_t* out;  // [num_images or 1][out_h][out_w]
};

// What `split_labels` reads: maps of integers.
struct LabelMaps {
  const uint8_t* data;  // element (0, 0, 0) of [num_maps][h][w] integers of item_size bytes
  int64_t num_maps, h, w;
  int64_t map_stride, row_stride, column_stride;  // in bytes, of any sign, zero included
  int item_size;                                  // 1, 2, 4 or 8
  bool is_signed;
  bool grouped;         // the block keeps which masks are of which map
  bool has_background;  // pixels of this value belong to no mask:
  int64_t background;
};

namespace cpu {

int64_t paint_labels(const Batch& batch, const LabelPlanes& planes, int num_threads);

// The masks of all labels. How many there are is known only at the end, so they are held here until
// there is memory to put them into.
class SplitLabels {
 public:
  SplitLabels();
  ~SplitLabels();

  int64_t num_masks() const;
  int64_t num_bytes() const;    // of the block
  void write(uint8_t* block,    // [num_bytes], 8-byte aligned
             int64_t* labels,   // [num_masks] of each map in ascending order
             int64_t* counts);  // [num_maps] labels of each map

  struct State;
  std::unique_ptr<State> state;
};

int64_t split_labels(const LabelMaps& maps, int num_threads, SplitLabels* split);

}  // namespace cpu

namespace cuda {

// With the workspace of `decode`. What `order` holds beside masks of the image is nothing; masks
// that are larger than the plane are cut off.
int paint_labels(const Batch& batch, const LabelPlanes& planes, void* workspace,
                 const Stream& stream);

}  // namespace cuda
}  // namespace sa1b
