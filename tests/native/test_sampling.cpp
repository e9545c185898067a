// Pixels by their rank, and the most interior ones, against walks over all pixels.
#include "reference.h"
#include "sampling.h"

namespace sa1b::test {
namespace {

bool is_in(Region region, const Pixels& mask, int64_t h, int64_t w, int64_t y, int64_t x) {
  const auto inside = [&](int64_t row, int64_t column) {
    return row >= 0 && row < h && column >= 0 && column < w && mask.at(row, column);
  };
  if (region != Region::kBoundary) return inside(y, x) == (region == Region::kForeground);
  return inside(y, x) &&
         !(inside(y - 1, x) && inside(y + 1, x) && inside(y, x - 1) && inside(y, x + 1));
}

void check(const std::vector<Rle>& rles, int num_threads) {
  const BatchBlock block(rles);
  const auto n = static_cast<int64_t>(rles.size());
  const std::vector<Counts> counts = read_counts(block.batch());
  const auto area = exactly<int64_t>(n);
  CHECK(cpu::boundary_area(block.batch(), area.get(), num_threads) == kOk);
  for (const Region region : {Region::kForeground, Region::kBackground, Region::kBoundary}) {
    std::vector<std::vector<int64_t>> pixels(rles.size());  // x, y of each
    size_t most = 0;
    for (int64_t i = 0; i < n; ++i) {
      const Pixels mask(rles[i].h, counts[i]);
      for (int64_t x = 0; x < rles[i].w; ++x) {
        for (int64_t y = 0; y < rles[i].h; ++y) {
          if (!is_in(region, mask, rles[i].h, rles[i].w, y, x)) continue;
          pixels[i].insert(pixels[i].end(), {x, y});
        }
      }
      if (region == Region::kBoundary) CHECK(2 * area[i] == static_cast<int64_t>(pixels[i].size()));
      most = std::max(most, pixels[i].size() / 2);
    }
    // From the last rank to the first, with some that no pixel has.
    const auto num_ranks = static_cast<int64_t>(most) + 4;
    const auto ranks = exactly<int64_t>(n * num_ranks),
               points = exactly<int64_t>(2 * n * num_ranks);
    for (int64_t k = 0; k < n * num_ranks; ++k) ranks[k] = num_ranks - 3 - k % num_ranks;
    CHECK(cpu::pixels_at_ranks(block.batch(), region, ranks.get(), num_ranks, points.get(),
                               num_threads) == kOk);
    for (int64_t k = 0; k < n * num_ranks; ++k) {
      const std::vector<int64_t>& of_mask = pixels[k / num_ranks];
      const bool there = ranks[k] >= 0 && 2 * ranks[k] < static_cast<int64_t>(of_mask.size());
      CHECK(points[2 * k] == (there ? of_mask[2 * ranks[k]] : -1));
      CHECK(points[2 * k + 1] == (there ? of_mask[2 * ranks[k] + 1] : -1));
    }
  }
}

// By the largest square around every pixel.
void check_interior(const std::vector<Rle>& rles, int num_threads) {
  const BatchBlock block(rles);
  const auto n = static_cast<int64_t>(rles.size());
  const std::vector<Counts> counts = read_counts(block.batch());
  const auto points = exactly<int64_t>(3 * n);
  CHECK(cpu::interior_points(block.batch(), points.get(), num_threads) == kOk);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t h = rles[i].h, w = rles[i].w;
    const Pixels mask(h, counts[i]);
    const auto fits = [&](int64_t x, int64_t y, int64_t reach) {
      if (x < reach || y < reach || x + reach >= w || y + reach >= h) return false;
      for (int64_t column = x - reach; column <= x + reach; ++column) {
        for (int64_t row = y - reach; row <= y + reach; ++row) {
          if (!mask.at(row, column)) return false;
        }
      }
      return true;
    };
    int64_t expected[3] = {-1, -1, 0};
    for (int64_t x = 0; x < w; ++x) {
      for (int64_t y = 0; y < h; ++y) {
        while (fits(x, y, expected[2])) {
          expected[0] = x;
          expected[1] = y;
          ++expected[2];
        }
      }
    }
    CHECK(std::equal(expected, expected + 3, points.get() + 3 * i));
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  using namespace sa1b::test;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    std::vector<Rle> rles(static_cast<size_t>(random.below(4)));
    const bool hostile = random.one_in(3);
    for (Rle& rle : rles) {
      rle = random_rle(random, random.below(30), random.below(30));
      if (!hostile) continue;
      for (uint8_t& c : rle.chars) c = random.one_in(5) ? random.byte() : c;
    }
    check(rles, 1 + static_cast<int>(seed % 3));
    check_interior(rles, 1 + static_cast<int>(seed % 3));
  }
}
