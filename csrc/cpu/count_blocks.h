// Reads the counts of a mask in blocks, the CPU's fast counterpart of CountReader with the same
// results for any bytes.
//
// In SA-1B three of four groups of 16 characters hold 16 values of one character each. Such a group
// is decoded at once: sign-extend, add up with a stride of two (the difference coding), widen, add
// the two counts before. About 2 instructions a value, and none that depends on the data.
#pragma once

#include "../rle_format.h"

#if defined(__SSE2__) || defined(_M_X64)
#define SA1B_GROUPS_OF_16 1
#include <emmintrin.h>
#else
#define SA1B_GROUPS_OF_16 0
#endif

namespace sa1b::cpu {

class CountBlocks {
 public:
  explicit CountBlocks(const Mask& mask) : reader_(mask) {}

  // Reads the next counts into [begin(), end()). False when there are none left.
  bool next_block() {
    size_ = 0;
    while (size_ <= kCapacity - kGroup) {
      read_groups();
      // A character that belongs to no such group: read on to where the next one may begin.
      const uint8_t* const group = reader_.at();
      while (size_ < kCapacity && reader_.at() - group < kGroup) {
        if (!reader_.next(&counts_[size_])) return size_ > 0;
        ++size_;
      }
    }
    return true;
  }

  const uint32_t* begin() const { return counts_; }
  const uint32_t* end() const { return counts_ + size_; }

 private:
  static constexpr int kGroup = 16;
  static constexpr int kCapacity = 256;

#if SA1B_GROUPS_OF_16
  // Reads groups of 16 characters as long as each is a value and there is room.
  void read_groups() {
    if (reader_.at_start()) return;  // the first count follows a rule of its own
    const int older = static_cast<int>(reader_.older()), newer = static_cast<int>(reader_.newer());
    __m128i base = _mm_setr_epi32(older, newer, older, newer);
    const uint8_t* at = reader_.at();
    int size = size_;
    for (; reader_.end() - at >= kGroup && size <= kCapacity - kGroup;
         at += kGroup, size += kGroup) {
      const __m128i chars = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
      const __m128i bits = _mm_sub_epi8(chars, _mm_set1_epi8(kCharBase));
      const __m128i high = _mm_and_si128(bits, _mm_set1_epi8(static_cast<char>(~kPayload)));
      if (_mm_movemask_epi8(_mm_cmpeq_epi8(high, _mm_setzero_si128())) != 0xffff) break;
      const __m128i sign = _mm_set1_epi8(kSign);
      const __m128i values = _mm_sub_epi8(_mm_xor_si128(bits, sign), sign);
      const __m128i negative = _mm_cmplt_epi8(values, _mm_setzero_si128());
      const __m128i low = add_up(_mm_unpacklo_epi8(values, negative));
      __m128i high_half = add_up(_mm_unpackhi_epi8(values, negative));
      high_half = _mm_add_epi16(high_half, _mm_shuffle_epi32(low, _MM_SHUFFLE(3, 3, 3, 3)));
      auto* const to = reinterpret_cast<__m128i*>(counts_ + size);
      store_widened(low, base, to);
      const __m128i last = store_widened(high_half, base, to + 2);
      base = _mm_shuffle_epi32(last, _MM_SHUFFLE(3, 2, 3, 2));
    }
    if (size == size_) return;
    size_ = size;
    reader_.skip_to(at, counts_[size - 2], counts_[size - 1]);
  }

  // Each of 8 lanes plus the lanes of the same parity before it.
  static __m128i add_up(__m128i lanes) {
    lanes = _mm_add_epi16(lanes, _mm_slli_si128(lanes, 4));
    return _mm_add_epi16(lanes, _mm_slli_si128(lanes, 8));
  }

  // Adds the base to 8 lanes and stores them as 32 bits each; returns the last four.
  static __m128i store_widened(__m128i lanes, __m128i base, __m128i* to) {
    const __m128i negative = _mm_srai_epi16(lanes, 15);
    const __m128i last = _mm_add_epi32(base, _mm_unpackhi_epi16(lanes, negative));
    _mm_storeu_si128(to, _mm_add_epi32(base, _mm_unpacklo_epi16(lanes, negative)));
    _mm_storeu_si128(to + 1, last);
    return last;
  }
#else
  void read_groups() {}
#endif

  CountReader reader_;
  int size_ = 0;
  uint32_t counts_[kCapacity];
};

// Calls visit(start, end) for every foreground run [start, end) of positions, in order; neither
// empty runs nor positions beyond h*w occur.
template <class Visit>
SA1B_ALWAYS_INLINE inline void for_each_run(const Mask& mask, Visit visit) {
  const uint64_t pixels = mask.pixels();
  CountBlocks blocks(mask);
  uint64_t start = 0, position = 0;
  bool foreground = false;
  while (blocks.next_block()) {
    for (const uint32_t count : blocks) {
      if (!foreground) {
        start = position + count;
        if (start >= pixels) return;
      } else {
        position = start + count < pixels ? start + count : pixels;
        if (count) visit(static_cast<uint32_t>(start), static_cast<uint32_t>(position));
      }
      foreground = !foreground;
    }
  }
}

}  // namespace sa1b::cpu
