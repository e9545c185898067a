// Which of up to 64 elements in a line are foreground, as the bits of one word.
//
// SSE2 compares 16 bytes at a time and packs the answers; it is part of every x86-64, and with it
// one thread reads as fast as memory delivers. Elsewhere: plain arithmetic. What memory delivers
// grows by a quarter if it is asked 8 KiB ahead, since the processor's own prefetching ends with
// each page of 4 KiB.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#define SA1B_COMPARES_16_BYTES 1
#include <emmintrin.h>
#else
#define SA1B_COMPARES_16_BYTES 0
#endif

namespace sa1b::cpu {

template <class T>
inline bool is_foreground(const uint8_t* at, T value_bits) {
  T element;
  memcpy(&element, at, sizeof(T));
  return (element & value_bits) != 0;
}

// `n` elements that lie `step` bytes apart.
template <class T>
inline uint64_t foreground(const uint8_t* at, int64_t step, uint32_t n, T value_bits) {
  uint64_t bits = 0;
  for (uint32_t i = 0; i < n; ++i) {
    bits |= uint64_t{is_foreground<T>(at + i * step, value_bits)} << i;
  }
  return bits;
}

#if SA1B_COMPARES_16_BYTES

// 16 elements from `at` on: all ones in the lanes of background, as 16 bytes.
template <class T>
inline __m128i background_16(const uint8_t* at, __m128i value_bits) {
  const auto load = [&](int i) {
    return _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at) + i), value_bits);
  };
  const __m128i zero = _mm_setzero_si128();
  if constexpr (sizeof(T) == 1) {
    return _mm_cmpeq_epi8(load(0), zero);
  } else if constexpr (sizeof(T) == 2) {
    return _mm_packs_epi16(_mm_cmpeq_epi16(load(0), zero), _mm_cmpeq_epi16(load(1), zero));
  } else {
    const auto four = [&](int i) {
      if constexpr (sizeof(T) == 4) return _mm_cmpeq_epi32(load(i), zero);
      // The low halves of four elements, and their high halves.
      const __m128 a = _mm_castsi128_ps(load(2 * i)), b = _mm_castsi128_ps(load(2 * i + 1));
      const __m128 low = _mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0));
      const __m128 high = _mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1));
      return _mm_cmpeq_epi32(_mm_castps_si128(_mm_or_ps(low, high)), zero);
    };
    return _mm_packs_epi16(_mm_packs_epi32(four(0), four(1)), _mm_packs_epi32(four(2), four(3)));
  }
}

template <class T>
inline __m128i repeat(T value) {
  if constexpr (sizeof(T) == 1) return _mm_set1_epi8(static_cast<char>(value));
  if constexpr (sizeof(T) == 2) return _mm_set1_epi16(static_cast<int16_t>(value));
  if constexpr (sizeof(T) == 4) return _mm_set1_epi32(static_cast<int32_t>(value));
  if constexpr (sizeof(T) == 8) return _mm_set1_epi64x(static_cast<int64_t>(value));
}

// 64 elements without gaps.
template <class T>
inline uint64_t foreground_64(const uint8_t* at, T value_bits) {
  const __m128i repeated = repeat(value_bits);
  uint64_t background = 0;
  for (int i = 0; i < 4; ++i) {
    const __m128i lanes = background_16<T>(at + 16 * i * sizeof(T), repeated);
    background |= static_cast<uint64_t>(_mm_movemask_epi8(lanes)) << (16 * i);
  }
  return ~background;
}

#else

template <class T>
inline uint64_t foreground_64(const uint8_t* at, T value_bits) {
  return foreground<T>(at, sizeof(T), 64, value_bits);
}

template <>
inline uint64_t foreground_64<uint8_t>(const uint8_t* at, uint8_t value_bits) {
  constexpr uint64_t kOnes = 0x0101010101010101ull, kLow = 0x7f * kOnes;
  uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) {
    uint64_t bytes;
    memcpy(&bytes, at + 8 * i, 8);
    bytes &= value_bits * kOnes;
    // The highest bit of each byte that is not zero, then those bits side by side.
    const uint64_t flags = (((bytes & kLow) + kLow) | bytes) >> 7 & kOnes;
    bits |= flags * 0x0102040810204080ull >> 56 << (8 * i);
  }
  return bits;
}

#endif

constexpr int64_t kPrefetchBytes = 8 << 10;

// Reads lines of elements in words of 64: rows or columns, with or without gaps.
template <class T>
class LineReader {
 public:
  // Elements lie `step` bytes apart; what comes `ahead` bytes after a word will be read soon.
  LineReader(int64_t step, int64_t ahead, T value_bits)
      : step_(step), ahead_(static_cast<uintptr_t>(ahead)), value_bits_(value_bits) {}

  bool one(const uint8_t* at) const { return is_foreground<T>(at, value_bits_); }

  template <bool kContiguous>
  uint64_t word(const uint8_t* at) const {
    if (!kContiguous) return foreground<T>(at, step_, 64, value_bits_);
#if SA1B_COMPARES_16_BYTES
    // Any address will do, valid or not.
    const uintptr_t later = reinterpret_cast<uintptr_t>(at) + ahead_;
    for (size_t i = 0; i < sizeof(T); ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(later + 64 * i), _MM_HINT_T0);
    }
#endif
    return foreground_64<T>(at, value_bits_);
  }

  // The `n` < 64 elements at the end of a line, of which `before` lie before `at`.
  template <bool kContiguous>
  uint64_t last_word(const uint8_t* at, uint32_t n, int64_t before) const {
    if (!kContiguous) return foreground<T>(at, step_, n, value_bits_);
    // A full word that ends where the line does.
    if (before + n >= 64) {
      return foreground_64<T>(at - (64 - n) * sizeof(T), value_bits_) >> (64 - n);
    }
    uint8_t padded[64 * sizeof(T)] = {};
    memcpy(padded, at, n * sizeof(T));
    return foreground_64<T>(padded, value_bits_);
  }

 private:
  int64_t step_;
  uintptr_t ahead_;
  T value_bits_;
};

}  // namespace sa1b::cpu
