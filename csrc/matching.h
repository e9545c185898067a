// Launchers that choose among masks. Conventions and status codes are those of launch.h.
#pragma once

#include "launch.h"

namespace sa1b {

// What `suppress` needs: masks by falling score. Each that is kept removes those after it, of the
// same image and label, of which it covers more than the threshold.
struct Suppression {
  int64_t num_images;     // or kNotGrouped: all masks are compared
  const int64_t* order;   // [N] all masks by falling score; grouped: those of the first image first
  const int64_t* labels;  // [N] of each mask; null: all are the same
  int metric;        // Pairwise::kIou, or kContainment: intersection over the removed one's area
  double threshold;  // compared with the quotient in float64
  uint8_t* keep;     // [N] 1 for a mask that is kept, else 0

  // Whether a mask that is kept removes another one, with which it shares pixels. Rises with what
  // they share, also after rounding.
  SA1B_HD bool is_over(uint64_t area_of_kept, uint64_t area_of_other, uint64_t shared) const {
    const uint64_t divisor =
        metric == Pairwise::kIou ? area_of_kept + area_of_other - shared : area_of_other;
    return static_cast<double>(shared) / static_cast<double>(divisor) > threshold;
  }
};

// What `match` needs: the pairs of detections and truths that overlap at all.
struct Match {
  int64_t num_pairs, num_detections, num_truths, num_thresholds;
  const int64_t* pairs;      // [num_pairs][2] detection and truth, sorted
  const double* iou;         // [num_pairs]
  const int64_t* order;      // [num_detections] by falling score
  const uint8_t* iscrowd;    // [num_truths] nonzero: may be matched more than once
  const uint8_t* ignore;     // [num_truths] nonzero: only for detections that match no other
  const double* thresholds;  // [num_thresholds]
  int64_t* matches;          // [num_thresholds][num_detections] a truth, or -1
};

namespace cpu {

int64_t suppress(const Batch& batch, const Suppression& suppression, int num_threads);

int64_t match(const Match& match);

}  // namespace cpu

namespace cuda {

// What the masks of a batch have in common, as `regions`, `count_pairs` and `write_pairs` find it.
struct Overlaps {
  int64_t num_masks, num_pairs;
  const int64_t* area;          // [N] pixels
  const int64_t* begins;        // [N + 1] how many pairs come before those of each mask
  const int64_t* indices;       // [num_pairs][2] masks, sorted; each pair both ways round
  const int64_t* intersection;  // [num_pairs] pixels
};

// The masks of different images share no pair, so that they are not told apart once more. A mask
// that is not in `order` is kept, and removes none.
int suppress(const Overlaps& overlaps, const Suppression& suppression,
             int64_t* ranks,  // [N] memory to work with
             const Stream& stream);

}  // namespace cuda
}  // namespace sa1b
