// What the CUDA kernels, run on the CPU, keep of masks that overlap, against the CPU's own kernel
// and, for more masks than it takes patience to draw, against the definition.
#include <numeric>

#include "cuda.h"
#include "matching.h"

namespace sa1b::test {
namespace {

// The pairs of masks that meet, as the kernel reads them.
struct Pairs {
  std::unique_ptr<int64_t[]> area, begins, indices, intersection;
  int64_t num_masks, num_pairs;

  cuda::Overlaps overlaps() const {
    return {num_masks, num_pairs, area.get(), begins.get(), indices.get(), intersection.get()};
  }
};

Pairs find_pairs(Random& random, const Batch& batch, int64_t num_images) {
  const int64_t n = batch.num_masks;
  Pairs pairs = {exactly<int64_t>(n), exactly<int64_t>(n + 1), nullptr, nullptr, n, 0};
  CHECK(cuda::regions(batch, pairs.area.get(), nullptr, nullptr, kStream) == cudaSuccess);
  const Aligned workspace = random_bytes(random, cuda::pairs_workspace(batch, batch, num_images));
  CHECK(cuda::count_pairs(batch, batch, num_images, pairs.begins.get(), workspace.get(), kStream) ==
        cudaSuccess);
  pairs.num_pairs = pairs.begins[n];
  pairs.indices = exactly<int64_t>(2 * pairs.num_pairs);
  pairs.intersection = exactly<int64_t>(pairs.num_pairs);
  CHECK(cuda::write_pairs(
            batch, batch,
            {num_images, pairs.num_pairs, pairs.indices.get(), pairs.intersection.get()},
            pairs.begins.get(), workspace.get(), kStream) == cudaSuccess);
  return pairs;
}

// Checks that each mask is kept, or not, as it should be.
void check_kept(Random& random, const Pairs& pairs, Suppression suppression,
                const uint8_t* expected) {
  const auto keep = anything_but(expected, pairs.num_masks);
  const auto ranks = exactly<int64_t>(pairs.num_masks);
  suppression.keep = keep.get();
  emulator::set_seed(random.bits());
  CHECK(cuda::suppress(pairs.overlaps(), suppression, ranks.get(), kStream) == cudaSuccess);
  CHECK(same_bytes(keep.get(), expected, pairs.num_masks));
}

void shuffle(Random& random, int64_t* begin, int64_t* end) {
  for (; end - begin > 1; --end) std::swap(end[-1], begin[random.below(end - begin)]);
}

void masks() {
  for (uint64_t seed = 0; seed < 40; seed += kStep) {
    Random random(seed);
    const bool grouped = random.one_in(2);
    std::vector<std::vector<Rle>> images(grouped ? static_cast<size_t>(random.below(5)) : 1);
    for (auto& image : images) {
      const int64_t h = random.between(1, 30), w = random.between(1, 30);
      image = random_rles(random, random.below(12), h, w);
    }
    const std::vector<uint8_t> bytes = make_block(images, grouped);
    const auto block = copied(bytes);
    int64_t n = 0;
    for (const auto& image : images) n += static_cast<int64_t>(image.size());
    const Batch batch = {block.get(), static_cast<int64_t>(bytes.size()), n};
    const auto order = exactly<int64_t>(n), labels = exactly<int64_t>(n);
    std::iota(order.get(), order.get() + n, 0);
    int64_t* first = order.get();
    for (const auto& image : images) {
      shuffle(random, first, first + image.size());
      first += image.size();
    }
    for (int64_t i = 0; i < n; ++i) labels[i] = random.below(2);
    const auto expected = exactly<uint8_t>(n);
    const Suppression suppression = {grouped ? static_cast<int64_t>(images.size()) : kNotGrouped,
                                     order.get(),
                                     random.one_in(2) ? labels.get() : nullptr,
                                     random.one_in(2) ? Pairwise::kIou : Pairwise::kContainment,
                                     static_cast<double>(random.below(11)) / 10,
                                     expected.get()};
    CHECK(cpu::suppress(batch, suppression, 1) == kOk);
    check_kept(random, find_pairs(random, batch, suppression.num_images), suppression,
               expected.get());
  }
}

// Masks of 100 pixels, each of which shares 60 with some of those drawn for it: sorted, both ways.
Pairs draw_graph(Random& random, int64_t n, bool chain) {
  std::vector<std::pair<int64_t, int64_t>> edges;
  for (int64_t i = 0; i < n; ++i) {
    edges.emplace_back(i, i);
    for (int64_t k = chain ? 1 : random.below(4); k > 0; --k) {
      const int64_t j = chain ? i + 1 : random.below(n);
      if (j >= n || i == j) continue;
      edges.emplace_back(i, j);
      edges.emplace_back(j, i);
    }
  }
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  const auto num_pairs = static_cast<int64_t>(edges.size());
  Pairs pairs = {exactly<int64_t>(n),
                 exactly<int64_t>(n + 1),
                 exactly<int64_t>(2 * num_pairs),
                 exactly<int64_t>(num_pairs),
                 n,
                 num_pairs};
  std::fill_n(pairs.area.get(), n, 100);
  std::fill_n(pairs.begins.get(), n + 1, 0);
  for (int64_t k = 0; k < num_pairs; ++k) {
    const auto [i, j] = edges[k];
    ++pairs.begins[i + 1];
    pairs.indices[2 * k] = i;
    pairs.indices[2 * k + 1] = j;
    pairs.intersection[k] = i == j ? 100 : (i + j) % 5 == 0 ? 59 : 60;
  }
  std::partial_sum(pairs.begins.get(), pairs.begins.get() + n + 1, pairs.begins.get());
  return pairs;
}

// More masks than a block has threads, each waiting for the one before it, or for any.
void many_masks() {
  for (uint64_t seed = 0; seed < 5; seed += kStep) {
    Random random(seed);
    const int64_t n = random.between(1100, 2600);
    const bool chain = seed < 2;
    const Pairs pairs = draw_graph(random, n, chain);
    const auto order = exactly<int64_t>(n);
    std::iota(order.get(), order.get() + n, 0);
    if (!chain) shuffle(random, order.get(), order.get() + n);
    std::vector<uint8_t> expected(static_cast<size_t>(n), 2);
    for (int64_t place = 0; place < n; ++place) {
      const int64_t i = order[place];
      expected[i] = 1;
      for (int64_t k = pairs.begins[i]; k < pairs.begins[i + 1]; ++k) {
        const int64_t j = pairs.indices[2 * k + 1];
        if (j != i && expected[j] == 1 && pairs.intersection[k] == 60) expected[i] = 0;
      }
    }
    const Suppression suppression = {kNotGrouped, order.get(), nullptr, Pairwise::kContainment,
                                     0.59,        nullptr};
    check_kept(random, pairs, suppression, expected.data());
  }
}

// Tables of any numbers: the kernel ends, and says of each mask that it is kept or that it is not.
void tables_that_lie() {
  for (uint64_t seed = 0; seed < 12; seed += kStep) {
    Random random(seed);
    const int64_t n = random.between(1, 1100);
    Pairs pairs = draw_graph(random, n, false);
    const int64_t any[] = {-1, n, INT64_MIN, INT64_MAX, 0, n / 2, pairs.num_pairs};
    const auto lie = [&](int64_t* table, int64_t size) {
      for (int64_t k = 0; k < size; ++k) {
        if (random.one_in(5)) table[k] = any[random.below(7)];
      }
    };
    const auto order = exactly<int64_t>(n), ranks = exactly<int64_t>(n);
    std::iota(order.get(), order.get() + n, 0);
    lie(order.get(), n);
    lie(pairs.area.get(), n);
    lie(pairs.begins.get(), n + 1);
    lie(pairs.indices.get(), 2 * pairs.num_pairs);
    lie(pairs.intersection.get(), pairs.num_pairs);
    const auto keep = exactly<uint8_t>(n);
    std::fill_n(keep.get(), n, uint8_t{7});
    emulator::set_seed(seed);
    CHECK(cuda::suppress(pairs.overlaps(),
                         {kNotGrouped, order.get(), nullptr, Pairwise::kIou, 0.3, keep.get()},
                         ranks.get(), kStream) == cudaSuccess);
    CHECK(std::all_of(keep.get(), keep.get() + n, [](uint8_t kept) { return kept <= 1; }));
  }
}

// The first time counts; what is not in the order is kept.
void order_with_a_mask_twice() {
  const int64_t order[] = {1, 1, 0, 3, 1};
  const uint8_t expected[] = {0, 1, 1, 1, 1};
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Random random(seed);
    check_kept(random, draw_graph(random, 5, true),
               {kNotGrouped, order, nullptr, Pairwise::kContainment, 0.1, nullptr}, expected);
  }
}

void what_is_refused() {
  Random random(0);
  const Pairs pairs = draw_graph(random, 3, true);
  int64_t order[] = {0, 1, 2}, ranks[3];
  uint8_t keep[] = {7, 7, 7};
  const Suppression suppression = {kNotGrouped, order, nullptr, Pairwise::kIou, 0.5, keep};
  CHECK(cuda::suppress(pairs.overlaps(), suppression, ranks, {3, nullptr}) ==
        cudaErrorInvalidDevice);
  CHECK(cuda::suppress({}, suppression, ranks, kStream) == cudaSuccess);
  CHECK(std::all_of(keep, keep + 3, [](uint8_t kept) { return kept == 7; }));
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::masks();
  sa1b::test::many_masks();
  sa1b::test::tables_that_lie();
  sa1b::test::order_with_a_mask_twice();
  sa1b::test::what_is_refused();
}
