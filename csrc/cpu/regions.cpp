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

// Sum of the integers in [first, last).
uint64_t sum_of_range(uint64_t first, uint64_t last) {
  const uint64_t n = last - first, twice_mean = first + last - 1;
  return (n & 1) ? n * (twice_mean / 2) : (n / 2) * twice_mean;
}

void centroid_of(const Mask& mask, float* centroid) {  // [2]
  // Every sum is below 2**63: at most h*w < 2**32 pixels with coordinates below 2**32 / other side.
  uint64_t area = 0, sum_y = 0, sum_x = 0;
  const uint64_t h = mask.h;
  Cursor at(mask.h);
  for_each_run(mask, [&](uint32_t start, uint32_t end) {
    area += end - start;
    at.move_to(start);
    const uint64_t first_x = at.x(), first_y = at.y();
    at.move_to(end - 1);
    const uint64_t last_x = at.x(), last_y = at.y();
    if (first_x == last_x) {
      sum_y += sum_of_range(first_y, last_y + 1);
      sum_x += first_x * (last_y + 1 - first_y);
    } else {
      sum_y += sum_of_range(first_y, h) + sum_of_range(0, last_y + 1);
      sum_x += first_x * (h - first_y) + last_x * (last_y + 1);
      if (last_x - first_x > 1) {
        sum_y += (last_x - first_x - 1) * sum_of_range(0, h);
        sum_x += h * sum_of_range(first_x + 1, last_x);
      }
    }
  });
  if (area == 0) {
    centroid[0] = centroid[1] = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  centroid[0] = static_cast<float>(static_cast<double>(sum_y) / static_cast<double>(area));
  centroid[1] = static_cast<float>(static_cast<double>(sum_x) / static_cast<double>(area));
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
