// Fuzzes the pairs: bytes become two batches of any strings, flat or grouped by image; what they
// share is compared with the naive reference. Or a word of a block is replaced: nothing but the
// status and the memory matters then.
#include "fuzz.h"

namespace sa1b::test {
namespace {

struct Side {
  std::vector<std::vector<Rle>> images;
  std::vector<uint8_t> block;
  int64_t num_masks = 0, most = 0;  // most masks of an image

  Batch batch() const { return {block.data(), static_cast<int64_t>(block.size()), num_masks}; }
};

void read_sides(Input& input, int64_t num_images, Side (&sides)[2]) {
  for (int64_t k = 0; k < num_images; ++k) {
    const int64_t h = input.flag() ? input.below(40000) : input.byte() % 70;
    const int64_t w = input.byte() % 70;
    for (Side& side : sides) {
      side.images.emplace_back(static_cast<size_t>(input.byte() % 4));
      for (Rle& rle : side.images.back()) rle = {h, w, fuzz_chars(input, h * w)};
      const auto n = static_cast<int64_t>(side.images.back().size());
      side.num_masks += n;
      side.most = std::max(side.most, n);
    }
  }
}

// [image][row][column]
std::vector<int64_t> expected_pairs(const Side& a, const Side& b) {
  std::vector<int64_t> expected(a.images.size() * static_cast<size_t>(a.most * b.most));
  for (size_t k = 0; k < a.images.size(); ++k) {
    if (a.images[k].empty()) continue;
    const BatchBlock rows(a.images[k]), columns(b.images[k]);
    const std::vector<int64_t> shared = all_shared(a.images[k], rows.batch(), columns.batch());
    for (size_t i = 0; i < shared.size(); ++i) {
      const auto row = static_cast<int64_t>(k * a.most + i / b.images[k].size());
      expected[row * b.most + static_cast<int64_t>(i % b.images[k].size())] = shared[i];
    }
  }
  return expected;
}

}  // namespace

void run(Input& input) {
  const bool grouped = input.flag();
  const int64_t num_images = grouped ? input.byte() % 4 : 1;
  Side sides[2];
  read_sides(input, num_images, sides);
  for (Side& side : sides) side.block = make_block(side.images, grouped);
  const bool broken = input.byte() % 4 == 0;
  if (broken) {
    std::vector<uint8_t>& block = sides[input.flag()].block;
    const uint64_t value = input.flag() ? input.word() : static_cast<uint64_t>(input.byte() - 64);
    memcpy(block.data() + 8 * input.below(static_cast<int64_t>(block.size()) / 8), &value, 8);
  }
  const int64_t images = grouped ? num_images : kNotGrouped;
  for (const int other : {0, 1}) {
    const Side &a = sides[0], &b = sides[other];
    const int64_t size = num_images * a.most * b.most;
    const auto shared = exactly<int64_t>(size);
    const auto iou = exactly<float>(size);
    const auto crowd = exactly<uint8_t>(b.num_masks);
    for (int64_t j = 0; j < b.num_masks; ++j) crowd[j] = static_cast<uint8_t>(input.byte() & 2);
    std::fill_n(shared.get(), size, int64_t{0});
    std::fill_n(iou.get(), size, 0.0f);
    const Pairwise pairs = {Pairwise::kIntersection, images, a.most, b.most, nullptr, shared.get()};
    const Pairwise ious = {Pairwise::kIou, images, a.most, b.most, crowd.get(), iou.get()};
    const int64_t status = cpu::pairwise(a.batch(), b.batch(), pairs, 2);
    CHECK(cpu::pairwise(a.batch(), b.batch(), ious, 1) == status);
    // Room for fewer than there are: those beyond it are counted.
    const int64_t room = input.byte() % 8;
    const auto indices = exactly<int64_t>(2 * room), intersection = exactly<int64_t>(room);
    const int64_t found = cpu::intersecting_pairs(
        a.batch(), b.batch(), {images, room, indices.get(), intersection.get()}, 2);
    if (status != kOk) {
      // A matrix of those sizes may have no room for masks that the pairs alone have.
      CHECK(broken && (found == status || status == kBadHeader));
      continue;
    }
    CHECK(found == size - std::count(shared.get(), shared.get() + size, 0));
    for (int64_t i = 0; i < size; ++i) {
      CHECK((iou[i] > 0) == (shared[i] > 0) && iou[i] <= 1);
    }
    for (int64_t i = 0, k = 0; i < size && k < room && num_images == 1; ++i) {
      if (shared[i] == 0) continue;
      CHECK(indices[2 * k] == i / b.most && indices[2 * k + 1] == i % b.most);
      CHECK(intersection[k++] == shared[i]);
    }
    if (broken) continue;
    const std::vector<int64_t> expected = expected_pairs(a, b);
    CHECK(std::equal(expected.begin(), expected.end(), shared.get()));
  }
}

}  // namespace sa1b::test
