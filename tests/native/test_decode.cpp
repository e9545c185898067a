// decode against the definition, pixel by pixel: every option on small masks, then the sizes at
// which the work splits: streaming stores, tiles of rows and columns, threads, fresh pages.
#include "cpu/zero_pages.h"
#include "decode_case.h"

namespace sa1b::test {
namespace {

constexpr uint8_t kNoise = 0xa5;

// Runs decode into memory that begins `shift` elements after an aligned address and ends with the
// output, and compares everything.
void check_decode(const std::vector<Rle>& rles, Decode d, int num_threads, int64_t shift) {
  const BatchBlock block(rles);
  const int64_t bytes = d.num_planes * d.out_h * d.out_w * d.item_size;
  const int64_t before = shift * d.item_size;
  const auto memory = exactly<uint8_t>(before + bytes);
  memset(memory.get(), kNoise, static_cast<size_t>(before + bytes));
  cpu::ZeroPages pages(d.fresh ? static_cast<size_t>(bytes) : 0);
  d.out = d.fresh ? pages.data() : memory.get() + before;
  CHECK(cpu::decode(block.batch(), d, num_threads) == kOk);
  CHECK(decoded_right(rles, read_counts(block.batch()), d));
  CHECK(std::all_of(memory.get(), memory.get() + before, [](uint8_t b) { return b == kNoise; }));
}

std::vector<Rle> random_rles(uint64_t seed, int64_t num_masks, int64_t h, int64_t w) {
  Random random(seed);
  std::vector<Rle> rles(static_cast<size_t>(num_masks));
  for (Rle& rle : rles) rle = random_rle(random, h, w);
  return rles;
}

void small_masks_with_all_options() {
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    Random random(seed);
    DecodeCase c(random);
    c.d.fresh = random.one_in(3);
    check_decode(c.rles, c.d, 1 + static_cast<int>(random.below(3)), random.below(4));
  }
}

void large_outputs() {
  for (const bool fresh : {false, true}) {
    const std::vector<Rle> rles = random_rles(1, 5, 1500, 2250);
    Decode d = plain(rles, 1500, 2250);
    d.fresh = fresh;
    check_decode(rles, d, 2, 1);
  }
  {
    const std::vector<Rle> rles = random_rles(2, 5, 900, 1001);  // padded, one plane empty
    const int64_t planes[] = {4, 0, -1, 0, 2};
    Decode d = plain(rles, 920, 1100, 4);
    d.planes = planes;
    check_decode(rles, d, 3, 5);
    d.fresh = true;
    check_decode(rles, d, 3, 0);
  }
  {
    const std::vector<Rle> rles = random_rles(3, 1, 1999, 4243);  // one plane for many threads
    check_decode(rles, plain(rles, 1999, 4243, 2), 16, 3);
  }
}

void wide_planes() {
  const std::vector<Rle> row = random_rles(4, 2, 1, 200001);
  check_decode(row, plain(row, 1, 200001), 2, 3);
  const std::vector<Rle> wide = random_rles(5, 1, 130, 66001);
  for (const bool fresh : {false, true}) {
    Decode d = plain(wide, 130, 66001);
    d.fresh = fresh;
    check_decode(wide, d, 8, 7);
  }
  check_decode(wide, plain(wide, 131, 66010, 2), 2, 1);  // streaming, in tiles of columns
}

void tall_planes() {
  const std::vector<Rle> column = random_rles(6, 1, 2100000, 1);
  check_decode(column, plain(column, 2100000, 1), 1, 1);
  const std::vector<Rle> tall = random_rles(7, 1, 1200000, 3);
  for (const bool fresh : {false, true}) {
    Decode d = plain(tall, 1200001, 3, 4);
    d.fresh = fresh;
    check_decode(tall, d, 2, 1);
  }
}

void resized() {
  const std::vector<Rle> small = random_rles(8, 1, 37, 53);
  Decode d = plain(small, 4111, 4099);
  d.resize = true;
  check_decode(small, d, 2, 1);
  const std::vector<Rle> row = {{1, 140, to_chars(Counts(140, 1))}};
  d = plain(row, 1, 8457960);  // beyond 2**23 a float has no halves
  d.resize = true;
  check_decode(row, d, 2, 1);
  const std::vector<Rle> large = random_rles(9, 3, 1500, 2250);
  d = plain(large, 256, 300, 2);
  d.resize = true;
  check_decode(large, d, 2, 1);
}

// Positions up to 2**32 - 2, of which the planes show a part.
void largest_masks() {
  const int64_t sizes[][2] = {{65535, 65537}, {65537, 65535}, {(int64_t{1} << 32) - 1, 1}};
  for (const auto& [h, w] : sizes) {
    const std::vector<Rle> rles = random_rles(10, 2, h, w);
    const int64_t crops[] = {h - 99, 0, 99, std::min<int64_t>(w, 300), h / 2, w / 2, 40, 1};
    Decode d = plain(rles, 100, 300);
    d.crops = crops;
    check_decode(rles, d, 2, 0);
    d.resize = true;
    check_decode(rles, d, 2, 0);
    d.crops = nullptr;
    check_decode(rles, d, 2, 0);
  }
}

int64_t status(const std::vector<Rle>& rles, Decode d) {
  const auto out = exactly<uint8_t>(d.num_planes * d.out_h * d.out_w * d.item_size);
  const auto size = static_cast<size_t>(d.num_planes * d.out_h * d.out_w * d.item_size);
  memset(out.get(), kNoise, size);
  d.out = out.get();
  const int64_t code = cpu::decode(BatchBlock(rles).batch(), d, 1);
  if (code != kOk) {
    CHECK(std::all_of(out.get(), out.get() + size, [](uint8_t byte) { return byte == kNoise; }));
  }
  return code;
}

void bad_planes_and_windows() {
  const std::vector<Rle> rles = random_rles(11, 2, 6, 7);
  const int64_t least = INT64_MIN, most = INT64_MAX;
  for (const int64_t plane : {int64_t{-2}, int64_t{2}, least, most}) {
    const int64_t planes[] = {0, plane};
    Decode d = plain(rles, 6, 7);
    d.planes = planes;
    CHECK(status(rles, d) == kBadPlane);
  }
  Decode d = plain(rles, 6, 7);
  d.num_planes = 1;
  CHECK(status(rles, d) == kBadPlane);

  CHECK(status(rles, plain(rles, 5, 7)) == kBadWindow);
  CHECK(status(rles, plain(rles, 6, 6)) == kBadWindow);
  CHECK(status(rles, plain(rles, 6, 0)) == kBadWindow);
  const int64_t windows[][4] = {{-1, 0, 1, 1},   {0, -1, 1, 1},       {0, 0, -1, 1},
                                {0, 0, 1, -1},   {7, 0, 0, 1},        {0, 8, 1, 0},
                                {1, 0, 6, 1},    {0, 1, 1, 7},        {most, 0, most, 1},
                                {0, 1, 1, most}, {least, 0, least, 1}};
  for (const auto& window : windows) {
    int64_t crops[8] = {0, 0, 6, 7};
    std::copy_n(window, 4, crops + 4);
    for (const bool resize : {false, true}) {
      d = plain(rles, 6, 7);
      d.crops = crops;
      d.resize = resize;
      CHECK(status(rles, d) == kBadWindow);
    }
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::small_masks_with_all_options();
  sa1b::test::large_outputs();
  sa1b::test::wide_planes();
  sa1b::test::tall_planes();
  sa1b::test::resized();
  sa1b::test::largest_masks();
  sa1b::test::bad_planes_and_windows();
}
