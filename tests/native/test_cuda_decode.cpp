// The CUDA decoder, run on the CPU, against the CPU's own: byte for byte, for threads and blocks in
// many orders. SA1B_MAX_GRID is so low here that a block takes several tiles, and several masks.
#include "cuda.h"
#include "decode_case.h"

namespace sa1b::test {
namespace {

// Decodes to memory that begins `shift` elements after an aligned address and ends with the output.
// `on_cpu` asks the CPU for the same.
void check_decode(Random& random, const Batch& batch, int64_t num_images, Decode d, Decode on_cpu,
                  int64_t shift) {
  const int64_t row_bytes = d.item_size == 0 ? (d.out_w + 7) / 8 : d.out_w * d.item_size;
  const int64_t bytes = d.num_planes * d.out_h * row_bytes;
  const auto expected = exactly<uint8_t>(bytes);
  on_cpu.out = expected.get();
  CHECK(cpu::decode(batch, on_cpu, 1) == kOk);

  const int64_t before = shift * std::max(d.item_size, 1);
  std::vector<uint8_t> around(static_cast<size_t>(before), 0x5a);
  around.insert(around.end(), expected.get(), expected.get() + bytes);
  const auto memory = anything_but(around.data(), before + bytes);
  std::fill_n(memory.get(), before, uint8_t{0x5a});
  d.out = memory.get() + before;
  emulator::set_seed(random.bits());
  const Aligned workspace = random_bytes(random, cuda::decode_workspace(batch, num_images));
  CHECK(cuda::decode(batch, num_images, d, workspace.get(), kStream) == cudaSuccess);
  CHECK(same_bytes(memory.get(), around.data(), before + bytes));
}

void check_all(Random& random, const std::vector<Rle>& rles, const Decode& d, int64_t shift) {
  check_decode(random, BatchBlock(rles).batch(), kNotGrouped, d, d, shift);
}

void small_masks_with_all_options() {
  for (uint64_t seed = 0; seed < 200; seed += kStep) {
    Random random(seed);
    DecodeCase c(random);
    const auto planes = copied(c.planes), crops = copied(c.crops);
    if (c.d.planes) c.d.planes = planes.get();
    if (c.d.crops) c.d.crops = crops.get();
    check_all(random, c.rles, c.d, random.below(16));
  }
}

// Rows that are shorter than a store, and not; all that can lie before the first aligned store.
void every_width_and_alignment() {
  for (int64_t w = 1; w <= 70; w += kStep) {
    for (int64_t k = 0; k < 4; ++k) {
      Random random(static_cast<uint64_t>(4 * w + k));
      const int64_t h = random.between(1, 70);
      const auto rles = random_rles(random, 1, h, w);
      const int64_t shift = (w / 4 + 4 * k + w % 4) % 16;
      check_all(random, rles, plain(rles, h, w), shift);
      check_all(random, rles, plain(rles, h, w, 0), shift);
    }
  }
  for (const int item_size : {0, 1, 2, 4}) {
    for (int64_t shift = 0; shift < 16 / std::max(item_size, 1); ++shift) {
      Random random(static_cast<uint64_t>(shift));
      const auto rles = random_rles(random, 1, 3, 5);
      for (const int64_t h : {1, 3, 6}) {
        Decode d = plain(rles, h, 5, item_size);
        d.resize = h != 3;
        check_all(random, rles, d, shift);
      }
    }
  }
}

void wide_planes() {
  uint64_t seed = 0;
  for (const int64_t w : {4095, 4096, 4097, 8193}) {
    for (const int item_size : {0, 1, 2, 4}) {
      if (++seed % kStep != 0) continue;
      Random random(seed);
      const auto rles = random_rles(random, 1, 3, w);
      Decode d = plain(rles, 3 + random.below(2), w + random.below(2), item_size);
      check_all(random, rles, d, random.below(16));
      const int64_t crops[] = {1, 5, 2, w - 6};
      d.crops = crops;
      check_all(random, rles, d, random.below(16));
    }
  }
  Random random(0);
  // Boxes that lie in one tile, in two, and in some groups of columns only.
  std::vector<Rle> boxes;
  for (const uint32_t begin : {5u, 4000u, 4095u, 4096u, 4100u, 8000u}) {
    boxes.push_back({3, 8193, to_chars({3 * begin, 2, 1, 200, 3, 40, 2})});
  }
  check_all(random, boxes, plain(boxes, 3, 8193), 5);
  const auto rles = random_rles(random, 1, 2, 99);
  Decode d = plain(rles, 1, 8200, 2);
  d.resize = true;  // columns that begin before a tile and end in it
  check_all(random, rles, d, 3);
}

void tall_planes() {
  for (const int64_t w : {1, 3}) {
    Random random(static_cast<uint64_t>(w));
    const int64_t h = w == 1 ? 70000 : 2000;
    const auto n = static_cast<uint32_t>(h * w);
    const std::vector<Rle> rles = {{h, w, to_chars({n - 4470, 5, 4000, 1, 461, 3})}};
    check_all(random, rles, plain(rles, h, w), w);
  }
}

// Strings of several tiles, of counts with one character, with more, and of zero.
void long_strings() {
  for (int kind = 0; kind < 4; ++kind) {
    Random random(static_cast<uint64_t>(kind));
    Counts counts(kind % 2, 0);
    for (int64_t left = 150 * 60; left > 0; left -= counts.back()) {
      if (kind >= 2 && random.one_in(2)) counts.insert(counts.end(), 2, 0u);
      const int64_t most = kind == 1 ? 40 : 2;
      counts.push_back(static_cast<uint32_t>(std::min(left, random.between(1, most))));
    }
    std::vector<Rle> rles = {{150, 60, to_chars(counts)}, {150, 60, to_chars({9000})}};
    CHECK(kind == 1 || rles[0].chars.size() > 3 * 1024);
    // Values that are cut anywhere between two threads, and between two tiles.
    for (int64_t k = kind == 3 ? 5 : 0; k > 0; --k) {
      rles.push_back({150, 60, {}});
      for (int64_t i = 0; i < 1020 + k; ++i) append_value(0, &rles.back().chars);
      append_value(4500, &rles.back().chars, kMaxCharsPerCount);
      append_value(4500, &rles.back().chars);
    }
    check_all(random, rles, plain(rles, 150, 60), kind);
  }
}

void more_masks_than_blocks() {
  Random random(0);
  std::vector<Rle> rles = random_rles(random, 40, 9, 35);
  for (size_t i = 0; i < rles.size(); i += 3) rles[i] = random_rle(random, 7, 35);
  check_all(random, rles, plain(rles, 9, 36), 1);
}

void no_masks() {
  Random random(0);
  const int64_t planes[] = {-1, -1};
  Decode d = plain({}, 40, 33);
  check_all(random, {}, d, 1);
  d.planes = planes;
  d.num_planes = 2;
  check_all(random, {}, d, 1);
  d.out_h = 0;
  check_all(random, {}, d, 0);
}

void images() {
  for (uint64_t seed = 0; seed < 40; seed += kStep) {
    Random random(seed);
    const int64_t num_images = random.between(1, random.one_in(9) ? 300 : 5);
    const int64_t most = random.below(4);
    std::vector<std::vector<Rle>> all;
    std::vector<int64_t> shown;
    shown.reserve(1);
    int64_t num_masks = 0;
    for (int64_t k = 0; k < num_images; ++k) {
      const int64_t n = random.below(most + 1), h = random.below(20), w = random.below(20);
      all.push_back(random_rles(random, n, h, w));
      for (int64_t i = 0; i < most; ++i) shown.push_back(i < n ? num_masks + i : -1);
      num_masks += n;
    }
    const GroupedBlock block(all);
    Decode d = plain({}, 21, 20);
    d.num_planes = num_images * most;
    d.resize = random.one_in(3);
    Decode on_cpu = d;
    on_cpu.planes = shown.data();
    check_decode(random, block.batch(), num_images, d, on_cpu, random.below(16));
  }
}

// Positions up to 2**32 - 2, of which the planes show a part.
void largest_masks() {
  const int64_t sizes[][2] = {{65535, 65537}, {65537, 65535}, {kMaxPixels, 1}, {1, kMaxPixels}};
  for (const auto& [h, w] : sizes) {
    Random random(static_cast<uint64_t>(h));
    const auto n = static_cast<uint32_t>(h * w);
    const std::vector<Rle> rles = {{h, w, to_chars({0, n})},
                                   {h, w, to_chars({n / 2, 1, 5, n / 9})},
                                   {h, w, to_chars({n - 3, 1, 1, 1})}};
    const int64_t height = std::min<int64_t>(h, 40), width = std::min<int64_t>(w, 50);
    const int64_t middle_y = std::min((n / 2) % h, h - height);
    const int64_t middle_x = std::min(n / 2 / h, w - width);
    const int64_t crops[] = {h - height, 0,     height,     width,     middle_y, middle_x,
                             height,     width, h - height, w - width, height,   width};
    Decode d = plain(rles, height, width, 2);
    d.crops = crops;
    check_all(random, rles, d, 1);
    d.resize = true;
    d.out_h = 9;
    check_all(random, rles, d, 0);
    d.crops = nullptr;
    check_all(random, rles, d, 0);
  }
}

// Where the CPU's kernel refuses, planes are empty.
void bad_planes_and_windows() {
  Random random(0);
  const std::vector<Rle> rles(3, Rle{6, 7, to_chars({0, 42})});
  const BatchBlock block(rles);
  const int64_t least = INT64_MIN, most = INT64_MAX, high = int64_t{1} << 32;
  const int64_t first_and_last[] = {0, -1, 2};
  for (const int64_t plane : {int64_t{-2}, int64_t{3}, high, least, most}) {
    const int64_t planes[] = {0, plane, 2};
    Decode d = plain(rles, 6, 8), on_cpu = d;
    d.planes = planes;
    on_cpu.planes = first_and_last;
    check_decode(random, block.batch(), kNotGrouped, d, on_cpu, 1);
  }
  const int64_t windows[][4] = {
      {-1, 0, 1, 1},        {0, -1, 1, 1},   {0, 0, -1, 1},   {0, 0, 1, -1},      {7, 0, 0, 1},
      {0, 8, 1, 0},         {1, 0, 6, 1},    {0, 1, 1, 7},    {most, 0, most, 1}, {0, 1, 1, most},
      {least, 0, least, 1}, {high, 0, 1, 1}, {0, 0, 1, high}, {0, 0, 6, 7}};
  for (const auto& window : windows) {
    int64_t crops[] = {1, 1, 5, 6, 0, 0, 0, 0, 2, 2, 3, 3};
    Decode on_cpu = plain(rles, 5, 6);
    on_cpu.planes = first_and_last;
    on_cpu.resize = window[2] != 6 && random.one_in(2);  // 6 x 7 would do if resized
    const auto empty = copied(std::vector<int64_t>(crops, crops + 12));
    on_cpu.crops = empty.get();
    std::copy_n(window, 4, crops + 4);
    Decode d = on_cpu;
    d.planes = nullptr;
    d.crops = crops;
    check_decode(random, block.batch(), kNotGrouped, d, on_cpu, 1);
  }
}

void what_is_refused() {
  Random random(0);
  const BatchBlock block(random_rles(random, 2, 6, 7));
  const Batch& batch = block.batch();
  const Aligned workspace = random_bytes(random, cuda::decode_workspace(batch, kNotGrouped));
  const auto status = [&](const Batch& of, int64_t num_images, const Decode& d, int device = 0) {
    return cuda::decode(of, num_images, d, workspace.get(), {device, nullptr});
  };
  Decode d = plain({}, 6, 7);
  d.num_planes = 3;
  CHECK(status(batch, kNotGrouped, d) == kBadPlane);
  d.num_planes = 2;
  CHECK(status(batch, kNotGrouped, d, 7) == cudaErrorInvalidDevice);
  CHECK(status({batch.data, 55, 2}, kNotGrouped, d) == kBadHeader);
  CHECK(status({batch.data, batch.num_bytes, -1}, kNotGrouped, d) == kBadHeader);
  CHECK(status(batch, 0, d) == kBadHeader);
  CHECK(status(batch, 1000, d) == kBadHeader);
  d.out_w = int64_t{1} << 32;
  CHECK(status(batch, kNotGrouped, d) == kBadWindow);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::small_masks_with_all_options();
  sa1b::test::every_width_and_alignment();
  sa1b::test::wide_planes();
  sa1b::test::tall_planes();
  sa1b::test::long_strings();
  sa1b::test::more_masks_than_blocks();
  sa1b::test::no_masks();
  sa1b::test::images();
  sa1b::test::largest_masks();
  sa1b::test::bad_planes_and_windows();
  sa1b::test::what_is_refused();
}
