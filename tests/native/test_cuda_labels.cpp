// What the CUDA kernels, run on the CPU, paint into label maps, against the pixels one by one.
#include <numeric>

#include "cuda.h"
#include "labels.h"

namespace sa1b::test {
namespace {

constexpr int32_t kBackground = -5;

struct Tables {
  std::unique_ptr<int64_t[]> order;
  std::unique_ptr<int32_t[]> labels;
};

// The masks of each image, [first, first + n), in any order; now and then one that is no mask of
// the image, or one several times.
Tables draw_tables(Random& random, const std::vector<std::vector<Rle>>& images, bool lies) {
  int64_t n = 0;
  for (const auto& image : images) n += static_cast<int64_t>(image.size());
  Tables tables = {exactly<int64_t>(n), exactly<int32_t>(n)};
  std::iota(tables.order.get(), tables.order.get() + n, 0);
  int64_t first = 0;
  for (const auto& image : images) {
    const auto end = first + static_cast<int64_t>(image.size());
    for (int64_t i = end - 1; i > first; --i) {
      std::swap(tables.order[i], tables.order[random.between(first, i)]);
    }
    first = end;
  }
  for (int64_t i = 0; i < n; ++i) {
    tables.labels[i] = static_cast<int32_t>(random.bits());
    const int64_t any[] = {-1, n, INT64_MIN, INT64_MAX, random.below(n)};
    if (lies && random.one_in(3)) tables.order[i] = any[random.one_in(2) ? 4 : random.below(4)];
  }
  return tables;
}

// Paints one plane after the other by definition, and checks that the kernel does the same.
void check_maps(Random& random, const std::vector<std::vector<Rle>>& images, bool grouped,
                int64_t out_h, int64_t out_w, bool lies = false) {
  const std::vector<uint8_t> bytes = make_block(images, grouped);
  const auto block = copied(bytes);
  std::vector<Rle> rles;
  for (const auto& image : images) rles.insert(rles.end(), image.begin(), image.end());
  const BatchBlock flat(rles);
  const std::vector<Counts> counts = read_counts(flat.batch());
  const Tables tables = draw_tables(random, images, lies);

  const int64_t pixels = out_h * out_w;
  std::vector<int32_t> expected(images.size() * static_cast<size_t>(pixels), kBackground);
  int64_t first = 0;
  for (size_t k = 0; k < images.size(); ++k) {
    const auto end = first + static_cast<int64_t>(images[k].size());
    int32_t* const plane = expected.data() + static_cast<int64_t>(k) * pixels;
    for (int64_t at = first; at < end; ++at) {
      const int64_t i = tables.order[at];
      if (i < first || i >= end) continue;
      const Pixels inside(rles[i].h, counts[i]);
      for (int64_t y = 0; y < std::min(rles[i].h, out_h); ++y) {
        for (int64_t x = 0; x < std::min(rles[i].w, out_w); ++x) {
          if (inside.at(y, x)) plane[y * out_w + x] = tables.labels[i];
        }
      }
    }
    first = end;
  }

  const Batch batch = {block.get(), static_cast<int64_t>(bytes.size()), flat.batch().num_masks};
  const auto size = static_cast<int64_t>(expected.size());
  const auto found = anything_but(expected.data(), size);
  const LabelPlanes planes = {grouped ? static_cast<int64_t>(images.size()) : kNotGrouped,
                              tables.order.get(),
                              tables.labels.get(),
                              kBackground,
                              out_h,
                              out_w,
                              found.get()};
  emulator::set_seed(random.bits());
  const Aligned workspace = random_bytes(random, cuda::decode_workspace(batch, planes.num_images));
  CHECK(cuda::paint_labels(batch, planes, workspace.get(), kStream) == cudaSuccess);
  CHECK(same_bytes(found.get(), expected.data(), size));
}

void random_maps() {
  for (uint64_t seed = 0; seed < 40; seed += kStep) {
    Random random(seed);
    const int64_t h = random.below(80), w = random.below(80);
    const int64_t n = random.one_in(4) ? random.between(30, 100) : random.below(7);
    check_maps(random, {random_rles(random, n, h, w)}, false, h + random.below(3),
               w + random.below(3), random.one_in(4));
  }
}

void images() {
  for (uint64_t seed = 0; seed < 20; seed += kStep) {
    Random random(seed);
    std::vector<std::vector<Rle>> images(static_cast<size_t>(random.below(6)));
    int64_t out_h = random.below(2), out_w = random.below(2);
    for (auto& image : images) {
      const int64_t h = random.below(50), w = random.below(50);
      image = random_rles(random, random.one_in(4) ? 0 : random.below(9), h, w);
      out_h = std::max(out_h, h);
      out_w = std::max(out_w, w);
    }
    check_maps(random, images, true, out_h, out_w, random.one_in(2));
  }
}

// What the CPU refuses: masks of several sizes in a map, some of them larger than it.
void masks_of_other_sizes() {
  for (uint64_t seed = 0; seed < 8; seed += kStep) {
    Random random(seed);
    std::vector<Rle> rles;
    for (int64_t n = random.between(1, 8); n > 0; --n) {
      rles.push_back(random_rle(random, random.between(1, 70), random.between(1, 70)));
    }
    check_maps(random, {rles}, false, random.between(1, 70), random.between(1, 70));
  }
}

// More rows and columns than 16 bits count, and positions up to 2**32 - 1.
void long_sides() {
  Random random(7);
  check_maps(random, {random_rles(random, 3, 70000, 2)}, false, 70000, 2);
  check_maps(random, {random_rles(random, 3, 2, 70000)}, false, 2, 70000);
  const int64_t h = 65537, w = 65535;
  const auto n = static_cast<uint32_t>(h * w);
  std::vector<Rle> rles;
  for (const Counts& counts : {Counts{n - 65537, 65537}, {1, n - 2, 1}, {n / 2, 90000, n}}) {
    rles.push_back({h, w, to_chars(counts)});
  }
  check_maps(random, {rles}, false, 2, w);
}

// Pixels where tiles begin and end, each a mask of its own.
void edges_of_tiles() {
  const int64_t edges[] = {0, 31, 32, 63, 64};
  std::vector<Rle> rles;
  for (const int64_t x : edges) {
    for (const int64_t y : edges) {
      const auto position = static_cast<uint32_t>(65 * x + y);
      rles.push_back({65, 65, to_chars({position, 1, 65 * 65 - 1 - position})});
    }
  }
  Random random(5);
  check_maps(random, {rles}, false, 65, 65);
}

// Masks below one that covers all, and strings of runs without a pixel.
void what_lies_below() {
  Random random(3);
  std::vector<Rle> rles = random_rles(random, 70, 33, 40);
  for (size_t i = 0; i < rles.size(); i += 9) rles[i].chars = to_chars({0, 33 * 40});
  check_maps(random, {rles}, false, 33, 40);
  Counts counts = {40};
  for (int k = 0; k < 3000; ++k) counts.push_back(0);
  counts.push_back(33 * 40 - 40);
  check_maps(random, {{{33, 40, to_chars(counts)}, {33, 40, to_chars({7, 60})}}}, false, 33, 40);
}

void what_is_refused() {
  Random random(0);
  const BatchBlock block(random_rles(random, 2, 6, 7));
  const Tables tables = draw_tables(random, {random_rles(random, 2, 6, 7)}, false);
  std::vector<int32_t> out(42, 9);
  const Aligned workspace =
      random_bytes(random, cuda::decode_workspace(block.batch(), kNotGrouped));
  const auto check = [&](const Batch& batch, int64_t num_images, int64_t h, int64_t w, int device,
                         int status) {
    const LabelPlanes planes = {num_images, tables.order.get(), tables.labels.get(), 0, h,
                                w,          out.data()};
    CHECK(cuda::paint_labels(batch, planes, workspace.get(), {device, nullptr}) == status);
    CHECK(std::all_of(out.begin(), out.end(), [](int32_t value) { return value == 9; }));
  };
  check({block.batch().data, 55, 2}, kNotGrouped, 6, 7, 0, kBadHeader);
  for (const int64_t num_images : {int64_t{0}, int64_t{-2}, int64_t{50}, INT64_MAX}) {
    check(block.batch(), num_images, 6, 7, 0, kBadHeader);
  }
  check(block.batch(), kNotGrouped, int64_t{1} << 32, 7, 0, kBadWindow);
  check(block.batch(), kNotGrouped, 6, int64_t{1} << 32, 0, kBadWindow);
  check(block.batch(), kNotGrouped, 0, 7, 0, cudaSuccess);
  check(block.batch(), kNotGrouped, 6, 7, 3, cudaErrorInvalidDevice);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_maps();
  sa1b::test::images();
  sa1b::test::masks_of_other_sizes();
  sa1b::test::long_sides();
  sa1b::test::edges_of_tiles();
  sa1b::test::what_lies_below();
  sa1b::test::what_is_refused();
}
