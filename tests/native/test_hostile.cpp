// Bytes that nobody validated: every kernel stays within its buffers and stays consistent.
//
// All memory is of exact size, so AddressSanitizer sees what a plain run does not.
#include <iterator>

#include "reference.h"

namespace sa1b::test {
namespace {

// Random strings are no masks, yet all kernels agree on what pixels they give.
void random_strings() {
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    Random random(seed);
    std::vector<Rle> rles;
    for (int64_t i = random.below(4); i > 0; --i) {
      Rle rle = {random.below(20), random.below(20), {}};
      const bool any_byte = random.one_in(2), often_short = random.one_in(2);
      for (int64_t k = random.below(60); k > 0; --k) {
        const int64_t c = random.between(48, often_short && !random.one_in(9) ? 63 : 111);
        rle.chars.push_back(any_byte ? random.byte() : static_cast<uint8_t>(c));
      }
      rles.push_back(rle);
    }
    const BatchBlock block(rles);
    const std::vector<Counts> counts = read_counts(block.batch());
    const Regions regions = run_regions(block.batch(), 2);
    for (int64_t i = 0; i < block.batch().num_masks; ++i) {
      CHECK(regions_right(regions, i, rles[i], counts[i]));
    }
    Decode d = {};
    d.num_planes = static_cast<int64_t>(rles.size());
    d.resize = random.one_in(2);
    d.out_h = d.out_w = 20;
    d.item_size = 1;
    d.one = 1;
    const auto out = exactly<uint8_t>(d.num_planes * 400);
    d.out = out.get();
    CHECK(cpu::decode(block.batch(), d, 2) == kOk);
    CHECK(decoded_right(rles, counts, d));
    check_pairs_of_one_size(rles);
  }
}

struct Statuses {
  int64_t validate, regions, decompress, decode, pairwise;
};

Statuses run_all(const Batch& batch) {
  // An honest caller has memory for as many masks as there can be in the block.
  const int64_t num_masks =
      std::clamp<int64_t>(batch.num_masks, 0, std::max<int64_t>(batch.num_bytes, 0) / 24);
  const auto area = exactly<int64_t>(num_masks);
  const auto bbox = exactly<float>(4 * num_masks), centroid = exactly<float>(2 * num_masks);
  const auto counts = exactly<uint32_t>(std::max<int64_t>(batch.num_bytes, 0));
  const auto offsets = exactly<int64_t>(num_masks + 1);
  const std::vector<int64_t> planes = {-1, 0, num_masks - 1};
  const auto out = exactly<uint8_t>(3 * 5 * 7);
  Decode d = {};
  d.planes = planes.data();
  d.num_planes = num_masks > 0 ? 3 : 1;
  d.resize = true;
  d.out_h = 5;
  d.out_w = 7;
  d.out = out.get();
  d.item_size = 1;
  d.one = 1;
  const auto shared = exactly<int64_t>(num_masks * num_masks);
  const Pairwise pairs = {Pairwise::kIntersection, kNotGrouped, batch.num_masks,
                          batch.num_masks,         nullptr,     shared.get()};
  return {cpu::validate(batch), cpu::regions(batch, area.get(), bbox.get(), centroid.get(), 2),
          cpu::decompress(batch, counts.get(), offsets.get()), cpu::decode(batch, d, 2),
          cpu::pairwise(batch, batch, pairs, 2)};
}

void random_headers() {
  for (uint64_t seed = 0; seed < 50000; ++seed) {
    Random random(seed);
    const int64_t num_masks = random.below(4);
    const int64_t header_bytes = 8 * (3 * num_masks + 1);
    const int64_t num_bytes = header_bytes + random.below(40);
    const auto data = exactly<uint8_t>(num_bytes);
    for (int64_t i = 0; i < num_bytes; ++i) data[i] = random.byte();
    const int64_t words[] = {0,
                             1,
                             3,
                             9,
                             1 << 16,
                             (int64_t{1} << 32) - 1,
                             header_bytes,
                             num_bytes,
                             num_bytes + 1,
                             int64_t{1} << 32,
                             -1,
                             INT64_MIN,
                             INT64_MAX};
    const int64_t tame = random.one_in(2) ? 8 : std::size(words);
    for (int64_t i = 0; i <= 3 * num_masks; ++i) {
      memcpy(data.get() + 8 * i, &words[random.below(tame)], 8);
    }
    Batch batch = {data.get(), num_bytes, num_masks};
    if (random.one_in(4)) batch.num_masks += random.between(-1, 2);
    const Statuses statuses = run_all(batch);
    // All masks are looked at by these three, and none has an opinion of its own.
    CHECK((statuses.validate == kBadHeader) <= (statuses.regions == kBadHeader));
    CHECK(statuses.regions == statuses.decompress);
    CHECK((statuses.pairwise == kBadHeader) == (statuses.regions == kBadHeader));
  }
}

void check_bad_header(const Batch& batch, bool for_decode = true) {
  const Statuses statuses = run_all(batch);
  CHECK(statuses.validate == kBadHeader);
  CHECK(statuses.regions == kBadHeader);
  CHECK(statuses.decompress == kBadHeader);
  CHECK(statuses.pairwise == kBadHeader);
  CHECK(!for_decode || statuses.decode == kBadHeader);
}

void inconsistent_headers() {
  const std::vector<Rle> rles(3, Rle{2, 3, {'6'}});  // words: 6 sizes, 4 offsets
  const BatchBlock good(rles);
  CHECK(cpu::validate(good.batch()) == kOk);
  const int64_t end = good.batch().num_bytes;

  for (const int64_t num_masks :
       {int64_t{-1}, int64_t{4}, int64_t{1} << 61, INT64_MAX, INT64_MIN}) {
    check_bad_header({good.batch().data, end, num_masks});
  }
  for (const int64_t num_bytes : {int64_t{79}, int64_t{0}, int64_t{-1}, INT64_MIN}) {
    check_bad_header({good.batch().data, num_bytes, 3});
  }
  check_bad_header({nullptr, 0, 0});

  const int64_t bad_words[][2] = {
      {0, -1},
      {1, -1},
      {0, int64_t{1} << 32},
      {5, INT64_MAX},
      {5, INT64_MIN},
      {6, -1},
      {6, end},
      {9, end + 1},
      {9, 0},
      {9, INT64_MAX},
      {6, end - 1},
      {0, int64_t{1} << 31},
      {4, kMaxPixels / 2},
  };
  for (const auto& [word, value] : bad_words) {
    BatchBlock bad(rles);
    bad.set_word(word, value);
    const bool shown = word != 2 && word != 3;  // run_all shows the first and the last mask
    check_bad_header(bad.batch(), shown);
  }
  BatchBlock bad(rles);
  bad.set_word(2, -1);  // a mask that decode is not asked for
  check_bad_header(bad.batch(), false);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_strings();
  sa1b::test::random_headers();
  sa1b::test::inconsistent_headers();
}
