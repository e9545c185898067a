// Pixels by their rank as the CUDA kernels find them, run on the CPU, against the CPU's own.
#include "cuda.h"
#include "sampling.h"

namespace sa1b::test {
namespace {

constexpr Region kRegions[] = {Region::kForeground, Region::kBackground, Region::kBoundary};

// What the CUDA kernels say of a batch: the boundary of each mask, pixels of a region.
std::unique_ptr<int64_t[]> run_boundary_area(Random& random, const Batch& batch) {
  auto area = exactly<int64_t>(batch.num_masks);
  std::fill_n(area.get(), batch.num_masks, int64_t{-7});
  const Aligned workspace = random_bytes(random, cuda::sampling_workspace(batch));
  emulator::set_seed(random.bits());
  CHECK(cuda::boundary_area(batch, area.get(), workspace.get(), kStream) == cudaSuccess);
  return area;
}

std::unique_ptr<int64_t[]> run_pixels(Random& random, const Batch& batch, Region region,
                                      const int64_t* ranks, int64_t num_ranks) {
  auto points = exactly<int64_t>(2 * batch.num_masks * num_ranks);
  std::fill_n(points.get(), 2 * batch.num_masks * num_ranks, int64_t{-7});
  const Aligned workspace = random_bytes(random, cuda::sampling_workspace(batch));
  emulator::set_seed(random.bits());
  CHECK(cuda::pixels_at_ranks(batch, region, ranks, num_ranks, points.get(), workspace.get(),
                              kStream) == cudaSuccess);
  return points;
}

// The same ranks of every mask.
void check_ranks(Random& random, const Batch& batch, Region region,
                 const std::vector<int64_t>& wanted) {
  const int64_t n = batch.num_masks;
  const auto num_ranks = static_cast<int64_t>(wanted.size());
  const auto ranks = exactly<int64_t>(n * num_ranks);
  for (int64_t k = 0; k < n * num_ranks; ++k) ranks[k] = wanted[k % num_ranks];
  const auto expected = exactly<int64_t>(2 * n * num_ranks);
  CHECK(cpu::pixels_at_ranks(batch, region, ranks.get(), num_ranks, expected.get(), 1) == kOk);
  const auto found = run_pixels(random, batch, region, ranks.get(), num_ranks);
  CHECK(same_bytes(found.get(), expected.get(), 2 * n * num_ranks));
}

// Every rank that a mask of that many pixels may have, from the last to the first.
void check(Random& random, const std::vector<Rle>& rles, int64_t pixels) {
  const BatchBlock block(rles);
  const Batch& batch = block.batch();
  const auto expected = exactly<int64_t>(batch.num_masks);
  CHECK(cpu::boundary_area(batch, expected.get(), 1) == kOk);
  const auto area = run_boundary_area(random, batch);
  CHECK(same_bytes(area.get(), expected.get(), batch.num_masks));
  std::vector<int64_t> ranks;
  for (int64_t rank = pixels + 1; rank >= -2; --rank) ranks.push_back(rank);
  for (const Region region : kRegions) check_ranks(random, batch, region, ranks);
}

// The same mask with counts of zero anywhere, by themselves, in pairs and in longer rows.
Counts with_zeros(Random& random, const Counts& counts) {
  Counts split;
  for (const uint32_t count : counts) {
    uint32_t left = count;
    while (random.one_in(3)) {
      const auto part = static_cast<uint32_t>(random.below(int64_t{left} + 1));
      split.insert(split.end(), {part, 0});
      left -= part;
    }
    split.push_back(left);
  }
  return split;
}

void random_masks() {
  for (uint64_t seed = 0; seed < 40; seed += kStep) {
    Random random(seed);
    const int64_t h = random.below(random.one_in(2) ? 6 : 50);
    const int64_t w = random.below(random.one_in(2) ? 6 : 50);
    std::vector<Rle> rles = random_rles(random, random.below(5), h, w);
    rles.push_back({h, w, to_chars(with_zeros(random, random_counts(random, h * w)))});
    rles.push_back({h, w, to_chars(with_zeros(random, {0, static_cast<uint32_t>(h * w)}))});
    // What is missing at the end is background.
    rles.push_back(random_rle(random, h, w));
    rles.back().chars.resize(random.below(static_cast<int64_t>(rles.back().chars.size()) + 1));
    check(random, rles, h * w);
  }
}

// Runs of one column, or of several, beside columns of many runs; more runs than a block has
// threads.
void combs() {
  for (uint64_t seed = 0; seed < 4; seed += kStep) {
    Random random(seed);
    const int64_t h = random.between(100, 130), w = random.between(11, 14);
    std::vector<Rle> rles;
    for (int k = 0; k < 3; ++k) {
      const int64_t solid = random.between(1, w);
      Counts counts = {0};
      bool inside = true;
      for (int64_t x = 0; x < w; ++x) {
        for (int64_t y = 0; y < h; ++y) {
          const bool now = (x % (solid + 1) != solid) || random.one_in(2);
          if (now != inside) counts.push_back(0);
          inside = now;
          ++counts.back();
        }
      }
      counts.insert(counts.begin(), 0);
      rles.push_back({h, w, to_chars(counts)});
    }
    rles.push_back({h, w, to_chars(Counts(static_cast<size_t>(h * w), 1))});
    check(random, rles, h * w);
  }
}

// The pixel of a boundary of everything, which the CPU's kernel would walk column by column.
std::pair<int64_t, int64_t> boundary_of_all(int64_t h, int64_t w, int64_t rank) {
  const int64_t total = h < 3 || w < 3 ? h * w : h * w - (h - 2) * (w - 2);
  if (rank < 0 || rank >= total) return {-1, -1};
  if (h < 3 || w < 3) return {rank / h, rank % h};
  if (rank < h) return {0, rank};
  if (rank >= total - h) return {w - 1, rank - (total - h)};
  return {1 + (rank - h) / 2, (rank - h) % 2 * (h - 1)};
}

// Positions up to 2**32 - 1.
void largest_masks() {
  const int64_t sizes[][2] = {{kMaxPixels, 1},     {1, kMaxPixels},     {2, kMaxPixels / 2},
                              {3, kMaxPixels / 3}, {kMaxPixels / 3, 3}, {65535, 65537},
                              {65537, 65535}};
  for (const auto& [h, w] : sizes) {
    Random random(static_cast<uint64_t>(h));
    const int64_t pixels = h * w;
    const auto n = static_cast<uint32_t>(pixels);
    std::vector<Rle> rles;
    for (const Counts& counts :
         {Counts{0, n}, {n - 1, 1}, {1, n - 2, 1}, {n / 2, n - n / 2}, {n}, {0, 1, n - 2, 1}}) {
      rles.push_back({h, w, to_chars(counts)});
    }
    const BatchBlock block(rles), all({rles[0]});
    std::vector<int64_t> ranks = {-1, 0, 1, h - 1, h, h + 1, pixels - 2, pixels - 1, pixels};
    for (int k = 0; k < 20; ++k) ranks.push_back(random.below(pixels >> random.below(32)));
    const auto area = run_boundary_area(random, all.batch());
    for (const int64_t rank : {area[0] - h - 1, area[0] - h, area[0] - 1, area[0]}) {
      ranks.push_back(rank);
    }
    check_ranks(random, block.batch(), Region::kForeground, ranks);
    check_ranks(random, block.batch(), Region::kBackground, ranks);
    if (h > 65534) check_ranks(random, block.batch(), Region::kBoundary, ranks);
    const auto num_ranks = static_cast<int64_t>(ranks.size());
    const auto points =
        run_pixels(random, all.batch(), Region::kBoundary, copied(ranks).get(), num_ranks);
    for (int64_t k = 0; k < num_ranks; ++k) {
      CHECK(boundary_of_all(h, w, ranks[k]) == std::make_pair(points[2 * k], points[2 * k + 1]));
    }
    CHECK(boundary_of_all(h, w, area[0] - 1).first == w - 1);
    CHECK(boundary_of_all(h, w, area[0]).first == -1);
  }
}

void what_is_refused() {
  Random random(0);
  const BatchBlock block(random_rles(random, 2, 6, 7)), none(std::vector<Rle>{});
  const Batch& batch = block.batch();
  const Aligned workspace = random_bytes(random, cuda::sampling_workspace(batch));
  int64_t ranks[] = {0, 1}, out[] = {7, 7, 7, 7};
  const auto check_status = [&](const Batch& given, int64_t num_ranks, int device, int status) {
    const cuda::Stream stream = {device, nullptr};
    CHECK(cuda::pixels_at_ranks(given, Region::kBoundary, ranks, num_ranks, out, workspace.get(),
                                stream) == status);
    if (num_ranks > 0) {
      CHECK(cuda::boundary_area(given, out, workspace.get(), stream) == status);
    }
    CHECK(std::all_of(out, out + 4, [](int64_t value) { return value == 7; }));
  };
  const Batch cut = {batch.data, 55, 2}, negative = {batch.data, 80, -1};
  CHECK(cuda::sampling_workspace(cut) == 0 && cuda::sampling_workspace(negative) == 0);
  check_status(cut, 1, 0, kBadHeader);
  check_status(negative, 1, 0, kBadHeader);
  check_status(batch, 1, 3, cudaErrorInvalidDevice);
  check_status(batch, 0, 0, cudaSuccess);
  check_status(none.batch(), 1, 0, cudaSuccess);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_masks();
  sa1b::test::combs();
  sa1b::test::largest_masks();
  sa1b::test::what_is_refused();
}
