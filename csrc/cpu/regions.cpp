// Area, box and centroid of every mask, straight from the runs: one pass over the characters, no
// pixel is made.
#include <limits>

#include "../launch.h"
#include "box.h"
#include "parallel.h"

namespace sa1b::cpu {
namespace {

int64_t area_of(const Mask& mask) {
  uint64_t background = 0, foreground = 0;
  CountBlocks blocks(mask);
  while (blocks.next_block()) {
    for (const uint32_t* count = blocks.begin(); blocks.end() - count >= 2; count += 2) {
      background += count[0];
      foreground += count[1];
    }
  }
  if (background + foreground <= mask.pixels()) return static_cast<int64_t>(foreground);
  // Malformed, and not validated: count what lies inside.
  int64_t area = 0;
  for_each_run(mask, [&](uint32_t start, uint32_t end) { area += end - start; });
  return area;
}

void bbox_of(const Mask& mask, float* bbox) {  // [4]
  const Box box = find_box(mask);
  bbox[0] = static_cast<float>(box.left);
  bbox[1] = static_cast<float>(box.top);
  bbox[2] = static_cast<float>(box.right - box.left);
  bbox[3] = static_cast<float>(box.bottom - box.top);
}

void centroid_of(const Mask& mask, float* centroid) {  // [2]
  uint64_t area = 0;
  CoordinateSums sums = {};
  Cursor at(mask.h);
  for_each_run(mask, [&](uint32_t start, uint32_t end) {
    area += end - start;
    at.move_to(start);
    const uint32_t first_x = at.x(), first_y = at.y();
    at.move_to(end - 1);
    sums.add_run(first_y, first_x, at.y(), at.x(), mask.h);
  });
  const float none = std::numeric_limits<float>::quiet_NaN();
  centroid[0] = area ? mean_of(sums.y, area) : none;
  centroid[1] = area ? mean_of(sums.x, area) : none;
}

}  // namespace

int64_t regions(const Batch& batch, int64_t* area, float* bbox, float* centroid, int num_threads) {
  if (!batch.header_fits()) return kBadHeader;
  Mask mask;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    if (!batch.mask(i, &mask)) return kBadHeader;
  }
  // Parsing a character costs about what moving 16 bytes does.
  const int threads = useful_threads(num_threads, batch.num_masks, 16 * batch.num_bytes);
  parallel_for(batch.num_masks, threads, [&](int64_t i, int) {
    Mask m;
    batch.mask(i, &m);
    if (area) area[i] = area_of(m);
    if (bbox) bbox_of(m, bbox + 4 * i);
    if (centroid) centroid_of(m, centroid + 2 * i);
  });
  return kOk;
}

}  // namespace sa1b::cpu
