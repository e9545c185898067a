// The smallest box around a mask, from its runs.
#pragma once

#include <algorithm>

#include "count_blocks.h"

namespace sa1b::cpu {

// Rows [top, bottom) and columns [left, right); all zero for an empty mask.
struct Box {
  uint32_t top = 0, bottom = 0, left = 0, right = 0;
};

inline Box find_box(const Mask& mask) {
  Box box;
  box.top = mask.h;
  Cursor at(mask.h);
  for_each_run(mask, [&](uint32_t start, uint32_t end) {
    at.move_to(start);
    const uint32_t first_column = at.x(), first_row = at.y();
    if (box.right == 0) box.left = first_column;
    at.move_to(end - 1);
    box.right = at.x() + 1;
    const bool one_column = at.x() == first_column;
    box.top = one_column ? std::min(box.top, first_row) : 0;
    box.bottom = one_column ? std::max(box.bottom, at.y() + 1) : mask.h;
  });
  return box.right == 0 ? Box{} : box;
}

}  // namespace sa1b::cpu
