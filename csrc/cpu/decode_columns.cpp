// Decodes masks to column-major pixels, the order of their runs: each foreground run is one memset.
// Only foreground is written, so zero pages that hold none of it are never touched.
#include "../coco.h"
#include "count_blocks.h"

namespace sa1b::cpu {

void decode_columns(const Batch& batch, uint8_t* out) {
  Mask mask;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    batch.mask(i, &mask);
    for_each_run(mask, [&](uint32_t start, uint32_t end) { memset(out + start, 1, end - start); });
    out += mask.pixels();
  }
}

}  // namespace sa1b::cpu
