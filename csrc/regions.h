// What a foreground run adds to a mask's box and centroid, on the CPU and on the GPU.
#pragma once

#include "rle_format.h"

namespace sa1b {

// Rows [top, bottom) and columns [left, right); all zero for an empty mask.
struct Box {
  uint32_t top = 0, bottom = 0, left = 0, right = 0;
};

// Sums of the coordinates of pixels. Every one is below 2**63: there are at most h*w < 2**32
// pixels, with coordinates below 2**32 / the other side.
struct CoordinateSums {
  uint64_t y, x;

  // Adds the pixels of a run from (first_y, first_x) to (last_y, last_x) of a mask with h rows.
  SA1B_HD void add_run(uint64_t first_y, uint64_t first_x, uint64_t last_y, uint64_t last_x,
                       uint64_t h) {
    if (first_x == last_x) {
      y += of_range(first_y, last_y + 1);
      x += first_x * (last_y + 1 - first_y);
      return;
    }
    y += of_range(first_y, h) + of_range(0, last_y + 1);
    x += first_x * (h - first_y) + last_x * (last_y + 1);
    if (last_x - first_x > 1) {
      y += (last_x - first_x - 1) * of_range(0, h);
      x += h * of_range(first_x + 1, last_x);
    }
  }

 private:
  // Sum of the integers in [first, last).
  SA1B_HD static uint64_t of_range(uint64_t first, uint64_t last) {
    const uint64_t n = last - first, twice_mean = first + last - 1;
    return (n & 1) ? n * (twice_mean / 2) : (n / 2) * twice_mean;
  }
};

// A mean coordinate, rounded once.
SA1B_HD float mean_of(uint64_t sum, uint64_t area) {
  return static_cast<float>(static_cast<double>(sum) / static_cast<double>(area));
}

}  // namespace sa1b
