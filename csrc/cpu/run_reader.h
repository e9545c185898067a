// The foreground runs of a mask one at a time, for those who read several masks side by side, or
// one mask at several places; who reads one from its start to its end uses for_each_run.
#pragma once

#include "../rle_format.h"

namespace sa1b::cpu {

class RunReader {
 public:
  explicit RunReader(const Mask& mask) : counts_(mask), pixels_(mask.pixels()) { read(); }

  // The next run [start, end) of positions, with a gap before and behind it. False after the last.
  bool next(uint32_t* start, uint32_t* end) {
    if (start_ == end_) return false;
    *start = static_cast<uint32_t>(start_);
    do {  // a background of length zero parts nothing
      *end = static_cast<uint32_t>(end_);
      read();
    } while (start_ == *end && start_ < end_);
    return true;
  }

 private:
  // Reads a run ahead; an empty one if there is none.
  void read() {
    uint32_t background, foreground;
    while (counts_.next(&background)) {
      start_ = end_ + background;
      if (start_ >= pixels_ || !counts_.next(&foreground)) break;
      end_ = start_ + foreground < pixels_ ? start_ + foreground : pixels_;
      if (start_ < end_) return;
    }
    start_ = end_ = pixels_ = 0;  // nothing follows, however often it is asked for
  }

  CountReader counts_;
  uint64_t pixels_, start_ = 0, end_ = 0;
};

}  // namespace sa1b::cpu
