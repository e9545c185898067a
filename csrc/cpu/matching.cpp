// Greedy choices among masks: non-maximum suppression, and matching detections to the truth.
//
// Suppression walks the masks by falling score. One that is still there looks for masks after it
// whose boxes meet its own, and that are still there, and removes those that it covers too much of.
// So nothing is compared with a mask that was removed, and no pair is ever stored. Two masks share
// no more than what their boxes share, nor than the smaller one has: where even that would be
// within the threshold, as for most pairs, their runs are not looked at. Bound: splitting the runs,
// as for all pairs (pairwise.cpp), and the boxes of kept masks against all others.
//
// Matching is COCO's: pairs of masks that meet are few, so it works on a list of them.
#include "../matching.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "candidates.h"
#include "outlines.h"

namespace sa1b::cpu {
namespace {

bool is_order(const int64_t* order, int64_t first, int64_t n) {
  return std::all_of(order + first, order + first + n,
                     [&](int64_t i) { return i >= first && i < first + n; });
}

// The most pixels that two masks whose boxes meet can have in common.
uint64_t most_shared(const Outline& a, const Outline& b) {
  const uint64_t rows = std::min(a.box.bottom, b.box.bottom) - std::max(a.box.top, b.box.top);
  const uint64_t columns = std::min(a.box.right, b.box.right) - std::max(a.box.left, b.box.left);
  return std::min({uint64_t{a.area}, uint64_t{b.area}, rows * columns});
}

// What is over the threshold in COCO's evaluation.
double within_reach(double threshold) { return std::min(threshold, 1 - 1e-10); }

}  // namespace

int64_t suppress(const Batch& batch, const Suppression& suppression, int num_threads) {
  std::vector<Image> images;
  const int64_t status = find_images(batch, batch, suppression.num_images, &images);
  if (status != kOk) return status;
  const int64_t *const order = suppression.order, *const labels = suppression.labels;
  for (const Image& image : images) {
    if (!is_order(order, image.first_row, image.rows)) return kBadPlane;
  }
  std::fill_n(suppression.keep, batch.num_masks, 1);
  if (batch.num_masks == 0) return kOk;
  const Outlines outlines(batch, num_threads);
  const Boxes boxes(outlines, order);
  for (const Image& image : images) {
    const int64_t end = image.first_row + image.rows;
    for (int64_t at = image.first_row; at < end; ++at) {
      const int64_t i = order[at];
      if (!suppression.keep[i]) continue;
      const Outline& kept = outlines[i];
      boxes.for_each_meeting(kept.box, at + 1, end, [&](int64_t place) {
        const int64_t j = order[place];
        if (!suppression.keep[j] || (labels && labels[i] != labels[j])) return;
        const Outline& other = outlines[j];
        const auto is_over = [&](uint64_t shared) {
          return suppression.is_over(kept.area, other.area, shared);
        };
        if (is_over(most_shared(kept, other)) && is_over(intersect(kept, other))) {
          suppression.keep[j] = 0;
        }
      });
    }
  }
  return kOk;
}

int64_t match(const Match& match) {
  const int64_t num_detections = match.num_detections, num_truths = match.num_truths;
  // The pairs of detection d are [first[d], first[d + 1]).
  std::vector<int64_t> first(num_detections + 1);
  for (int64_t k = 0; k < match.num_pairs; ++k) {
    const int64_t d = match.pairs[2 * k], g = match.pairs[2 * k + 1];
    if (d < 0 || d >= num_detections || g < 0 || g >= num_truths) return kBadPlane;
    if (k > 0 && d < match.pairs[2 * k - 2]) return kBadPlane;
    ++first[d + 1];
  }
  for (int64_t d = 0; d < num_detections; ++d) {
    if (match.order[d] < 0 || match.order[d] >= num_detections) return kBadPlane;
    first[d + 1] += first[d];
  }
  std::vector<uint8_t> taken(num_truths);
  for (int64_t t = 0; t < match.num_thresholds; ++t) {
    int64_t* const matches = match.matches + t * num_detections;
    std::fill_n(matches, num_detections, -1);
    std::fill(taken.begin(), taken.end(), 0);
    for (int64_t place = 0; place < num_detections; ++place) {
      const int64_t d = match.order[place];
      int64_t best = -1;
      for (const bool ignored : {false, true}) {
        if (best >= 0) break;  // ignored ones only if there is no other
        double most = within_reach(match.thresholds[t]);
        for (int64_t k = first[d]; k < first[d + 1]; ++k) {
          const int64_t g = match.pairs[2 * k + 1];
          if ((match.ignore[g] != 0) != ignored || (taken[g] && !match.iscrowd[g])) continue;
          if (match.iou[k] < most) continue;  // of equals the last one
          most = match.iou[k];
          best = g;
        }
      }
      matches[d] = best;
      if (best >= 0) taken[best] = 1;
    }
  }
  return kOk;
}

}  // namespace sa1b::cpu
