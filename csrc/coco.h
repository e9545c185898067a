// Launchers of what pycocotools' interface has beyond launch.h: merged and drawn masks, its dense
// layout, and pairs in float64. Raw pointers and sizes. Batches that come here were validated.
#pragma once

#include <vector>

#include "rle_format.h"

namespace sa1b::cpu {

// Column-major pixels of masks of one size.
void decode_columns(const Batch& batch,
                    uint8_t* out);  // [N][w][h] 1 inside the mask; all zero before

void exact_boxes(const Batch& batch,
                 double* boxes);  // [N][4] x, y, w, h in full pixels; zeros for an empty mask

// The union or the intersection of all masks, which are at least one and of one size. The string of
// a single mask keeps its counts. Else it is canonical, but where masks have zero-length runs
// inside some may stay: those that pycocotools leaves in.
void merge(const Batch& batch, bool intersect, std::vector<uint8_t>* chars);

// A filled polygon, pixel by pixel as pycocotools draws it. False if a coordinate is not finite, or
// beyond the 32-bit integers that it is rounded to.
bool draw_polygon(const double* xy,    // [num_points][2]
                  int64_t num_points,  // at least 1
                  uint32_t h, uint32_t w, std::vector<uint8_t>* chars);

// Intersection over union of each of M masks or boxes with each of N others; with a crowd, over the
// area of the first. Masks of different sizes: -1 if their boxes meet, else 0.
void mask_iou(const Batch& a, const Batch& b,
              const uint8_t* iscrowd,  // [N]
              double* iou);            // [N][M]; all zero before
void box_iou(const double* a,          // [M][4] x, y, w, h
             int64_t m,
             const double* b,  // [N][4]
             int64_t n,
             const uint8_t* iscrowd,  // [N]
             double* iou);            // [N][M]

}  // namespace sa1b::cpu
