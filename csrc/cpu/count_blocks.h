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

#if SA1B_GROUPS_OF_16

// Decodes 16 characters that are one value each into 16 counts. `base` holds the two counts before,
// (older, newer, older, newer). False if a character is of another kind.
inline bool decode_group(const uint8_t* chars, __m128i base, __m128i counts[4]) {
  const __m128i bits = _mm_sub_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(chars)),
                                    _mm_set1_epi8(kCharBase));
  const __m128i others = _mm_and_si128(bits, _mm_set1_epi8(static_cast<char>(~kPayload)));
  if (_mm_movemask_epi8(_mm_cmpeq_epi8(others, _mm_setzero_si128())) != 0xffff) return false;
  const __m128i sign = _mm_set1_epi8(kSign);
  const __m128i values = _mm_sub_epi8(_mm_xor_si128(bits, sign), sign);
  const __m128i negative = _mm_cmplt_epi8(values, _mm_setzero_si128());
  // In 8 lanes of 16 bits: each value plus those of the same parity before it.
  __m128i low = _mm_unpacklo_epi8(values, negative);
  low = _mm_add_epi16(low, _mm_slli_si128(low, 4));
  low = _mm_add_epi16(low, _mm_slli_si128(low, 8));
  __m128i high = _mm_unpackhi_epi8(values, negative);
  high = _mm_add_epi16(high, _mm_slli_si128(high, 4));
  high = _mm_add_epi16(high, _mm_slli_si128(high, 8));
  high = _mm_add_epi16(high, _mm_shuffle_epi32(low, _MM_SHUFFLE(3, 3, 3, 3)));
  const __m128i low_sign = _mm_srai_epi16(low, 15), high_sign = _mm_srai_epi16(high, 15);
  counts[0] = _mm_add_epi32(base, _mm_unpacklo_epi16(low, low_sign));
  counts[1] = _mm_add_epi32(base, _mm_unpackhi_epi16(low, low_sign));
  counts[2] = _mm_add_epi32(base, _mm_unpacklo_epi16(high, high_sign));
  counts[3] = _mm_add_epi32(base, _mm_unpackhi_epi16(high, high_sign));
  return true;
}

inline __m128i group_base(uint32_t older, uint32_t newer) {
  const int a = static_cast<int>(older), b = static_cast<int>(newer);
  return _mm_setr_epi32(a, b, a, b);
}

inline __m128i next_group_base(const __m128i counts[4]) {
  return _mm_shuffle_epi32(counts[3], _MM_SHUFFLE(3, 2, 3, 2));
}

#endif

class CountBlocks {
 public:
  explicit CountBlocks(const Mask& mask) : reader_(mask) {}

  // Reads the next counts into [begin(), end()): an even number of them, a background first, except
  // that the last block may end with a background. False when there are none left.
  bool next_block() {
    size_ = 0;
    while (size_ <= kCapacity - kGroup) {
      read_groups();
      // A character that belongs to no such group: read on to where the next one may begin.
      const uint8_t* const group = reader_.at();
      while (size_ < kCapacity && reader_.at() - group < kGroup) {
        if (!read_one()) return size_ > 0;
      }
    }
    if (size_ % 2 != 0) read_one();
    return true;
  }

  const uint32_t* begin() const { return counts_; }
  const uint32_t* end() const { return counts_ + size_; }

 private:
  static constexpr int kGroup = 16;
  static constexpr int kCapacity = 256;

  bool read_one() {
    if (!reader_.next(&counts_[size_])) return false;
    ++size_;
    return true;
  }

  // Reads groups of 16 characters as long as each is a value and there is room.
  void read_groups() {
#if SA1B_GROUPS_OF_16
    if (reader_.at_start()) return;  // the first count follows a rule of its own
    __m128i base = group_base(reader_.older(), reader_.newer());
    const uint8_t* at = reader_.at();
    int size = size_;
    for (; reader_.end() - at >= kGroup && size <= kCapacity - kGroup;
         at += kGroup, size += kGroup) {
      __m128i counts[4];
      if (!decode_group(at, base, counts)) break;
      memcpy(counts_ + size, counts, sizeof(counts));
      base = next_group_base(counts);
    }
    if (size == size_) return;
    size_ = size;
    reader_.skip_to(at, counts_[size - 2], counts_[size - 1]);
#endif
  }

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
  uint64_t position = 0;
  while (blocks.next_block()) {
    for (const uint32_t* count = blocks.begin(); blocks.end() - count >= 2; count += 2) {
      const uint64_t start = position + count[0];
      if (start >= pixels) return;
      position = start + count[1];
      if (position > pixels) position = pixels;
      if (count[1]) visit(static_cast<uint32_t>(start), static_cast<uint32_t>(position));
    }
  }
}

}  // namespace sa1b::cpu
