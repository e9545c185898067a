// What all operators that make masks of masks share: how they write and how many threads they use.
#pragma once

#include "encoded.h"

namespace sa1b::cpu {

// Takes the positions from where on background and foreground change places, in order, any number
// of them at one position, and writes the canonical string: two toggles at one position are none.
class ToggleWriter {
 public:
  explicit ToggleWriter(const BoundaryWriter& boundaries) : boundaries_(boundaries) {}

  SA1B_ALWAYS_INLINE void toggle(uint64_t position) {
    if (position == waiting_) {
      waiting_ = kNone;
      return;
    }
    if (waiting_ != kNone) boundaries_.add(static_cast<uint32_t>(waiting_));
    waiting_ = position;
  }

  SA1B_ALWAYS_INLINE void add_run(uint64_t start, uint64_t end) {
    toggle(start);
    toggle(end);
  }

  // To be called last. What toggles at the end of the mask changes nothing.
  void finish(uint64_t pixels) {
    if (waiting_ < pixels) boundaries_.add(static_cast<uint32_t>(waiting_));
    boundaries_.finish_mask(static_cast<uint32_t>(pixels));
  }

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};

  BoundaryWriter boundaries_;
  uint64_t waiting_ = kNone;  // the last toggle: another may follow at the same position
};

// Reading and writing a character costs about what moving 64 bytes does.
inline int algebra_threads(int wanted, int64_t masks, int64_t num_bytes) {
  return useful_threads(std::min(wanted, kMaxThreads), masks, 64 * num_bytes);
}

// Reads all headers, so that the kernels need not check again.
inline int64_t check_header(const Batch& batch) {
  if (!batch.header_fits()) return kBadHeader;
  Mask mask;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    if (!batch.mask(i, &mask)) return kBadHeader;
  }
  return kOk;
}

}  // namespace sa1b::cpu
