// Area, box and centroid as the CUDA kernel finds them, run on the CPU, against the CPU's own: bit
// for bit.
#include "cuda.h"

namespace sa1b::test {
namespace {

void check_regions(Random& random, const std::vector<Rle>& rles) {
  const BatchBlock block(rles);
  const Batch& batch = block.batch();
  const int64_t n = batch.num_masks;
  const Regions expected = run_regions(batch, 1);
  emulator::set_seed(random.bits());
  for (const int asked : {7, static_cast<int>(random.below(7))}) {
    const Regions r = {anything_but(expected.area.get(), n),
                       anything_but(expected.bbox.get(), 4 * n),
                       anything_but(expected.centroid.get(), 2 * n)};
    int64_t* const area = asked & 1 ? r.area.get() : nullptr;
    float* const bbox = asked & 2 ? r.bbox.get() : nullptr;
    float* const centroid = asked & 4 ? r.centroid.get() : nullptr;
    CHECK(cuda::regions(batch, area, bbox, centroid, kStream) == cudaSuccess);
    CHECK(!area || same_bytes(area, expected.area.get(), n));
    CHECK(!bbox || same_bytes(bbox, expected.bbox.get(), 4 * n));
    CHECK(!centroid || same_bytes(centroid, expected.centroid.get(), 2 * n));
  }
}

void random_masks() {
  for (uint64_t seed = 0; seed < 24; seed += kStep) {
    Random random(seed);
    std::vector<Rle> rles(static_cast<size_t>(random.below(20)));
    for (Rle& rle : rles) rle = random_rle(random, random.below(50), random.below(50));
    if (random.one_in(8)) rles.push_back(random_rle(random, 300, 301));
    check_regions(random, rles);
  }
}

// Strings that end at, before and behind the end of a tile, and values that lie across it.
void every_length_around_a_tile() {
  for (int64_t length = 1018; length <= 1030; length += 2 * kStep) {
    Random random(static_cast<uint64_t>(length));
    std::vector<Rle> rles;
    for (const int chars : {1, 2, kMaxCharsPerCount}) {
      Rle rle = {1000, 3, {}};
      for (int64_t i = random.below(2); i > 0; --i) append_value(0, &rle.chars);
      int64_t left = 3000;
      for (; static_cast<int64_t>(rle.chars.size()) < length; --left) {
        append_value(rle.chars.size() < 3 ? 1 : 0, &rle.chars, chars);
      }
      append_value(random.below(left), &rle.chars, chars);
      rles.push_back(rle);
    }
    check_regions(random, rles);
  }
}

// Sums of coordinates come close to 2**63.
void largest_masks() {
  Random random(0);
  std::vector<Rle> rles;
  const int64_t sizes[][2] = {{kMaxPixels, 1}, {1, kMaxPixels}, {65535, 65537}, {65537, 65535}};
  for (const auto& [h, w] : sizes) {
    const auto n = static_cast<uint32_t>(h * w);
    for (const Counts& counts : {Counts{0, n}, {n}, {n - 1, 1}, {0, 1, n - 2, 1}, {1, n - 1}}) {
      rles.push_back({h, w, to_chars(counts)});
    }
    rles.push_back(random_rle(random, h, w));
  }
  for (const int64_t side : {int64_t{0}, int64_t{1}, int64_t{kMaxPixels}}) {
    rles.push_back({side, 0, {}});
    rles.push_back({0, side, to_chars({0, 0})});
  }
  check_regions(random, rles);
}

void what_is_refused() {
  Random random(0);
  const BatchBlock block(random_rles(random, 2, 6, 7));
  const Batch& batch = block.batch();
  int64_t area[] = {-1, -1};
  CHECK(cuda::regions({batch.data, 55, 2}, area, nullptr, nullptr, kStream) == kBadHeader);
  CHECK(cuda::regions({batch.data, 80, -1}, area, nullptr, nullptr, kStream) == kBadHeader);
  CHECK(cuda::regions(batch, area, nullptr, nullptr, {1, nullptr}) == cudaErrorInvalidDevice);
  CHECK(area[0] == -1 && area[1] == -1);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_masks();
  sa1b::test::every_length_around_a_tile();
  sa1b::test::largest_masks();
  sa1b::test::what_is_refused();
}
