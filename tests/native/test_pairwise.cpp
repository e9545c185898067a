// What pairs of masks share, against a comparison of each run of one with each run of the other.
#include "reference.h"

namespace sa1b::test {
namespace {

std::vector<Rle> random_rles(Random& random, int64_t n, int64_t h, int64_t w) {
  std::vector<Rle> rles(static_cast<size_t>(n));
  for (Rle& rle : rles) rle = random_rle(random, h, w);
  return rles;
}

void check_pairs(const std::vector<Rle>& rles, const std::vector<Rle>& others, int num_threads) {
  const BatchBlock a(rles), b(others);
  const std::vector<int64_t> expected = all_shared(rles, a.batch(), b.batch());
  CHECK(run_intersection(a.batch(), b.batch(), num_threads) == expected);
  CHECK(run_intersecting_pairs(a.batch(), b.batch(), num_threads) == expected);
  const std::vector<int64_t> itself = all_shared(rles, a.batch(), a.batch());
  CHECK(run_intersection(a.batch(), a.batch(), num_threads) == itself);
  CHECK(run_intersecting_pairs(a.batch(), a.batch(), num_threads) == itself);
}

void random_masks() {
  for (uint64_t seed = 0; seed < 600; ++seed) {
    Random random(seed);
    const int64_t h = random.between(1, 50), w = random.between(1, 50);
    const auto rles = random_rles(random, random.between(1, 8), h, w);
    check_pairs(rles, random_rles(random, random.between(1, 8), h, w),
                1 + static_cast<int>(seed % 3));
  }
}

// Rows around those that a table of columns can hold, and few columns.
void high_masks() {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const int64_t h = random.between(32765, 32770), w = random.between(1, 12);
    check_pairs(random_rles(random, 4, h, w), random_rles(random, 4, h, w), 2);
  }
}

// A mask of single pixels against masks of few runs: the longer list is searched.
void many_against_few() {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    const int64_t h = random.between(30, 90), w = random.between(30, 90);
    Counts dots;
    int64_t left = h * w;
    for (; left > 0; left -= dots.back()) {
      dots.push_back(static_cast<uint32_t>(std::min(left, random.between(1, 2))));
    }
    std::vector<Rle> few = {{h, w, to_chars({0, static_cast<uint32_t>(h * w)})}};
    for (int i = 0; i < 6; ++i) {
      Counts counts;
      int64_t rest = h * w;
      for (int run = 0; run < 7; ++run) {
        counts.push_back(static_cast<uint32_t>(run == 6 ? rest : random.below(rest / 2 + 1)));
        rest -= counts.back();
      }
      few.push_back({h, w, to_chars(counts)});
    }
    check_pairs({{h, w, to_chars(dots)}, few[1]}, few, 1);
    check_pairs(few, {{h, w, to_chars(dots)}, few[1]}, 1);
  }
}

void many_masks_in_many_threads() {
  Random random(1);
  const auto rles = random_rles(random, 500, 33, 31);
  const BatchBlock a(rles), b(random_rles(random, 300, 33, 31));
  CHECK(run_intersection(a.batch(), b.batch(), 8) == run_intersection(a.batch(), b.batch(), 1));
  CHECK(run_intersection(a.batch(), a.batch(), 8) == run_intersection(a.batch(), a.batch(), 1));
  CHECK(run_intersecting_pairs(a.batch(), b.batch(), 8) ==
        run_intersection(a.batch(), b.batch(), 1));
}

// Quotients are those of exact integers in float64, rounded once.
void quotients() {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    const int64_t h = random.between(1, 40), w = random.between(1, 40);
    const auto rles = random_rles(random, random.between(1, 6), h, w);
    const BatchBlock a(rles), b(random_rles(random, random.between(1, 6), h, w));
    for (const BatchBlock* other : {&a, &b}) {
      const int64_t n = a.batch().num_masks, m = other->batch().num_masks;
      const std::vector<int64_t> shared = all_shared(rles, a.batch(), other->batch());
      const Regions rows = run_regions(a.batch(), 1), columns = run_regions(other->batch(), 1);
      const auto iscrowd = exactly<uint8_t>(m);
      for (int64_t j = 0; j < m; ++j) iscrowd[j] = random.one_in(2);
      const auto out = exactly<float>(n * m);
      for (const int kind : {Pairwise::kIou, Pairwise::kContainment}) {
        for (const bool with_crowds : {false, true}) {
          const uint8_t* const crowd = with_crowds ? iscrowd.get() : nullptr;
          std::fill_n(out.get(), n * m, 0.0f);
          const Pairwise pairs = {kind, kNotGrouped, n, m, crowd, out.get()};
          CHECK(cpu::pairwise(a.batch(), other->batch(), pairs, 2) == kOk);
          for (int64_t k = 0; k < n * m; ++k) {
            int64_t divisor = columns.area[k % m];
            if (kind == Pairwise::kIou) {
              divisor += rows.area[k / m] - shared[k];
              if (crowd && crowd[k % m]) divisor = rows.area[k / m];
            }
            const double q = divisor ? static_cast<double>(shared[k]) / double(divisor) : 0;
            CHECK(out[k] == static_cast<float>(q));
          }
        }
      }
    }
  }
}

void images() {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    const int64_t num_images = random.below(5);
    std::vector<std::vector<Rle>> sides[2];
    int64_t most[2] = {random.below(2), random.below(2)}, masks[2] = {0, 0};
    for (int64_t k = 0; k < num_images; ++k) {
      const int64_t h = random.between(1, 30), w = random.between(1, 30);
      for (int side : {0, 1}) {
        sides[side].push_back(random_rles(random, random.below(4), h, w));
        const auto n = static_cast<int64_t>(sides[side].back().size());
        most[side] = std::max(most[side], n);
        masks[side] += n;
      }
    }
    const std::vector<uint8_t> blocks[2] = {make_block(sides[0], true), make_block(sides[1], true)};
    Batch batches[2];
    for (int side : {0, 1}) {
      const auto size = static_cast<int64_t>(blocks[side].size());
      batches[side] = {blocks[side].data(), size, masks[side]};
    }
    for (const int other : {0, 1}) {
      const int64_t rows = most[0], columns = most[other];
      const auto out = exactly<int64_t>(num_images * rows * columns);
      std::fill_n(out.get(), num_images * rows * columns, int64_t{0});
      Pairwise pairs = {Pairwise::kIntersection, num_images, rows, columns, nullptr, out.get()};
      CHECK(cpu::pairwise(batches[0], batches[other], pairs, 2) == kOk);
      std::vector<int64_t> expected(static_cast<size_t>(num_images * rows * columns));
      int64_t num_pairs = 0;
      for (int64_t k = 0; k < num_images; ++k) {
        const auto &image = sides[0][k], &others = sides[other][k];
        if (image.empty() || others.empty()) continue;
        const BatchBlock a(image), b(others);
        const std::vector<int64_t> shared = all_shared(image, a.batch(), b.batch());
        for (size_t i = 0; i < shared.size(); ++i) {
          const auto r = static_cast<int64_t>(i / others.size());
          const auto c = static_cast<int64_t>(i % others.size());
          expected[(k * rows + r) * columns + c] = shared[i];
          num_pairs += shared[i] > 0;
        }
      }
      CHECK(std::equal(expected.begin(), expected.end(), out.get()));
      const IntersectingPairs sparse = {num_images, 0, nullptr, nullptr};
      CHECK(cpu::intersecting_pairs(batches[0], batches[other], sparse, 2) == num_pairs);
      // An output that is too small for an image, or images that are not there.
      if (rows > 0 && masks[0] > 0 && most[0] > 1) {
        pairs.rows = rows - 1;
        CHECK(cpu::pairwise(batches[0], batches[other], pairs, 2) == kBadHeader);
        pairs.rows = rows;
      }
      if (masks[0] > 0) {
        for (const int64_t wrong : {int64_t{0}, int64_t{-2}, int64_t{1} << 61, INT64_MAX}) {
          pairs.num_images = wrong;
          CHECK(cpu::pairwise(batches[0], batches[other], pairs, 2) == kBadHeader);
        }
      }
    }
  }
}

void masks_of_other_sizes() {
  const BatchBlock a({{4, 5, to_chars({20})}, {4, 5, to_chars({0, 20})}});
  const BatchBlock transposed({{4, 5, to_chars({20})}, {5, 4, to_chars({0, 20})}});
  const auto out = exactly<int64_t>(4);
  const Pairwise pairs = {Pairwise::kIntersection, kNotGrouped, 2, 2, nullptr, out.get()};
  const IntersectingPairs sparse = {kNotGrouped, 0, nullptr, nullptr};
  for (const auto& [first, second] :
       {std::pair{&a, &transposed}, {&transposed, &a}, {&transposed, &transposed}}) {
    CHECK(cpu::pairwise(first->batch(), second->batch(), pairs, 1) == kMixedSizes);
    CHECK(cpu::intersecting_pairs(first->batch(), second->batch(), sparse, 1) == kMixedSizes);
  }
  const BatchBlock nothing(std::vector<Rle>{});
  CHECK(run_intersection(transposed.batch(), nothing.batch(), 1).empty());
  CHECK(run_intersection(nothing.batch(), transposed.batch(), 1).empty());
}

// Positions up to 2**32 - 1.
void largest_masks() {
  const int64_t most = (int64_t{1} << 32) - 1;
  const int64_t sizes[][2] = {{most, 1}, {1, most}, {65535, 65537}, {3, most / 3}};
  for (const auto& [h, w] : sizes) {
    const auto n = static_cast<uint32_t>(h * w);
    std::vector<Rle> rles;
    for (const Counts& counts :
         {Counts{0, n}, {n - 1, 1}, {1, n - 2, 1}, {n / 2, n - n / 2}, {n}}) {
      rles.push_back({h, w, to_chars(counts)});
    }
    check_pairs(rles, {rles[3], rles[0]}, 2);
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_masks();
  sa1b::test::high_masks();
  sa1b::test::many_against_few();
  sa1b::test::many_masks_in_many_threads();
  sa1b::test::quotients();
  sa1b::test::images();
  sa1b::test::masks_of_other_sizes();
  sa1b::test::largest_masks();
}
