// Makes one mask of several: what `combine` does for a group, and `merge` for all it is given.
#pragma once

#include <memory>
#include <vector>

#include "../algebra.h"
#include "char_stream.h"

namespace sa1b::cpu {

class Combiner {
 public:
  Combiner();
  ~Combiner();

  // Writes the canonical string of one mask or more, all of one size; `kind` is that of `Combine`.
  void write(const std::vector<Mask>& masks, int kind, CharStream& stream);

 private:
  struct Scratch;
  std::unique_ptr<Scratch> scratch_;  // made when it is first needed
};

}  // namespace sa1b::cpu
