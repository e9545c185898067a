// Area, box and centroid against sums over all pixels.
#include "reference.h"

namespace sa1b::test {
namespace {

void random_masks() {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    std::vector<Rle> rles(static_cast<size_t>(random.below(20)));
    for (Rle& rle : rles) rle = random_rle(random, random.below(50), random.below(50));
    // Long enough for several blocks of counts of one and more characters.
    if (random.one_in(8)) rles.push_back(random_rle(random, 300, 301));
    const BatchBlock block(rles);
    const Regions r = run_regions(block.batch(), 1 + static_cast<int>(seed % 3));
    const std::vector<Counts> counts = read_counts(block.batch());
    for (int64_t i = 0; i < block.batch().num_masks; ++i) {
      CHECK(regions_right(r, i, rles[i], counts[i]));
    }
    // Outputs that nobody asks for do not change the others.
    const auto area = exactly<int64_t>(block.batch().num_masks);
    CHECK(cpu::regions(block.batch(), area.get(), nullptr, nullptr, 1) == kOk);
    CHECK(std::equal(area.get(), area.get() + rles.size(), r.area.get()));
    CHECK(cpu::regions(block.batch(), nullptr, nullptr, nullptr, 1) == kOk);
  }
}

void many_masks_in_many_threads() {
  Random random(1);
  std::vector<Rle> rles(4000);
  for (Rle& rle : rles) rle = random_rle(random, 33, 31);
  const BatchBlock block(rles);
  const Regions one = run_regions(block.batch(), 1), many = run_regions(block.batch(), 8);
  const auto n = static_cast<int64_t>(rles.size());
  CHECK(memcmp(one.area.get(), many.area.get(), sizeof(int64_t) * n) == 0);
  CHECK(memcmp(one.bbox.get(), many.bbox.get(), sizeof(float) * 4 * n) == 0);
  CHECK(memcmp(one.centroid.get(), many.centroid.get(), sizeof(float) * 2 * n) == 0);
}

// The sums of coordinates come close to 2**63 here.
void largest_masks() {
  const int64_t most = (int64_t{1} << 32) - 1;
  const int64_t sizes[][2] = {{most, 1}, {1, most}, {65535, 65537}, {65537, 65535}};
  for (const auto& [h, w] : sizes) {
    const BatchBlock block({{h, w, to_chars({0, static_cast<uint32_t>(h * w)})}});
    const Regions r = run_regions(block.batch(), 1);
    CHECK(r.area[0] == h * w);
    CHECK(r.bbox[0] == 0 && r.bbox[1] == 0);
    CHECK(r.bbox[2] == static_cast<float>(w) && r.bbox[3] == static_cast<float>(h));
    CHECK(r.centroid[0] == static_cast<float>(static_cast<double>(h - 1) / 2));
    CHECK(r.centroid[1] == static_cast<float>(static_cast<double>(w - 1) / 2));
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_masks();
  sa1b::test::many_masks_in_many_threads();
  sa1b::test::largest_masks();
}
