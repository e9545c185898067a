// The foreground runs of a mask one at a time, for those who read several masks side by side, or
// one mask at several places; who reads one from its start to its end uses for_each_run.
#pragma once

#include "../rle_format.h"

namespace sa1b::cpu {

class RunReader {
 public:
  explicit RunReader(const Mask& mask) : counts_(mask), pixels_(mask.pixels()) {}

  // The next run [start, end) of positions; neither empty runs nor positions beyond h*w occur.
  // False after the last one.
  bool next(uint32_t* start, uint32_t* end) {
    uint32_t background, foreground;
    while (counts_.next(&background)) {
      const uint64_t begin = position_ + background;
      if (begin >= pixels_ || !counts_.next(&foreground)) break;
      position_ = begin + foreground < pixels_ ? begin + foreground : pixels_;
      if (foreground == 0) continue;
      *start = static_cast<uint32_t>(begin);
      *end = static_cast<uint32_t>(position_);
      return true;
    }
    pixels_ = 0;  // nothing follows, however often it is asked for
    return false;
  }

 private:
  CountReader counts_;
  uint64_t pixels_, position_ = 0;
};

}  // namespace sa1b::cpu
