// Boxes and intersection over union as pycocotools has them: in float64, of masks and of boxes.
//
// Masks of one size go the way of `pairwise`, whose bound is given there; masks of different sizes,
// of which hardly anything is asked, are walked pair by pair.
#include "../coco.h"
#include "box.h"
#include "pairs.h"

namespace sa1b::cpu {
namespace {

// The smaller and the larger number; of a number and NaN, the number.
double smaller(double a, double b) { return a < b || b != b ? a : b; }
double larger(double a, double b) { return a > b || b != b ? a : b; }

// Pixels in common of two masks of one size.
uint32_t shared_pixels(const Mask& a, const Mask& b) {
  CountReader readers[] = {CountReader(a), CountReader(b)};
  uint32_t ends[2] = {}, shared = 0, position = 0;
  bool inside[] = {true, true};  // so that both begin with a background
  const auto pixels = static_cast<uint32_t>(a.pixels());
  while (position < pixels) {
    for (int i = 0; i < 2; ++i) {
      for (uint32_t count; ends[i] == position && readers[i].next(&count);) {
        ends[i] += count;
        inside[i] = !inside[i];
      }
    }
    const uint32_t next = std::min(ends[0], ends[1]);
    if (inside[0] && inside[1]) shared += next - position;
    position = next;
  }
  return shared;
}

bool boxes_meet(const Box& a, const Box& b) {
  return std::max(a.left, b.left) < std::min(a.right, b.right) &&
         std::max(a.top, b.top) < std::min(a.bottom, b.bottom);
}

// All masks of both batches, which are not empty, have the same size.
bool is_uniform(const Batch& a, const Batch& b) {
  for (const Batch* batch : {&a, &b}) {
    for (int64_t i = 0; i < batch->num_masks; ++i) {
      if (batch->word(2 * i) != a.word(0) || batch->word(2 * i + 1) != a.word(1)) return false;
    }
  }
  return true;
}

// What `shared` pixels are of the union.
double fraction(int64_t shared, int64_t area_a, int64_t area_b, bool crowd) {
  const int64_t whole = crowd ? area_a : area_a + area_b - shared;
  return static_cast<double>(shared) / static_cast<double>(whole);
}

// Masks of any sizes.
void walk_pairs(const Batch& a, const Batch& b, const uint8_t* iscrowd, double* iou) {
  std::vector<int64_t> area_a(a.num_masks), area_b(b.num_masks);
  regions(a, area_a.data(), nullptr, nullptr, 1);
  regions(b, area_b.data(), nullptr, nullptr, 1);
  Mask mask_a, mask_b;
  std::vector<Box> boxes_a(a.num_masks);
  for (int64_t i = 0; i < a.num_masks; ++i) {
    a.mask(i, &mask_a);
    boxes_a[i] = find_box(mask_a);
  }
  for (int64_t j = 0; j < b.num_masks; ++j) {
    b.mask(j, &mask_b);
    const Box box_b = find_box(mask_b);
    for (int64_t i = 0; i < a.num_masks; ++i) {
      if (!boxes_meet(boxes_a[i], box_b)) continue;
      double& value = iou[j * a.num_masks + i];
      a.mask(i, &mask_a);
      if (mask_a.h != mask_b.h || mask_a.w != mask_b.w) {
        value = -1;
      } else if (const uint32_t shared = shared_pixels(mask_a, mask_b)) {
        value = fraction(shared, area_a[i], area_b[j], iscrowd[j]);
      }
    }
  }
}

}  // namespace

void exact_boxes(const Batch& batch, double* boxes) {
  Mask mask;
  for (int64_t i = 0; i < batch.num_masks; ++i, boxes += 4) {
    batch.mask(i, &mask);
    const Box box = find_box(mask);
    boxes[0] = box.left;
    boxes[1] = box.top;
    boxes[2] = box.right - box.left;
    boxes[3] = box.bottom - box.top;
  }
}

void mask_iou(const Batch& a, const Batch& b, const uint8_t* iscrowd, double* iou) {
  if (a.num_masks == 0 || b.num_masks == 0) return;
  if (!is_uniform(a, b)) return walk_pairs(a, b, iscrowd, iou);
  for_each_pair(b, a, kNotGrouped, b.num_masks, a.num_masks, 1,
                [&](int64_t at, int64_t j, int64_t, uint32_t area_b, uint32_t area_a,
                    uint32_t shared) { iou[at] = fraction(shared, area_a, area_b, iscrowd[j]); });
}

void box_iou(const double* a, int64_t m, const double* b, int64_t n, const uint8_t* iscrowd,
             double* iou) {
  for (int64_t j = 0; j < n; ++j, b += 4) {
    const double area_b = b[2] * b[3];
    for (const double* box = a; box != a + 4 * m; box += 4, ++iou) {
      *iou = 0;
      const double w = smaller(box[2] + box[0], b[2] + b[0]) - larger(box[0], b[0]);
      if (w <= 0) continue;
      const double h = smaller(box[3] + box[1], b[3] + b[1]) - larger(box[1], b[1]);
      if (h <= 0) continue;
      const double shared = w * h, area = box[2] * box[3];
      *iou = shared / (iscrowd[j] ? area : area + area_b - shared);
    }
  }
}

}  // namespace sa1b::cpu
