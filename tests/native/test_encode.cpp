// encode against the definition, pixel by pixel: every type and layout on small masks, then the
// sizes at which the work splits. All memory is of exact size.
#include <array>
#include <iterator>

#include "cpu/bits.h"
#include "cpu/char_stream.h"
#include "cpu/foreground.h"
#include "dense.h"
#include "reference.h"

namespace sa1b::test {
namespace {

// The canonical counts: no run of zero length but perhaps the first.
Counts counts_of(int64_t h, int64_t w, const std::function<bool(int64_t, int64_t)>& foreground) {
  Counts counts = {0};
  bool current = false;
  for (int64_t x = 0; x < w; ++x) {
    for (int64_t y = 0; y < h; ++y) {
      if (foreground(y, x) != current) {
        counts.push_back(0);
        current = !current;
      }
      ++counts.back();
    }
  }
  return counts;
}

std::vector<Rle> rles_of(const Dense& dense, const IsForeground& is_foreground) {
  std::vector<Rle> rles;
  for (int64_t mask = 0; mask < dense.num_masks; ++mask) {
    const Counts counts = counts_of(
        dense.h, dense.w, [&](int64_t y, int64_t x) { return is_foreground(mask, y, x); });
    rles.push_back({dense.h, dense.w, to_chars(counts)});
  }
  return rles;
}

void check_encode(const Dense& dense, int num_threads, const std::vector<Rle>& rles) {
  cpu::Encoded encoded;
  CHECK(cpu::encode(dense, num_threads, &encoded) == kOk);
  const int64_t num_bytes = encoded.num_bytes();
  const auto block = exactly<uint8_t>(num_bytes);
  encoded.write(block.get());
  const BatchBlock expected(rles);
  CHECK(num_bytes == expected.batch().num_bytes);
  CHECK(memcmp(block.get(), expected.batch().data, static_cast<size_t>(num_bytes)) == 0);
}

void small_masks_of_every_kind() {
  const int64_t edges[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}};
  const int item_sizes[] = {1, 2, 4, 8};
  for (uint64_t seed = 0; seed < 4000; seed += kStep) {
    Random random(seed);
    const auto side = [&] {
      return random.one_in(3) ? edges[random.below(std::size(edges))] : random.below(90);
    };
    const int64_t shape[] = {random.below(4), side(), side()};
    const int item_size = item_sizes[random.below(4)];
    uint64_t value_bits = ~0ull >> (64 - 8 * item_size);
    if (random.one_in(2)) value_bits >>= 1;
    if (random.one_in(8)) value_bits &= random.bits() | 1;
    int64_t gaps[3] = {};
    for (int64_t& gap : gaps) gap = random.one_in(3) ? random.below(4) : 0;
    const int backwards = random.one_in(3) ? static_cast<int>(random.below(8)) : 0;
    std::vector<Pixels> masks;
    for (int64_t i = 0; i < shape[0]; ++i) {
      masks.emplace_back(shape[1], random_counts(random, shape[1] * shape[2]));
    }
    const IsForeground is_foreground = [&](int64_t mask, int64_t y, int64_t x) {
      return masks[mask].at(y, x);
    };
    const Elements e = lay_out(random, shape, orders[random.below(std::size(orders))], gaps,
                               backwards, item_size, value_bits, random.below(9), is_foreground);
    check_encode(e.dense, 1 + static_cast<int>(seed % 3), rles_of(e.dense, is_foreground));
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
    const IsForeground is_foreground = [&](int64_t mask, int64_t y, int64_t x) {
      return memory[mask * dense.mask_stride + y * dense.row_stride + x * dense.column_stride] != 0;
    };
    check_encode(dense, 2, rles_of(dense, is_foreground));
  }
}

// Sizes at which there are strips, for threads or because the bitmap would be too large; masks with
// no boundary, with few and with many in a strip.
void split_masks() {
  const int64_t shapes[][3] = {{1, 900, 1300}, {3, 700, 900},   {1, 40, 30000},
                               {2, 9001, 130}, {1, 1100000, 2}, {1, 2, 1100000}};
  const int row_major[] = {0, 1, 2}, column_major[] = {0, 2, 1};
  uint64_t seed = 0;
  for (const auto& shape : shapes) {
    for (const int64_t num_counts : {0, 1, 2, 3, 5, 40, 100000}) {
      if (kStep > 1 && num_counts > 40) continue;
      Random random(++seed);
      const int64_t pixels = shape[1] * shape[2];
      std::vector<Pixels> masks;
      for (int64_t i = 0; i < shape[0]; ++i) {
        Counts counts;
        for (int64_t k = 0; k < num_counts; ++k) {
          counts.push_back(static_cast<uint32_t>(random.below(2 * pixels / num_counts)));
        }
        masks.emplace_back(shape[1], counts);
      }
      const IsForeground is_foreground = [&](int64_t mask, int64_t y, int64_t x) {
        return masks[mask].at(y, x);
      };
      const bool rows = random.one_in(2);
      const Elements e =
          lay_out(random, {shape[0], shape[1], shape[2]}, rows ? row_major : column_major,
                  {0, 0, 0}, 0, 1, 0xff, 0, is_foreground);
      const std::vector<Rle> rles = rles_of(e.dense, is_foreground);
      for (const int num_threads : {1, 2, 7}) check_encode(e.dense, num_threads, rles);
    }
  }
}

void more_masks_than_items() {
  Random random(1);
  const int64_t n = 200001;
  const auto memory = exactly<uint8_t>(n * 6);
  for (int64_t i = 0; i < n * 6; ++i) memory[i] = random.one_in(2);
  const Dense dense = {memory.get(), n, 2, 3, 6, 3, 1, 1, 1};
  check_encode(dense, 3, rles_of(dense, [&](int64_t mask, int64_t y, int64_t x) {
                 return memory[6 * mask + 3 * y + x] != 0;
               }));
}

void shapes_that_no_mask_has() {
  const int64_t most = (int64_t{1} << 32) - 1;
  const int64_t shapes[][3] = {
      {-1, 2, 2},       {1, -1, 2},       {1, 2, -1},   {1, 65536, 65536},
      {1, most + 1, 0}, {1, 0, most + 1}, {0, most, 2}, {1, int64_t{1} << 62, 4}};
  for (const auto& shape : shapes) {
    cpu::Encoded encoded;
    const Dense dense = {nullptr, shape[0], shape[1], shape[2], 0, 0, 0, 1, 0xff};
    CHECK(cpu::encode(dense, 1, &encoded) == kBadShape);
  }
  for (const auto& shape : {std::array<int64_t, 3>{3, 0, most}, {2, most, 0}, {0, 7, 9}}) {
    const Dense dense = {nullptr, shape[0], shape[1], shape[2], 1, 2, 3, 8, 0xff};
    cpu::Encoded encoded;
    CHECK(cpu::encode(dense, 2, &encoded) == kOk);
    CHECK(encoded.num_bytes() == 8 + 25 * shape[0]);  // "0" for each
    const auto block = exactly<uint8_t>(encoded.num_bytes());
    encoded.write(block.get());
    const Batch batch = {block.get(), encoded.num_bytes(), shape[0]};
    CHECK(cpu::validate(batch) == kOk);
  }
}

void transposes() {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    uint64_t before[64], after[64];
    for (uint64_t& row : before) row = random.bits() & (seed % 2 ? random.bits() : ~0ull);
    memcpy(after, before, sizeof(after));
    cpu::transpose_64x64(after);
    for (int y = 0; y < 64; ++y) {
      for (int x = 0; x < 64; ++x) CHECK((after[x] >> y & 1) == (before[y] >> x & 1));
    }
  }
}

void streams_give_back_what_was_written() {
  for (uint64_t seed = 0; seed < 60; seed += kStep) {
    Random random(seed);
    cpu::CharStream stream;
    Chars written;
    for (int64_t step = random.below(2000); step > 0; --step) {
      const auto n = static_cast<size_t>(random.below(cpu::CharStream::kMaxRoom + 1));
      stream.make_room(n);
      CHECK(stream.end() - stream.at() >= static_cast<int64_t>(n));
      uint8_t* at = stream.at();
      for (size_t i = 0; i < n; ++i) written.push_back(*at++ = static_cast<uint8_t>(i + n));
      stream.set_at(at);
      CHECK(stream.written() == written.size());
    }
    CHECK(!stream.failed());
    stream.finish();
    for (size_t at = 0; at < written.size() && !random.one_in(500);) {
      const auto left = static_cast<int64_t>(written.size() - at);
      const auto n = static_cast<size_t>(std::min(left, random.below(200000)));
      const auto chars = exactly<uint8_t>(static_cast<int64_t>(n));
      stream.read(chars.get(), n);
      CHECK(std::equal(chars.get(), chars.get() + n, written.begin() + at));
      at += n;
    }
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::small_masks_of_every_kind();
  sa1b::test::repeated_elements();
  sa1b::test::split_masks();
  sa1b::test::more_masks_than_items();
  sa1b::test::shapes_that_no_mask_has();
  sa1b::test::transposes();
  sa1b::test::streams_give_back_what_was_written();
}
