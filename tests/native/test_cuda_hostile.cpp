// Bytes that nobody validated: the CUDA kernels stay within their buffers, write all of the output,
// and read the other masks of a batch as if nothing was wrong.
#include <iterator>

#include "cuda.h"
#include "labels.h"
#include "matching.h"
#include "sampling.h"

namespace sa1b::test {
namespace {

constexpr int64_t kUnwritten = -1;

Chars random_chars(Random& random) {
  Chars chars;
  const bool any_byte = random.one_in(2), often_short = random.one_in(2);
  for (int64_t k = random.below(random.one_in(9) ? 2200 : 60); k > 0; --k) {
    const int64_t c = random.between(48, often_short && !random.one_in(9) ? 63 : 111);
    chars.push_back(any_byte ? random.byte() : static_cast<uint8_t>(c));
  }
  return chars;
}

// As sparse as these are, one in any place is missed.
int64_t random_word(Random& random, int64_t num_bytes) {
  const int64_t words[] = {0,
                           1,
                           2,
                           3,
                           9,
                           1 << 16,
                           kMaxPixels,
                           int64_t{1} << 32,
                           num_bytes,
                           INT64_MIN,
                           INT64_MAX,
                           -1,
                           -9,
                           num_bytes + 1,
                           random.below(num_bytes + 1),
                           INT64_MAX / 2 + 1};
  return random.one_in(3) ? words[random.below(std::size(words))] : words[random.below(5)];
}

// Planes and crops of any numbers, or none of them.
std::vector<uint8_t> run_decode(Random& random, const Batch& batch, int64_t num_images,
                                int64_t num_planes, bool with_tables) {
  std::vector<int64_t> planes, crops;
  for (int64_t i = 0; i < num_planes; ++i) {
    planes.push_back(random_word(random, batch.num_masks));
    for (int k = 0; k < 4; ++k) crops.push_back(random_word(random, 20));
  }
  const auto exact_planes = copied(planes), exact_crops = copied(crops);
  Decode d = {};
  d.num_planes = num_planes;
  if (with_tables && num_images == kNotGrouped) d.planes = exact_planes.get();
  if (with_tables) d.crops = exact_crops.get();
  d.resize = with_tables && random.one_in(2);
  d.out_h = d.out_w = 20;
  d.item_size = 1;
  d.one = 1;
  const auto out = exactly<uint8_t>(num_planes * 400);
  std::fill_n(out.get(), num_planes * 400, uint8_t{0xa5});
  d.out = out.get();
  const Aligned workspace = random_bytes(random, cuda::decode_workspace(batch, num_images));
  CHECK(cuda::decode(batch, num_images, d, workspace.get(), kStream) == cudaSuccess);
  CHECK(std::all_of(out.get(), out.get() + num_planes * 400, [](uint8_t b) { return b <= 1; }));
  return {out.get(), out.get() + num_planes * 400};
}

Regions run_cuda_regions(const Batch& batch) {
  const int64_t n = batch.num_masks;
  Regions r = {exactly<int64_t>(n), exactly<float>(4 * n), exactly<float>(2 * n)};
  std::fill_n(r.area.get(), n, kUnwritten);
  std::fill_n(r.bbox.get(), 4 * n, float{kUnwritten});
  std::fill_n(r.centroid.get(), 2 * n, float{kUnwritten});
  CHECK(cuda::regions(batch, r.area.get(), r.bbox.get(), r.centroid.get(), kStream) == cudaSuccess);
  for (int64_t i = 0; i < n; ++i) CHECK(r.area[i] >= 0);
  for (int64_t i = 0; i < 4 * n; ++i) CHECK(r.bbox[i] >= 0);
  for (int64_t i = 0; i < 2 * n; ++i) CHECK(!(r.centroid[i] < 0));
  return r;
}

// Masks in any order, of labels below 9.
void run_paint_labels(Random& random, const Batch& batch, int64_t num_images) {
  std::vector<int64_t> words;
  std::vector<int32_t> values;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    words.push_back(random_word(random, batch.num_masks));
    values.push_back(static_cast<int32_t>(i));
  }
  const auto order = copied(words);
  const auto labels = copied(values);
  const int64_t side = 40, size = (num_images == kNotGrouped ? 1 : num_images) * side * side;
  const auto out = exactly<int32_t>(size);
  std::fill_n(out.get(), size, int32_t{99});
  const LabelPlanes planes = {num_images, order.get(), labels.get(), -5, side, side, out.get()};
  const Aligned workspace = random_bytes(random, cuda::decode_workspace(batch, num_images));
  CHECK(cuda::paint_labels(batch, planes, workspace.get(), kStream) == cudaSuccess);
  CHECK(std::all_of(out.get(), out.get() + size,
                    [&](int32_t label) { return label == -5 || (label >= 0 && label < 9); }));
}

// What the masks of a batch have in common, as it was found, and areas as they are said to be.
void run_suppress(Random& random, int64_t num_masks, const int64_t* area, const int64_t* begins,
                  const IntersectingPairs& pairs) {
  std::vector<int64_t> words;
  for (int64_t i = 0; i < num_masks; ++i) words.push_back(random_word(random, num_masks));
  const auto order = copied(words);
  const auto keep = exactly<uint8_t>(num_masks);
  const auto ranks = exactly<int64_t>(num_masks);
  std::fill_n(keep.get(), num_masks, uint8_t{7});
  const Suppression suppression = {pairs.num_images, order.get(), nullptr,
                                   Pairwise::kIou,   0.5,         keep.get()};
  CHECK(cuda::suppress({num_masks, pairs.capacity, area, begins, pairs.indices, pairs.intersection},
                       suppression, ranks.get(), kStream) == cudaSuccess);
  CHECK(std::all_of(keep.get(), keep.get() + num_masks, [](uint8_t kept) { return kept <= 1; }));
}

std::vector<int64_t> run_cuda_pairs(Random& random, const Batch& a, const Batch& b,
                                    int64_t num_images, int64_t rows, int64_t columns) {
  const Aligned workspace = random_bytes(random, cuda::pairs_workspace(a, b, num_images));
  const int64_t size = (num_images == kNotGrouped ? 1 : num_images) * rows * columns;
  const auto out = exactly<int64_t>(size);
  std::fill_n(out.get(), size, int64_t{0});
  Pairwise pairs = {Pairwise::kIntersection, num_images, rows, columns, nullptr, out.get()};
  CHECK(cuda::pairwise(a, b, pairs, workspace.get(), kStream) == cudaSuccess);

  const int64_t n = a.num_masks;
  const auto begins = exactly<int64_t>(n + 1);
  CHECK(cuda::count_pairs(a, b, num_images, begins.get(), workspace.get(), kStream) == cudaSuccess);
  CHECK(begins[0] == 0 && std::is_sorted(begins.get(), begins.get() + n + 1));
  const int64_t capacity = random.one_in(2) ? begins[n] : random.below(begins[n] + 1);
  const auto indices = exactly<int64_t>(2 * capacity), pixels = exactly<int64_t>(capacity);
  std::fill_n(indices.get(), 2 * capacity, kUnwritten);
  std::fill_n(pixels.get(), capacity, kUnwritten);
  CHECK(cuda::write_pairs(a, b, {num_images, capacity, indices.get(), pixels.get()}, begins.get(),
                          workspace.get(), kStream) == cudaSuccess);
  for (int64_t k = 0; k < capacity; ++k) {
    const int64_t i = indices[2 * k], j = indices[2 * k + 1];
    CHECK(i >= 0 && i < n && j >= 0 && j < b.num_masks && pixels[k] > 0);
    CHECK(begins[i] <= k && k < begins[i + 1]);
  }
  if (a.data == b.data) {
    const Regions regions = run_cuda_regions(a);
    run_suppress(random, n, regions.area.get(), begins.get(),
                 {num_images, capacity, indices.get(), pixels.get()});
  }
  return {out.get(), out.get() + size};
}

// Pixels of any ranks. Where a string goes back, a boundary is counted more than once.
std::vector<int64_t> run_cuda_points(Random& random, const Batch& batch, Region region,
                                     const std::vector<int64_t>& ranks) {
  const int64_t n = batch.num_masks;
  const auto num_ranks = static_cast<int64_t>(ranks.size());
  std::vector<int64_t> of_all;
  for (int64_t i = 0; i < n; ++i) of_all.insert(of_all.end(), ranks.begin(), ranks.end());
  const auto exact_ranks = copied(of_all);
  const auto points = exactly<int64_t>(2 * n * num_ranks), area = exactly<int64_t>(n);
  std::fill_n(points.get(), 2 * n * num_ranks, INT64_MIN);
  std::fill_n(area.get(), n, kUnwritten);
  const Aligned workspace = random_bytes(random, cuda::sampling_workspace(batch));
  CHECK(cuda::pixels_at_ranks(batch, region, exact_ranks.get(), num_ranks, points.get(),
                              workspace.get(), kStream) == cudaSuccess);
  CHECK(cuda::boundary_area(batch, area.get(), workspace.get(), kStream) == cudaSuccess);
  for (int64_t i = 0; i < n; ++i) {
    Mask mask;
    if (!batch.mask(i, &mask)) mask = Mask{};
    CHECK(area[i] >= 0 && static_cast<uint64_t>(area[i]) <= batch.num_bytes * mask.pixels());
    for (int64_t k = i * num_ranks; k < (i + 1) * num_ranks; ++k) {
      const int64_t x = points[2 * k], y = points[2 * k + 1];
      CHECK((x == -1 && y == -1) || (x >= 0 && x < mask.w && y >= 0 && y < mask.h));
    }
  }
  return {points.get(), points.get() + 2 * n * num_ranks};
}

// Good masks between bad ones: strings of garbage, sizes that no mask has.
void good_masks_beside_bad_ones() {
  for (uint64_t seed = 0; seed < 18; seed += kStep) {
    Random random(seed);
    emulator::set_seed(seed);
    std::vector<Rle> rles, empty_for_bad;
    std::vector<bool> good;
    for (int64_t i = random.below(12); i > 0; --i) {
      good.push_back(random.one_in(2));
      rles.push_back(random_rle(random, 20, 20));
      empty_for_bad.push_back(rles.back());
      if (good.back()) continue;
      rles.back().chars = random_chars(random);
      empty_for_bad.back().chars = to_chars({400});
    }
    BatchBlock block(rles);
    const BatchBlock sound(empty_for_bad);
    const auto n = static_cast<int64_t>(rles.size());
    for (int64_t i = 0; i < n; ++i) {
      if (good[i] || random.one_in(2)) continue;
      block.set_word(2 * i + random.below(2), random_word(random, 20));
    }
    const std::vector<uint8_t> pixels = run_decode(random, block.batch(), kNotGrouped, n, false);
    const Regions r = run_cuda_regions(block.batch());
    const std::vector<Counts> counts = read_counts(sound.batch());
    const std::vector<int64_t> shared =
        run_cuda_pairs(random, block.batch(), block.batch(), kNotGrouped, n, n);
    const std::vector<int64_t> expected = run_intersection(sound.batch(), sound.batch(), 1);
    const auto region = static_cast<Region>(random.below(3));
    const std::vector<int64_t> ranks = {0, 1, 2, 7, 50, 399, 400};
    const std::vector<int64_t> points = run_cuda_points(random, block.batch(), region, ranks);
    const std::vector<int64_t> sound_points = run_cuda_points(random, sound.batch(), region, ranks);
    for (int64_t i = 0; i < n; ++i) {
      if (!good[i]) continue;
      CHECK(same_bytes(&points[14 * i], &sound_points[14 * i], 14));
      const Pixels truth(20, counts[i]);
      for (int64_t k = 0; k < 400; ++k)
        CHECK((pixels[400 * i + k] != 0) == truth.at(k / 20, k % 20));
      CHECK(regions_right(r, i, rles[i], counts[i]));
      for (int64_t j = 0; j < n; ++j) CHECK(!good[j] || shared[n * i + j] == expected[n * i + j]);
    }
  }
}

// Sizes, offsets and images of any numbers, in front of any characters.
void random_headers() {
  for (uint64_t seed = 0; seed < 28; seed += kStep) {
    Random random(seed);
    emulator::set_seed(seed);
    const int64_t num_masks = random.below(9), num_images = random.between(1, 4);
    const int64_t num_words = 3 * num_masks + 1 + 3 * num_images;
    const Chars chars = random_chars(random);
    const int64_t num_bytes = 8 * num_words + static_cast<int64_t>(chars.size());
    const auto data = exactly<uint8_t>(num_bytes);
    for (int64_t i = 0; i < num_words; ++i) {
      int64_t word = random_word(random, num_bytes);
      if (i < 2 * num_masks && !random.one_in(4)) word = 1 + word % 20;
      if (i >= 2 * num_masks && i <= 3 * num_masks && !random.one_in(4)) {
        word = random.below(num_bytes + 1);
      }
      memcpy(data.get() + 8 * i, &word, 8);
    }
    std::copy(chars.begin(), chars.end(), data.get() + 8 * num_words);
    const Batch batch = {data.get(), num_bytes, num_masks};
    const BatchBlock other(random_rles(random, random.below(5), 1 + random.below(9), 9));
    run_cuda_regions(batch);
    run_decode(random, batch, kNotGrouped, num_masks, false);
    run_decode(random, batch, kNotGrouped, 5, true);
    run_decode(random, batch, num_images, 3 * num_images, random.one_in(2));
    run_paint_labels(random, batch, kNotGrouped);
    run_paint_labels(random, batch, num_images);
    run_cuda_pairs(random, batch, other.batch(), kNotGrouped, num_masks, other.batch().num_masks);
    run_cuda_pairs(random, other.batch(), batch, kNotGrouped, other.batch().num_masks, num_masks);
    run_cuda_pairs(random, batch, batch, num_images, random.below(9), random.below(9));
    std::vector<int64_t> ranks = {0, 3, kMaxPixels - 1, INT64_MAX, INT64_MIN};
    for (int k = 0; k < 5; ++k) ranks.push_back(random_word(random, 20));
    run_cuda_points(random, batch, static_cast<Region>(random.below(3)), ranks);
  }
}

// Masks that read and write what others do as well. Every second one ends before it begins.
void strings_that_overlap() {
  for (uint64_t seed = 0; seed < 8; seed += kStep) {
    Random random(seed);
    emulator::set_seed(seed);
    std::vector<Rle> rles(9, Rle{100, 100, Chars(200, '1')});
    BatchBlock block(rles);
    const Batch& batch = block.batch();
    for (int64_t i = 0; i <= batch.num_masks; ++i) {
      block.set_word(2 * batch.num_masks + i,
                     batch.num_bytes - (i % 2 ? 0 : random.between(90, 99)));
    }
    for (const Region region : {Region::kForeground, Region::kBackground, Region::kBoundary}) {
      run_cuda_points(random, batch, region, {0, 1, 2, 3, 10, 30, 49});
    }
  }
}

// Counts that are negative, so that runs end before they begin.
void strings_that_go_back() {
  for (uint64_t seed = 0; seed < 8; seed += kStep) {
    Random random(seed);
    emulator::set_seed(seed);
    std::vector<Rle> rles;
    for (int64_t n = 9; n > 0; --n) {
      Counts counts;
      for (int64_t k = random.below(200); k > 0; --k) {
        counts.push_back(static_cast<uint32_t>(random.between(-9, 20)));
      }
      rles.push_back({20, 20, to_chars(counts)});
    }
    const BatchBlock block(rles);
    run_cuda_points(random, block.batch(), Region::kBoundary, {0, 1, 10, 50, 99, 399, 500});
  }
}

// Values of more characters than any count has, across the ends of tiles.
void endless_values() {
  Random random(0);
  for (const uint8_t c : {uint8_t{0}, uint8_t{0x2f}, uint8_t{0x50}, uint8_t{0x6f}, uint8_t{0xff}}) {
    std::vector<Rle> rles;
    for (const size_t length : {1, 9, 1025, 3000}) rles.push_back({20, 20, Chars(length, c)});
    const BatchBlock block(rles);
    run_cuda_regions(block.batch());
    run_decode(random, block.batch(), kNotGrouped, 4, false);
    run_paint_labels(random, block.batch(), kNotGrouped);
    run_cuda_pairs(random, block.batch(), block.batch(), kNotGrouped, 4, 4);
    run_cuda_points(random, block.batch(), Region::kBoundary, {0, 1, 10, 100, 399});
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::good_masks_beside_bad_ones();
  sa1b::test::random_headers();
  sa1b::test::strings_that_overlap();
  sa1b::test::strings_that_go_back();
  sa1b::test::endless_values();
}
