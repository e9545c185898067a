// What tests ask of decode: any of its options, on small masks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "reference.h"

namespace sa1b::test {

// A plain decode of all masks to planes of out_h x out_w.
inline Decode plain(const std::vector<Rle>& rles, int64_t out_h, int64_t out_w, int item_size = 1) {
  Decode d = {};
  d.num_planes = static_cast<int64_t>(rles.size());
  d.out_h = out_h;
  d.out_w = out_w;
  d.item_size = item_size;
  const uint32_t ones[] = {0, 1, 0x3c00, 0, 0x3f800000};  // 1 and, as floats, 1.0
  d.one = ones[item_size];
  return d;
}

struct DecodeCase {
  std::vector<Rle> rles;
  Decode d = {};                       // without `out`
  std::vector<int64_t> planes, crops;  // what d points to

  explicit DecodeCase(Random& random) {
    const int64_t edges[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129};
    const auto side = [&] {
      return random.one_in(4) ? edges[random.below(std::size(edges))] : random.below(50);
    };
    const bool one_size = random.one_in(2);
    for (int64_t i = random.below(6); i > 0; --i) {
      const bool same = one_size && !rles.empty();
      rles.push_back(random_rle(random, same ? rles[0].h : side(), same ? rles[0].w : side()));
    }
    const auto num_masks = static_cast<int64_t>(rles.size());
    const int item_sizes[] = {1, 2, 4};
    d = plain(rles, 0, 0, item_sizes[random.below(3)]);
    if (random.one_in(4)) d.one = static_cast<uint32_t>(random.bits() >> (64 - 8 * d.item_size));
    d.resize = random.one_in(3);

    planes.reserve(1);  // not null even if empty: null means all masks
    if (random.one_in(2)) {
      for (int64_t plane = random.below(8); plane > 0; --plane) {
        planes.push_back(random.between(-1, num_masks - 1));
      }
      d.num_planes = static_cast<int64_t>(planes.size());
      d.planes = planes.data();
    }
    const bool cropped = random.one_in(3);
    for (int64_t plane = 0; plane < d.num_planes; ++plane) {
      const int64_t i = d.planes ? planes[plane] : plane;
      const int64_t mask_h = i < 0 ? 0 : rles[i].h, mask_w = i < 0 ? 0 : rles[i].w;
      const int64_t y = cropped ? random.between(0, mask_h) : 0;
      const int64_t x = cropped ? random.between(0, mask_w) : 0;
      const int64_t h = cropped ? random.between(0, mask_h - y) : mask_h;
      const int64_t w = cropped ? random.between(0, mask_w - x) : mask_w;
      crops.insert(crops.end(), {y, x, h, w});
      d.out_h = std::max(d.out_h, h);
      d.out_w = std::max(d.out_w, w);
    }
    if (cropped) d.crops = crops.data();
    if (d.resize) {
      d.out_h = side();
      d.out_w = side();
    } else if (random.one_in(2)) {  // pad
      d.out_h += random.below(70);
      d.out_w += random.below(70);
    }
  }
  DecodeCase(const DecodeCase&) = delete;
};

}  // namespace sa1b::test
