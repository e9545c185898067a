// Unions and intersections of masks, from their runs: no pixel is made.
//
// Many masks are combined by what does so for `combine`. Two are merged by their toggles, the
// sorted positions where they change, without a branch that depends on the data: that takes no
// preparation, which is what counts where masks are small. And where masks have runs of length zero
// what is left of those depends on the order: then one mask after the other is merged like that, as
// pycocotools does.
#include <algorithm>

#include "../coco.h"
#include "combiner.h"
#include "count_blocks.h"

namespace sa1b::cpu {
namespace {

// Whether a run other than the first has length zero.
bool has_empty_runs(const Mask& mask) {
  CountBlocks blocks(mask);
  unsigned empty = 0;
  for (bool first = true; blocks.next_block(); first = false) {
    for (const uint32_t* count = blocks.begin() + first; count < blocks.end(); ++count) {
      empty |= unsigned{*count == 0};
    }
  }
  return empty != 0;
}

// The positions where a mask changes, each as often as it does, and the number of pixels.
std::vector<uint32_t> toggles_of(const Mask& mask) {
  const auto pixels = static_cast<uint32_t>(mask.pixels());
  std::vector<uint32_t> toggles(mask.end - mask.begin + 1);  // a count takes a character or more
  uint32_t* at = toggles.data();
  uint32_t position = 0;
  CountBlocks blocks(mask);
  while (blocks.next_block()) {
    for (const uint32_t* count = blocks.begin(); count < blocks.end(); ++count) {
      position += *count;
      *at = position;
      at += position < pixels;
    }
  }
  *at++ = pixels;
  toggles.resize(at - toggles.data());
  return toggles;
}

std::vector<uint32_t> merge_toggles(const std::vector<uint32_t>& first,
                                    const std::vector<uint32_t>& second, bool intersect) {
  const uint32_t pixels = first.back();
  std::vector<uint32_t> merged(first.size() + second.size());
  const uint32_t *a = first.data(), *b = second.data();
  uint32_t* at = merged.data();
  bool in_a = false, in_b = false, in_merged = false;
  if (intersect) {  // nothing is shared before both have begun
    for (const uint32_t begin = *b; *a < begin; ++a) in_a = !in_a;
    for (const uint32_t begin = *a; !in_a && *b < begin; ++b) in_b = !in_b;
  }
  for (;;) {
    const uint32_t next = std::min(*a, *b);
    if (next == pixels) break;
    // Nor after one of them has ended.
    if (intersect && ((*a == pixels && !in_a) || (*b == pixels && !in_b))) break;
    const bool toggles_a = *a == next, toggles_b = *b == next;
    a += toggles_a;
    b += toggles_b;
    in_a ^= toggles_a;
    in_b ^= toggles_b;
    const bool in = intersect ? in_a & in_b : in_a | in_b;
    *at = next;
    at += in != in_merged;
    in_merged = in;
  }
  *at++ = pixels;
  merged.resize(at - merged.data());
  return merged;
}

std::vector<uint32_t> merge_in_order(const std::vector<Mask>& masks, bool intersect) {
  std::vector<uint32_t> merged = toggles_of(masks[0]);
  for (size_t i = 1; i < masks.size(); ++i) {
    merged = merge_toggles(merged, toggles_of(masks[i]), intersect);
  }
  return merged;
}

void write_counts(const std::vector<uint32_t>& toggles, std::vector<uint8_t>* chars) {
  chars->resize(kMaxCharsPerCount * toggles.size());
  CountWriter writer(chars->data());
  uint32_t position = 0;
  for (const uint32_t toggle : toggles) {
    writer.add(toggle - position);
    position = toggle;
  }
  chars->resize(static_cast<size_t>(writer.at() - chars->data()));
}

void rewrite_counts(const Mask& mask, std::vector<uint8_t>* chars) {
  chars->resize(kMaxCharsPerCount * static_cast<size_t>(mask.end - mask.begin));
  CountWriter writer(chars->data());
  CountReader reader(mask);
  for (uint32_t count; reader.next(&count);) writer.add(count);
  chars->resize(static_cast<size_t>(writer.at() - chars->data()));
}

}  // namespace

void merge(const Batch& batch, bool intersect, std::vector<uint8_t>* chars) {
  std::vector<Mask> masks(batch.num_masks);
  for (int64_t i = 0; i < batch.num_masks; ++i) batch.mask(i, &masks[i]);
  if (masks.size() == 1) return rewrite_counts(masks[0], chars);
  if (masks.size() == 2 || std::any_of(masks.begin(), masks.end(), has_empty_runs)) {
    return write_counts(merge_in_order(masks, intersect), chars);
  }
  CharStream stream;
  Combiner().write(masks, intersect ? Combine::kIntersection : Combine::kUnion, stream);
  if (stream.failed()) throw std::bad_alloc();
  stream.finish();
  chars->resize(stream.written());
  stream.read(chars->data(), chars->size());
}

}  // namespace sa1b::cpu
