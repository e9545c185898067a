// What the CUDA kernels, run on the CPU, find that masks have in common, against the CPU's own.
#include "cuda.h"

namespace sa1b::test {
namespace {

// An output of zeros from the CPU, and the same from the CUDA kernel.
template <class T>
void check_output(Random& random, const Batch& a, const Batch& b, Pairwise pairs) {
  const int64_t images = pairs.num_images == kNotGrouped ? 1 : pairs.num_images;
  const int64_t n = images * pairs.rows * pairs.columns;
  const auto expected = exactly<T>(n), found = exactly<T>(n);
  std::fill_n(expected.get(), n, T{0});
  std::fill_n(found.get(), n, T{0});
  pairs.out = expected.get();
  CHECK(cpu::pairwise(a, b, pairs, 1) == kOk);
  pairs.out = found.get();
  emulator::set_seed(random.bits());
  const Aligned workspace = random_bytes(random, cuda::pairs_workspace(a, b, pairs.num_images));
  CHECK(cuda::pairwise(a, b, pairs, workspace.get(), kStream) == cudaSuccess);
  CHECK(same_bytes(found.get(), expected.get(), n));
}

// Lists of pairs: all of them, and as many as there is room for.
void check_lists(Random& random, const Batch& a, const Batch& b, int64_t num_images) {
  IntersectingPairs pairs = {num_images, 0, nullptr, nullptr};
  const int64_t n = cpu::intersecting_pairs(a, b, pairs, 1);
  CHECK(n >= 0);
  const auto indices = exactly<int64_t>(2 * n), intersection = exactly<int64_t>(n);
  pairs = {num_images, n, indices.get(), intersection.get()};
  CHECK(cpu::intersecting_pairs(a, b, pairs, 1) == n);
  const auto begins = exactly<int64_t>(a.num_masks + 1);
  for (int64_t i = 0, k = 0; i <= a.num_masks; ++i) {
    while (k < n && indices[2 * k] < i) ++k;
    begins[i] = k;
  }

  emulator::set_seed(random.bits());
  const Aligned workspace = random_bytes(random, cuda::pairs_workspace(a, b, num_images));
  const auto counted = anything_but(begins.get(), a.num_masks + 1);
  CHECK(cuda::count_pairs(a, b, num_images, counted.get(), workspace.get(), kStream) ==
        cudaSuccess);
  CHECK(same_bytes(counted.get(), begins.get(), a.num_masks + 1));
  for (const int64_t capacity : {n, random.below(n + 1)}) {
    const auto written = anything_but(indices.get(), 2 * capacity);
    const auto pixels = anything_but(intersection.get(), capacity);
    CHECK(cuda::write_pairs(a, b, {num_images, capacity, written.get(), pixels.get()},
                            counted.get(), workspace.get(), kStream) == cudaSuccess);
    CHECK(same_bytes(written.get(), indices.get(), 2 * capacity));
    CHECK(same_bytes(pixels.get(), intersection.get(), capacity));
  }
}

void check_pairs(Random& random, const Batch& a, const Batch& b, int64_t num_images = kNotGrouped,
                 int64_t rows = -1, int64_t columns = -1) {
  const auto iscrowd = exactly<uint8_t>(b.num_masks);
  for (int64_t j = 0; j < b.num_masks; ++j) iscrowd[j] = random.one_in(2) ? random.byte() : 0;
  Pairwise pairs = {static_cast<int>(random.below(3)), num_images, rows, columns, nullptr, nullptr};
  if (num_images == kNotGrouped) {
    pairs.rows = a.num_masks;
    pairs.columns = b.num_masks;
  }
  if (random.one_in(2)) pairs.iscrowd = iscrowd.get();
  if (pairs.kind == Pairwise::kIntersection) {
    check_output<int64_t>(random, a, b, pairs);
  } else {
    check_output<float>(random, a, b, pairs);
  }
  check_lists(random, a, b, num_images);
}

void random_masks() {
  for (uint64_t seed = 0; seed < 12; seed += kStep) {
    Random random(seed);
    const int64_t h = random.between(1, 50), w = random.between(1, 50);
    const BatchBlock a(random_rles(random, random.below(9), h, w));
    const BatchBlock b(random_rles(random, random.below(20), h, w));
    check_pairs(random, a.batch(), b.batch());
    check_pairs(random, a.batch(), a.batch());
  }
}

// A list of many runs against lists of few, and lists that change places over and over.
void long_lists() {
  for (uint64_t seed = 0; seed < 4; seed += kStep) {
    Random random(seed);
    const int64_t h = random.between(30, 90), w = random.between(30, 90);
    const auto n = static_cast<uint32_t>(h * w);
    std::vector<Rle> few = {{h, w, to_chars({0, n})},
                            {h, w, to_chars({n / 2, 1})},
                            {h, w, to_chars({n - 1, 1})},
                            {h, w, to_chars({0, 1})}};
    std::vector<Rle> many;
    for (const int64_t longest : {1, 2, 40}) {
      Counts counts(random.below(2), 0);
      for (int64_t left = n; left > 0; left -= counts.back()) {
        counts.push_back(static_cast<uint32_t>(std::min(left, random.between(1, longest))));
      }
      many.push_back({h, w, to_chars(counts)});
      few.push_back(random_rle(random, h, w));
    }
    const BatchBlock a(many), b(few);
    check_pairs(random, a.batch(), b.batch());
    check_pairs(random, b.batch(), a.batch());
    check_pairs(random, a.batch(), a.batch());
  }
}

// So many pairs that a warp takes two of them, and 32.
void large_outputs() {
  Random random(1);
  const GroupedBlock a({random_rles(random, 3, 9, 8)}), b({random_rles(random, 70, 9, 8)});
  check_pairs(random, a.batch(), b.batch(), 1, 100, 3000);
  check_pairs(random, b.batch(), a.batch(), 1, 3000, 100);
  check_pairs(random, a.batch(), a.batch(), 1, 64, 65600);
  // More rows than a block has threads.
  std::vector<Rle> rles(200, Rle{9, 8, {}});
  for (size_t i = 0; i < rles.size(); i += 17) rles[i] = random_rle(random, 9, 8);
  check_lists(random, BatchBlock(rles).batch(), b.batch(), kNotGrouped);
}

void images() {
  for (uint64_t seed = 0; seed < 20; seed += kStep) {
    Random random(seed);
    const int64_t num_images = random.one_in(9) ? random.between(129, 150) : random.below(6);
    std::vector<std::vector<Rle>> sides[2];
    int64_t most[2] = {random.below(2), random.below(2)};
    for (int64_t k = 0; k < num_images; ++k) {
      const int64_t h = random.between(1, 30), w = random.between(1, 30);
      for (const int side : {0, 1}) {
        const int64_t n =
            num_images > 6 ? random.one_in(30) : random.below(random.one_in(4) ? 9 : 3);
        sides[side].push_back(random_rles(random, n, h, w));
        most[side] = std::max(most[side], n);
      }
    }
    const GroupedBlock a(sides[0]), b(sides[1]);
    check_pairs(random, a.batch(), b.batch(), num_images, most[0], most[1]);
    check_pairs(random, a.batch(), a.batch(), num_images, most[0], most[0] + random.below(3));
  }
}

// Unlike the CPU's kernels, these cannot refuse: such pairs have nothing in common.
void masks_of_other_sizes() {
  for (uint64_t seed = 0; seed < 8; seed += kStep) {
    Random random(seed);
    std::vector<Rle> rles;
    for (int64_t n = random.between(1, 8); n > 0; --n) {
      rles.push_back(random.one_in(2) ? random_rle(random, 12, 20) : random_rle(random, 20, 12));
    }
    const BatchBlock block(rles), copy(rles);
    const int64_t n = block.batch().num_masks;
    std::vector<int64_t> expected;
    for (const Rle& row : rles) {
      for (const Rle& column : rles) {
        const BatchBlock a({row}), b({column});
        expected.push_back(row.h == column.h ? run_intersection(a.batch(), b.batch(), 1)[0] : 0);
      }
    }
    for (const Batch* other : {&block.batch(), &copy.batch()}) {
      const auto out = exactly<int64_t>(n * n);
      std::fill_n(out.get(), n * n, int64_t{0});
      const Aligned workspace =
          random_bytes(random, cuda::pairs_workspace(block.batch(), *other, kNotGrouped));
      const Pairwise pairs = {Pairwise::kIntersection, kNotGrouped, n, n, nullptr, out.get()};
      emulator::set_seed(random.bits());
      CHECK(cuda::pairwise(block.batch(), *other, pairs, workspace.get(), kStream) == cudaSuccess);
      CHECK(same_bytes(out.get(), expected.data(), n * n));
    }
  }
}

// Positions up to 2**32 - 1.
void largest_masks() {
  const int64_t sizes[][2] = {
      {kMaxPixels, 1}, {1, kMaxPixels}, {65535, 65537}, {65537, 65535}, {3, kMaxPixels / 3}};
  for (const auto& [h, w] : sizes) {
    Random random(static_cast<uint64_t>(h));
    const auto n = static_cast<uint32_t>(h * w);
    std::vector<Rle> rles;
    for (const Counts& counts :
         {Counts{0, n}, {n - 1, 1}, {1, n - 2, 1}, {n / 2, n - n / 2}, {n}}) {
      rles.push_back({h, w, to_chars(counts)});
    }
    const BatchBlock a(rles), b({rles[3], rles[0], random_rle(random, h, w)});
    check_pairs(random, a.batch(), b.batch());
    check_pairs(random, a.batch(), a.batch());
  }
}

void what_is_refused() {
  Random random(0);
  const BatchBlock block(random_rles(random, 2, 6, 7));
  const GroupedBlock grouped({random_rles(random, 2, 6, 7)});
  const Batch cut = {block.batch().data, 55, 2};
  int64_t out[4] = {7, 7, 7, 7};
  const Aligned workspace =
      random_bytes(random, cuda::pairs_workspace(block.batch(), grouped.batch(), 1));
  const auto check = [&](const Batch& a, const Batch& b, int64_t num_images, int device,
                         int status) {
    const cuda::Stream stream = {device, nullptr};
    const Pairwise pairs = {Pairwise::kIntersection, num_images, 2, 2, nullptr, out};
    CHECK(cuda::pairwise(a, b, pairs, workspace.get(), stream) == status);
    CHECK(cuda::count_pairs(a, b, num_images, out, workspace.get(), stream) == status);
    CHECK(cuda::write_pairs(a, b, {num_images, 2, out, out}, out, workspace.get(), stream) ==
          status);
    CHECK(std::all_of(out, out + 4, [](int64_t value) { return value == 7; }));
  };
  check(cut, block.batch(), kNotGrouped, 0, kBadHeader);
  check(block.batch(), cut, kNotGrouped, 0, kBadHeader);
  for (const int64_t num_images : {int64_t{0}, int64_t{-2}, int64_t{50}, INT64_MAX}) {
    check(grouped.batch(), grouped.batch(), num_images, 0, kBadHeader);
  }
  check(grouped.batch(), block.batch(), 1, 3, cudaErrorInvalidDevice);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_masks();
  sa1b::test::long_lists();
  sa1b::test::large_outputs();
  sa1b::test::images();
  sa1b::test::masks_of_other_sizes();
  sa1b::test::largest_masks();
  sa1b::test::what_is_refused();
}
