// How the rows and columns of a mask's window lie in the plane that shows it.
//
// Crop and resize map both axes monotonically, so a boundary of a run maps to a boundary: the first
// output row (or column) whose source is at or after it.
#pragma once

#include "rle_format.h"

namespace sa1b {

// Where the window of a mask lies in its plane.
struct Window {
  uint32_t y, x, h, w;    // in the mask
  uint32_t out_h, out_w;  // in the plane, from its top left
};

struct Whole {
  SA1B_HD explicit Whole(const Window&) {}
  SA1B_HD uint32_t row(uint32_t y) const { return y; }
  SA1B_HD uint32_t column(uint32_t x) const { return x; }
};

struct Crop {
  SA1B_HD explicit Crop(const Window& window) : window_(window) {}
  SA1B_HD uint32_t row(uint32_t y) const { return clip(y, window_.y, window_.h); }
  SA1B_HD uint32_t column(uint32_t x) const { return clip(x, window_.x, window_.w); }

 private:
  SA1B_HD static uint32_t clip(uint32_t at, uint32_t begin, uint32_t length) {
    if (at <= begin) return 0;
    return at - begin < length ? at - begin : length;
  }
  Window window_;
};

// One axis of a resized window.
class NearestAxis {
 public:
  SA1B_HD NearestAxis(uint32_t in, uint32_t out)
      : in_(in), out_(out), scale_(static_cast<float>(in) / static_cast<float>(out)) {}

  SA1B_HD uint32_t first_at_or_after(uint32_t source) const {
    if (source == 0) return 0;
    if (source >= in_) return out_;
    // nearest_source is monotone and about d * scale: start there and step to the exact place.
    const double guess = static_cast<double>(source) / scale_;
    uint32_t d = guess < out_ ? static_cast<uint32_t>(guess) : out_;
    while (d > 0 && nearest_source(d - 1, scale_, in_) >= source) --d;
    while (d < out_ && nearest_source(d, scale_, in_) < source) ++d;
    return d;
  }

 private:
  uint32_t in_, out_;
  float scale_;
};

class Resize {
 public:
  SA1B_HD explicit Resize(const Window& window)
      : crop_(window), rows_(window.h, window.out_h), columns_(window.w, window.out_w) {}
  SA1B_HD uint32_t row(uint32_t y) const { return rows_.first_at_or_after(crop_.row(y)); }
  SA1B_HD uint32_t column(uint32_t x) const { return columns_.first_at_or_after(crop_.column(x)); }

 private:
  Crop crop_;
  NearestAxis rows_, columns_;
};

}  // namespace sa1b
