// The smallest box around a mask, from its runs.
#pragma once

#include <algorithm>

#include "../regions.h"
#include "count_blocks.h"

namespace sa1b::cpu {

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
