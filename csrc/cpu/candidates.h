// Which masks of one or two batches are to be compared: those of the same image whose boxes meet.
#pragma once

#include <utility>
#include <vector>

#include "../launch.h"
#include "outlines.h"

namespace sa1b::cpu {

// The sides of all boxes, each side by itself, so that several boxes are compared at once; as
// signed numbers, which is what vector registers compare.
class Boxes {
 public:
  // Of all masks, in the order given if there is one.
  explicit Boxes(const Outlines& masks,
                 const int64_t* order = nullptr)  // [masks.size()]
      : n_(masks.size()), sides_(4 * masks.size()) {
    for (int64_t i = 0; i < n_; ++i) {
      const Box& box = masks[order ? order[i] : i].box;
      left()[i] = ordered(box.left);
      right()[i] = ordered(box.right);
      top()[i] = ordered(box.top);
      bottom()[i] = ordered(box.bottom);
    }
  }

  // Calls visit(i) for every box in [begin, end) that has a pixel in common with this one.
  template <class Visit>
  void for_each_meeting(const Box& box, int64_t begin, int64_t end, Visit visit) const {
    if (box.right == 0) return;
    const int32_t left_of = ordered(box.left), right_of = ordered(box.right);
    const int32_t top_of = ordered(box.top), bottom_of = ordered(box.bottom);
    constexpr int64_t kBlock = 256;
    for (; begin < end; begin += kBlock) {
      uint8_t meets[kBlock] = {};
      const int64_t n = std::min(kBlock, end - begin);
      const int32_t *const l = left() + begin, *const r = right() + begin;
      const int32_t *const t = top() + begin, *const b = bottom() + begin;
      for (int64_t i = 0; i < n; ++i) {
        meets[i] = (l[i] < right_of) & (r[i] > left_of) & (t[i] < bottom_of) & (b[i] > top_of);
      }
      for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, meets + i, 8);
        if (eight == 0) continue;
        for (int64_t k = i; k < i + 8; ++k) {
          if (meets[k]) visit(begin + k);
        }
      }
    }
  }

 private:
  static int32_t ordered(uint32_t side) { return static_cast<int32_t>(side ^ 0x80000000u); }
  int32_t* left() { return sides_.data(); }
  int32_t* right() { return sides_.data() + n_; }
  int32_t* top() { return sides_.data() + 2 * n_; }
  int32_t* bottom() { return sides_.data() + 3 * n_; }
  const int32_t* left() const { return sides_.data(); }
  const int32_t* right() const { return sides_.data() + n_; }
  const int32_t* top() const { return sides_.data() + 2 * n_; }
  const int32_t* bottom() const { return sides_.data() + 3 * n_; }

  int64_t n_;
  std::vector<int32_t> sides_;
};

// The masks of one image in both batches; of flat batches, all.
struct Image {
  int64_t first_row, rows, first_column, columns;
};

// How many masks image k has. The table of images follows the offsets.
inline int64_t masks_of_image(const Batch& batch, int64_t k) {
  return batch.word(3 * batch.num_masks + 1 + 3 * k);
}

inline bool images_fit(const Batch& batch, int64_t num_images) {
  const int64_t words = batch.num_bytes / 8 - (3 * batch.num_masks + 1);
  return num_images >= 0 && num_images <= words / 3;
}

// Whether every header is sound, and every two masks that are compared have one size.
inline int64_t find_images(const Batch& a, const Batch& b, int64_t num_images,
                           std::vector<Image>* images) {
  for (const Batch* batch : {&a, &b}) {
    if (!batch->header_fits()) return kBadHeader;
    Mask mask;
    for (int64_t i = 0; i < batch->num_masks; ++i) {
      if (!batch->mask(i, &mask)) return kBadHeader;
    }
  }
  if (num_images == kNotGrouped) {
    images->push_back({0, a.num_masks, 0, b.num_masks});
  } else {
    if (!images_fit(a, num_images) || !images_fit(b, num_images)) return kBadHeader;
    Image image = {0, 0, 0, 0};
    for (int64_t k = 0; k < num_images; ++k) {
      image.first_row += image.rows;
      image.first_column += image.columns;
      image.rows = masks_of_image(a, k);
      image.columns = masks_of_image(b, k);
      if (image.rows < 0 || image.rows > a.num_masks - image.first_row) return kBadHeader;
      if (image.columns < 0 || image.columns > b.num_masks - image.first_column) return kBadHeader;
      images->push_back(image);
    }
    image.first_row += image.rows;
    image.first_column += image.columns;
    if (image.first_row != a.num_masks || image.first_column != b.num_masks) return kBadHeader;
  }
  for (const Image& image : *images) {
    if (image.rows == 0 || image.columns == 0) continue;
    const int64_t h = a.word(2 * image.first_row), w = a.word(2 * image.first_row + 1);
    const auto has_other_size = [&](const Batch& batch, int64_t first, int64_t n) {
      for (int64_t i = first; i < first + n; ++i) {
        if (batch.word(2 * i) != h || batch.word(2 * i + 1) != w) return true;
      }
      return false;
    };
    if (has_other_size(a, image.first_row, image.rows) ||
        has_other_size(b, image.first_column, image.columns)) {
      return kMixedSizes;
    }
  }
  return kOk;
}

}  // namespace sa1b::cpu
