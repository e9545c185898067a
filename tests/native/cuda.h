// What the tests of the CUDA kernels, run on the CPU, have in common. All memory is of exact size,
// and what kernels write to is never what they should write there.
#pragma once

#include <new>

#include "cuda/launch_kernel.h"
#include "reference.h"

namespace sa1b::test {

constexpr cuda::Stream kStream = {0, nullptr};

struct FreeAligned {
  void operator()(uint8_t* memory) const { ::operator delete[](memory, std::align_val_t{256}); }
};
using Aligned = std::unique_ptr<uint8_t[], FreeAligned>;

inline Aligned random_bytes(Random& random, int64_t n) {
  Aligned memory(
      static_cast<uint8_t*>(::operator new[](static_cast<size_t>(n), std::align_val_t{256})));
  uint64_t bits = random.bits();
  for (int64_t i = 0; i < n; ++i) {
    memory[i] = static_cast<uint8_t>(bits >> 56);
    bits = bits * 6364136223846793005u + 1442695040888963407u;
  }
  return memory;
}

// Memory that differs from what is expected there in every bit.
template <class T>
std::unique_ptr<T[]> anything_but(const T* expected, int64_t n) {
  auto memory = exactly<T>(n);
  const auto* const from = reinterpret_cast<const uint8_t*>(expected);
  auto* const to = reinterpret_cast<uint8_t*>(memory.get());
  for (size_t i = 0; i < static_cast<size_t>(n) * sizeof(T); ++i) {
    to[i] = static_cast<uint8_t>(~from[i]);
  }
  return memory;
}

template <class T>
bool same_bytes(const T* a, const T* b, int64_t n) {
  return n == 0 || memcmp(a, b, static_cast<size_t>(n) * sizeof(T)) == 0;
}

template <class T>
std::unique_ptr<T[]> copied(const std::vector<T>& values) {
  auto memory = exactly<T>(static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), memory.get());
  return memory;
}

inline std::vector<Rle> random_rles(Random& random, int64_t n, int64_t h, int64_t w) {
  std::vector<Rle> rles(static_cast<size_t>(n));
  for (Rle& rle : rles) rle = random_rle(random, h, w);
  return rles;
}

// A batch grouped by image, in memory of exactly its size.
class GroupedBlock {
 public:
  explicit GroupedBlock(const std::vector<std::vector<Rle>>& images) {
    const std::vector<uint8_t> block = make_block(images, true);
    data_ = copied(block);
    batch_ = {data_.get(), static_cast<int64_t>(block.size()), 0};
    for (const auto& image : images) batch_.num_masks += static_cast<int64_t>(image.size());
  }

  const Batch& batch() const { return batch_; }
  void set_word(int64_t i, int64_t value) { memcpy(data_.get() + 8 * i, &value, 8); }

 private:
  std::unique_ptr<uint8_t[]> data_;
  Batch batch_;
};

}  // namespace sa1b::test
