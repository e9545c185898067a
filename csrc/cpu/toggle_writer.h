// What all operators that make masks of masks share: how they write and how many threads they use.
#pragma once

#include <algorithm>

#include "count_blocks.h"
#include "encoded.h"

namespace sa1b::cpu {

// Takes the positions from where on background and foreground change places, in order, any number
// of them at one position, and writes the canonical string of a mask: two toggles at one position
// are none.
//
// Positions are gathered and written in blocks: four values of one character each, as most are, are
// made at once, each from four positions.
class ToggleWriter {
 public:
  explicit ToggleWriter(CharStream& stream) : stream_(stream), counts_(stream.at()) {}
  ToggleWriter(const ToggleWriter&) = delete;
  ToggleWriter& operator=(const ToggleWriter&) = delete;

  SA1B_ALWAYS_INLINE void toggle(uint64_t position) {
    const auto at = static_cast<uint32_t>(position);
    if (at_ != first() && at_[-1] == at) {
      --at_;
      return;
    }
    if (at_ == positions_ + kBefore + kRoom) write_all_but_one();
    *at_++ = at;
  }

  SA1B_ALWAYS_INLINE void add_run(uint64_t start, uint64_t end) {
    toggle(start);
    toggle(end);
  }

  // To be called last. What toggles at the end of the mask changes nothing.
  void finish(uint64_t pixels) {
    const auto end = static_cast<uint32_t>(pixels);
    if (at_ != first() && at_[-1] == end) --at_;
    if (at_ == positions_ + kBefore + kRoom) write_all_but_one();
    *at_++ = end;
    write_up_to(at_);
    stream_.set_at(counts_.at());
  }

 private:
  static constexpr int kBefore = 3;  // positions that a value depends on beside its own
  static constexpr int kRoom = 256;
  static_assert(kRoom * kMaxCharsPerCount <= CharStream::kMaxRoom, "a block needs room");

  uint32_t* first() { return positions_ + kBefore; }

  // The last position stays: it may have to go again.
  void write_all_but_one() {
    write_up_to(at_ - 1);
    std::copy(at_ - 1 - kBefore, at_, positions_);
    at_ = first() + 1;
  }

  void write_up_to(const uint32_t* end) {
    stream_.set_at(counts_.at());
    stream_.make_room(CharStream::kMaxRoom);
    counts_.go_on_at(stream_.at());
    const uint32_t* at = first();
    // The first counts of a mask follow rules of their own.
    for (; started_ < kBefore && at < end; ++started_, ++at) counts_.add(at[0] - at[-1]);
    while (at < end) {
#if SA1B_GROUPS_OF_16
      uint8_t* to = counts_.at();
      const uint32_t* const group = at;
      for (; end - at >= 4 && write_four(at, to); at += 4) to += 4;
      if (at != group) {
        counts_.go_on_at(to);
        counts_.go_on_after(at[-2] - at[-3], at[-1] - at[-2]);
      }
#endif
      const uint32_t* const four = at + std::min<ptrdiff_t>(4, end - at);
      for (; at < four; ++at) counts_.add(at[0] - at[-1]);
    }
  }

#if SA1B_GROUPS_OF_16
  // False if one of the four takes more than a character.
  static bool write_four(const uint32_t* at, uint8_t* to) {
    const auto load = [&](int back) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at - back));
    };
    const __m128i counts = _mm_sub_epi32(load(0), load(1));
    const __m128i values = _mm_sub_epi32(counts, _mm_sub_epi32(load(2), load(3)));
    const __m128i from_lowest = _mm_add_epi32(values, _mm_set1_epi32(kSign));
    const __m128i others = _mm_andnot_si128(_mm_set1_epi32(kPayload), from_lowest);
    if (_mm_movemask_epi8(_mm_cmpeq_epi32(others, _mm_setzero_si128())) != 0xffff) return false;
    const __m128i bits = _mm_and_si128(values, _mm_set1_epi32(kPayload));
    const __m128i chars = _mm_add_epi32(bits, _mm_set1_epi32(kCharBase));
    const __m128i words = _mm_packs_epi32(chars, chars);
    const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(to, &bytes, 4);
    return true;
  }
#endif

  CharStream& stream_;
  CountWriter counts_;
  int started_ = 0;  // counts that were written, up to kBefore
  uint32_t* at_ = first();
  uint32_t positions_[kBefore + kRoom] = {};  // those written last, then those to be written
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
