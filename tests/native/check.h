// What the native tests need of a test framework: CHECK, and random numbers that every run repeats.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace sa1b::test {

// ThreadSanitizer makes a step some ten times slower: a part of the cases must do.
#if defined(__SANITIZE_THREAD__)
constexpr int kStep = 4;
#else
constexpr int kStep = 1;
#endif

inline uint64_t current_seed = 0;

// Numbers that depend on the seed alone, on every platform. A failed CHECK names the latest seed.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) { current_seed = seed; }

  // Uniform enough in [0, n).
  int64_t below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  int64_t between(int64_t first, int64_t last) { return first + below(last - first + 1); }
  bool one_in(int64_t n) { return below(n) == 0; }
  uint8_t byte() { return static_cast<uint8_t>(engine_()); }
  uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

}  // namespace sa1b::test

// Stops at the first failure: a fuzzer and a sanitizer report it like any crash.
#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      std::fprintf(stderr, "%s:%d: CHECK(%s) failed, seed %llu\n", __FILE__, __LINE__, #condition, \
                   static_cast<unsigned long long>(sa1b::test::current_seed));                     \
      std::abort();                                                                                \
    }                                                                                              \
  } while (0)
