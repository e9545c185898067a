// What every fuzzer needs: the bytes of an input, one after another, and strings made of them.
#pragma once

#include "reference.h"

namespace sa1b::test {

// The bytes of an input, then zeros.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  int64_t byte() { return at_ == end_ ? 0 : *at_++; }
  bool flag() { return byte() & 1; }
  int64_t below(int64_t n) {
    const int64_t high = byte();
    return (high << 8 | byte()) % n;
  }
  uint64_t word() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(byte());
    return value;
  }
  bool empty() const { return at_ == end_; }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

// Counts of a mask of that size, else any bytes.
inline Chars fuzz_chars(Input& input, int64_t pixels) {
  if (input.flag()) {
    Chars chars;
    for (int64_t n = input.byte(); n > 0; --n) chars.push_back(static_cast<uint8_t>(input.byte()));
    return chars;
  }
  Counts counts;
  while (pixels > 0) {
    const int64_t count = input.byte() << input.byte() % 16;
    counts.push_back(static_cast<uint32_t>(input.empty() ? pixels : std::min(count, pixels)));
    pixels -= counts.back();
  }
  return to_chars(counts);
}

// What a fuzzer does with one input.
void run(Input& input);

}  // namespace sa1b::test
