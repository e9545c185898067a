// The CUDA encoder, run on the CPU, against the CPU's own: byte for byte, for threads and blocks in
// many orders. What it writes to is full of random bytes before, and all memory is of exact size.
// SA1B_MAX_GRID is so low here that kernels have to loop, and strips to have several tiles.
#include <iterator>

#include "cuda.h"
#include "dense.h"

namespace sa1b::test {
namespace {

void check_encode(Random& random, const Dense& dense) {
  cpu::Encoded encoded;
  CHECK(cpu::encode(dense, 1, &encoded) == kOk);
  const int64_t num_bytes = encoded.num_bytes();
  const auto expected = exactly<uint8_t>(num_bytes);
  encoded.write(expected.get());

  emulator::set_seed(random.bits());
  const Aligned workspace = random_bytes(random, cuda::encode_workspace(dense));
  const auto num_chars = exactly<int64_t>(1);
  num_chars[0] = -1;
  CHECK(cuda::encode_measure(dense, workspace.get(), num_chars.get(), kStream) == cudaSuccess);
  CHECK(num_chars[0] == num_bytes - 8 * (3 * dense.num_masks + 1));
  const Aligned block = random_bytes(random, num_bytes);
  CHECK(cuda::encode_write(dense, workspace.get(), block.get(), kStream) == cudaSuccess);
  CHECK(memcmp(block.get(), expected.get(), static_cast<size_t>(num_bytes)) == 0);
}

constexpr int kOrders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}};

void small_masks_of_every_kind() {
  const int64_t edges[] = {0, 1, 2, 3, 4, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  for (uint64_t seed = 0; seed < 200; seed += kStep) {
    Random random(seed);
    const auto side = [&] {
      return random.one_in(2) ? edges[random.below(std::size(edges))] : random.below(150);
    };
    const int64_t shape[] = {random.below(4), side(), side()};
    const int item_size = 1 << random.below(4);
    uint64_t value_bits = ~0ull >> (64 - 8 * item_size);
    if (random.one_in(2)) value_bits >>= 1;
    if (random.one_in(8)) value_bits &= random.bits() | 1;
    int64_t gaps[3] = {};
    for (int64_t& gap : gaps) gap = random.one_in(3) ? random.below(4) : 0;
    if (random.one_in(2)) gaps[2] = 0;
    const int backwards = random.one_in(3) ? static_cast<int>(random.below(8)) : 0;
    std::vector<Pixels> masks;
    for (int64_t i = 0; i < shape[0]; ++i) {
      masks.emplace_back(shape[1], random_counts(random, shape[1] * shape[2]));
    }
    const IsForeground is_foreground = [&](int64_t mask, int64_t y, int64_t x) {
      return masks[mask].at(y, x);
    };
    const int order = random.one_in(3) ? 0 : static_cast<int>(random.below(std::size(kOrders)));
    const Elements e = lay_out(random, shape, kOrders[order], gaps, backwards, item_size,
                               value_bits, item_size * random.below(9), is_foreground);
    check_encode(random, e.dense);
  }
}

// Noise has a boundary at every other pixel, the others few or none: tiles and strips without any,
// with one, two, and more. Every shape by rows and by columns.
void sizes_at_which_work_splits() {
  const int64_t shapes[][3] = {{1, 33, 255},  {2, 3, 256},   {1, 2, 257},  {9, 35, 100},
                               {7, 2, 2400},  {1, 500, 600}, {15, 2, 3},   {1, 1, 70000},
                               {1, 70000, 1}, {1, 5000, 3},  {1, 1030, 70}};
  enum Content { kEmpty, kFull, kNoise, kOnePixel, kFewPixels, kStripes, kNumContents };
  uint64_t seed = 0;
  for (const auto& shape : shapes) {
    for (int content = static_cast<int>(++seed % kStep); content < kNumContents; content += kStep) {
      Random random(seed * kNumContents + static_cast<uint64_t>(content));
      const int64_t pixels = shape[1] * shape[2];
      std::vector<uint8_t> foreground(static_cast<size_t>(shape[0] * pixels));
      for (int64_t mask = 0; mask < shape[0]; ++mask) {
        uint8_t* const of_mask = &foreground[mask * pixels];
        for (int64_t i = 0; i < pixels; ++i) {
          if (content == kFull) of_mask[i] = 1;
          if (content == kNoise) of_mask[i] = random.one_in(2);
          if (content == kStripes) of_mask[i] = i / (pixels / 5 + 1) % 2 == 0;
        }
        if (content == kOnePixel) of_mask[random.one_in(2) ? pixels - 1 : 0] = 1;
        for (int64_t i = 0; content == kFewPixels && i < 4; ++i) of_mask[random.below(pixels)] = 1;
      }
      for (const int order : {0, 1}) {
        const Elements e =
            lay_out(random, {shape[0], shape[1], shape[2]}, kOrders[order], {0, 0, 0}, 0, 1, 0xff,
                    random.below(16), [&](int64_t mask, int64_t y, int64_t x) {
                      return foreground[mask * pixels + y * shape[2] + x] != 0;
                    });
        check_encode(random, e.dense);
      }
    }
  }
}

// An axis of stride zero shows the same again and again.
void repeated_elements() {
  for (int axes = 0; axes < 8; ++axes) {
    Random random(static_cast<uint64_t>(axes));
    const auto memory = exactly<uint8_t>(2 * 70 * 90);
    for (int64_t i = 0; i < 2 * 70 * 90; ++i) memory[i] = random.one_in(3);
    Dense dense = {memory.get(), 2, 70, 90, 70 * 90, 90, 1, 1, 0xff};
    if (axes & 1) dense.mask_stride = 0;
    if (axes & 2) dense.row_stride = 0;
    if (axes & 4) dense.column_stride = 0;
    check_encode(random, dense);
  }
}

void masks_without_pixels() {
  Random random(0);
  const int64_t most = (int64_t{1} << 32) - 1;
  for (const auto& [n, h, w] : std::initializer_list<std::array<int64_t, 3>>{
           {0, 0, 0}, {0, 7, 9}, {0, 1, 300}, {3, 0, 5}, {2, 5, 0}, {20, 0, most}, {1, most, 0}}) {
    check_encode(random, {nullptr, n, h, w, 1, 2, 3, 8, 0xff});
  }
}

void a_device_that_is_not_there() {
  const uint8_t pixel = 1;
  const Dense dense = {&pixel, 1, 1, 1, 1, 1, 1, 1, 0xff};
  Random random(0);
  const Aligned workspace = random_bytes(random, cuda::encode_workspace(dense));
  int64_t num_chars = -1;
  uint8_t block[64] = {};
  CHECK(cuda::encode_measure(dense, workspace.get(), &num_chars, {7, nullptr}) ==
        cudaErrorInvalidDevice);
  CHECK(cuda::encode_write(dense, workspace.get(), block, {7, nullptr}) == cudaErrorInvalidDevice);
  CHECK(num_chars == -1 && block[0] == 0);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::small_masks_of_every_kind();
  sa1b::test::sizes_at_which_work_splits();
  sa1b::test::repeated_elements();
  sa1b::test::masks_without_pixels();
  sa1b::test::a_device_that_is_not_there();
}
