// Unions and intersections of masks, from their runs: no pixel is made.
//
// A mask is the sorted list of its toggles, the positions where it changes. Two lists are merged
// without a branch that depends on the data, about 9 cycles a toggle. Many masks are merged in
// pairs, then the results in pairs and so on: a toggle of N masks is looked at log2(N) times, and
// in intersections hardly more than once, since little is left of them.
//
// Where a mask has runs of length zero the same position toggles twice, and what the result looks
// like depends on the order of merging. Such masks are merged one after the other, as pycocotools
// does.
#include <algorithm>
#include <memory>

#include "../coco.h"
#include "count_blocks.h"

namespace sa1b::cpu {
namespace {

// Toggles of several masks one behind the other, each list ended by the number of pixels.
class ToggleLists {
 public:
  // At most `capacity` toggles and ends in `most_lists` lists.
  ToggleLists(size_t capacity, size_t most_lists) : capacity_(capacity), most_lists_(most_lists) {}

  // To be called before the first list is added.
  void clear() {
    if (toggles_ == nullptr) toggles_.reset(new uint32_t[capacity_]);
    lists_.reserve(most_lists_);
    lists_.clear();
    at_ = toggles_.get();
  }
  size_t size() const { return lists_.size(); }
  const uint32_t* operator[](size_t i) const { return lists_[i]; }

  // Adds the toggles of a mask; whether they all differ.
  bool add_mask(const Mask& mask, uint32_t pixels) {
    lists_.push_back(at_);
    uint32_t* at = at_;
    uint32_t position = 0;
    bool distinct = true, first = true;
    CountBlocks blocks(mask);
    while (blocks.next_block()) {
      for (const uint32_t* count = blocks.begin(); count != blocks.end(); ++count) {
        distinct &= first || *count != 0;
        first = false;
        position += *count;
        *at = position;
        at += position < pixels;
      }
    }
    *at = pixels;
    at_ = at + 1;
    return distinct;
  }

  void add_copy(const uint32_t* list, uint32_t pixels) {
    lists_.push_back(at_);
    const uint32_t* end = list;
    while (*end != pixels) ++end;
    at_ = std::copy(list, end + 1, at_);
  }

  template <bool kIntersect>
  void add_merged(const uint32_t* a, const uint32_t* b, uint32_t pixels) {
    lists_.push_back(at_);
    uint32_t* at = at_;
    bool in_a = false, in_b = false, in_result = false;
    if (kIntersect) {  // nothing is shared before both have begun
      for (const uint32_t begin = *b; *a < begin; ++a) in_a = !in_a;
      for (const uint32_t begin = *a; !in_a && *b < begin; ++b) in_b = !in_b;
    }
    for (;;) {
      const uint32_t next = std::min(*a, *b);
      if (next == pixels) break;
      // Nor after one of them has ended.
      if (kIntersect && ((*a == pixels && !in_a) || (*b == pixels && !in_b))) break;
      const bool toggles_a = *a == next, toggles_b = *b == next;
      a += toggles_a;
      b += toggles_b;
      in_a ^= toggles_a;
      in_b ^= toggles_b;
      const bool in = kIntersect ? in_a & in_b : in_a | in_b;
      *at = next;
      at += in != in_result;
      in_result = in;
    }
    *at = pixels;
    at_ = at + 1;
  }

 private:
  size_t capacity_, most_lists_;
  std::unique_ptr<uint32_t[]> toggles_;
  uint32_t* at_ = nullptr;  // where the next list begins
  std::vector<const uint32_t*> lists_;
};

template <bool kIntersect>
const uint32_t* merge_in_pairs(const ToggleLists& masks, uint32_t pixels, ToggleLists buffers[2]) {
  const ToggleLists* from = &masks;
  for (int level = 0; from->size() > 1; ++level) {
    ToggleLists& to = buffers[level % 2];
    to.clear();
    size_t i = 0;
    for (; i + 1 < from->size(); i += 2) {
      to.add_merged<kIntersect>((*from)[i], (*from)[i + 1], pixels);
    }
    if (i < from->size()) to.add_copy((*from)[i], pixels);
    from = &to;
  }
  return (*from)[0];
}

template <bool kIntersect>
const uint32_t* merge_in_order(const ToggleLists& masks, uint32_t pixels, ToggleLists buffers[2]) {
  const uint32_t* merged = masks[0];
  for (size_t i = 1; i < masks.size(); ++i) {
    ToggleLists& to = buffers[i % 2];
    to.clear();
    to.add_merged<kIntersect>(merged, masks[i], pixels);
    merged = to[0];
  }
  return merged;
}

void write_counts(const uint32_t* toggle, uint32_t pixels, std::vector<uint8_t>* chars) {
  const uint32_t* end = toggle;
  while (*end != pixels) ++end;
  chars->resize(kMaxCharsPerCount * static_cast<size_t>(end - toggle + 1));
  CountWriter writer(chars->data());
  uint32_t position = 0;
  for (; toggle <= end; position = *toggle++) writer.add(*toggle - position);
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
  const int64_t n = batch.num_masks;
  Mask mask;
  batch.mask(0, &mask);
  if (n == 1) return rewrite_counts(mask, chars);
  const auto pixels = static_cast<uint32_t>(mask.pixels());
  // At most a toggle for each character, and the end of each list.
  const auto capacity = static_cast<size_t>(batch.word(3 * n) - batch.word(2 * n) + n);
  const auto most_merged = static_cast<size_t>((n + 1) / 2);
  ToggleLists masks(capacity, static_cast<size_t>(n));
  ToggleLists buffers[2] = {{capacity, most_merged}, {capacity, most_merged}};
  masks.clear();
  bool distinct = true;
  for (int64_t i = 0; i < n; ++i) {
    batch.mask(i, &mask);
    distinct &= masks.add_mask(mask, pixels);
  }
  const auto merge_all = distinct ? (intersect ? merge_in_pairs<true> : merge_in_pairs<false>)
                                  : (intersect ? merge_in_order<true> : merge_in_order<false>);
  write_counts(merge_all(masks, pixels, buffers), pixels, chars);
}

}  // namespace sa1b::cpu
