// Writes a long sequence of bytes past the cache.
//
// An output of hundreds of megabytes does not fit the cache, and an ordinary store first reads the
// line that it is about to overwrite. Non-temporal stores of whole 64-byte lines do not: about four
// times the speed of memcpy into memory, and the speed of libc's memset. Pieces of a line are
// gathered here until the line is whole.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#define SA1B_HAS_STREAMING_STORES 1
#include <emmintrin.h>
#else
#define SA1B_HAS_STREAMING_STORES 0
#endif

namespace sa1b::cpu {

#if SA1B_HAS_STREAMING_STORES

class StreamWriter {
 public:
  explicit StreamWriter(uint8_t* at) : at_(at), line_begin_(offset()) {}
  ~StreamWriter() { finish(); }

  // Goes on at `to`, which may be where the last write ended.
  void seek(uint8_t* to) {
    if (to == at_) return;
    flush_partial_line();
    at_ = to;
    line_begin_ = offset();
  }

  void copy(const uint8_t* from, size_t n) {
    if (offset() != 0) {
      const size_t head = std::min(n, kLine - offset());
      append(from, head);
      from += head;
      n -= head;
    }
    for (; n >= kLine; from += kLine, n -= kLine, at_ += kLine) stream_line(at_, from);
    append(from, n);
  }

  void zero(size_t n) {
    static constexpr uint8_t kZeros[kLine] = {};
    if (offset() != 0) {
      const size_t head = std::min(n, kLine - offset());
      append(kZeros, head);
      n -= head;
    }
    const __m128i nothing = _mm_setzero_si128();
    for (; n >= kLine; n -= kLine, at_ += kLine) {
      auto* to = reinterpret_cast<__m128i*>(at_);
      for (int i = 0; i < 4; ++i) _mm_stream_si128(to + i, nothing);
    }
    append(kZeros, n);
  }

  void finish() {
    flush_partial_line();
    line_begin_ = offset();
    _mm_sfence();
  }

 private:
  static constexpr size_t kLine = 64;

  size_t offset() const { return reinterpret_cast<uintptr_t>(at_) % kLine; }

  static void stream_line(uint8_t* to, const uint8_t* from) {
    for (int i = 0; i < 4; ++i) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i,
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + i));
    }
  }

  // Adds up to the end of the current line.
  void append(const uint8_t* from, size_t n) {
    memcpy(line_ + offset(), from, n);
    at_ += n;
    if (n == 0 || offset() != 0) return;
    if (line_begin_ == 0) {
      stream_line(at_ - kLine, line_);
    } else {
      memcpy(at_ - kLine + line_begin_, line_ + line_begin_, kLine - line_begin_);
      line_begin_ = 0;
    }
  }

  void flush_partial_line() {
    const size_t end = offset();
    if (end > line_begin_) {
      memcpy(at_ - end + line_begin_, line_ + line_begin_, end - line_begin_);
    }
  }

  uint8_t* at_;
  size_t line_begin_;  // where in line_ the gathered bytes begin; they end at offset()
  alignas(kLine) uint8_t line_[kLine];
};

#else  // Elsewhere memset and memcpy choose well by themselves (on aarch64: DC ZVA).

class StreamWriter {
 public:
  explicit StreamWriter(uint8_t* at) : at_(at) {}
  void seek(uint8_t* to) { at_ = to; }
  void copy(const uint8_t* from, size_t n) {
    memcpy(at_, from, n);
    at_ += n;
  }
  void zero(size_t n) {
    memset(at_, 0, n);
    at_ += n;
  }
  void finish() {}

 private:
  uint8_t* at_;
};

#endif

}  // namespace sa1b::cpu
