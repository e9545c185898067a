// Fuzzes what reads strings: bytes become sizes, options and strings; results are compared with the
// naive reference.
#include "cpu/zero_pages.h"
#include "fuzz.h"
#include "reference.h"

namespace sa1b::test {
namespace {

constexpr int64_t kLargeMask = 90 * 90;  // pixels of a mask that is no longer looked at in full

int64_t read_side(Input& input) {
  const int64_t side = input.byte();
  return side < 200 ? side % 80 : input.below(1 << 16);  // rarely large
}

void check_strings(const std::vector<Rle>& rles, const Batch& batch,
                   const std::vector<Counts>& counts) {
  int64_t first_invalid = kOk;
  for (auto i = static_cast<int64_t>(rles.size()) - 1; i >= 0; --i) {
    const auto expected = parse(rles[i].chars, static_cast<uint64_t>(rles[i].h * rles[i].w));
    if (!expected) first_invalid = i;
    CHECK(!expected || *expected == counts[i]);
  }
  CHECK(cpu::validate(batch) == first_invalid);
}

void check_regions(const std::vector<Rle>& rles, const Batch& batch,
                   const std::vector<Counts>& counts) {
  const Regions regions = run_regions(batch, 2);
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    CHECK(regions.area[i] >= 0 && regions.area[i] <= rles[i].h * rles[i].w);
    if (rles[i].h * rles[i].w > kLargeMask) continue;
    CHECK(regions_right(regions, i, rles[i], counts[i]));
  }
}

void check_decode(const std::vector<Rle>& rles, const Batch& batch,
                  const std::vector<Counts>& counts, Input& input) {
  std::vector<int64_t> planes, crops;
  planes.reserve(1);  // not null even if empty: null means all masks
  Decode d = {};
  d.num_planes = batch.num_masks;
  d.item_size = 1 << input.byte() % 3;
  d.one = 0x3f803c01u >> (32 - 8 * d.item_size);
  d.fresh = input.flag();
  d.resize = input.flag();
  if (input.flag()) {
    d.num_planes = input.byte() % 5;
    for (int64_t plane = 0; plane < d.num_planes; ++plane) {
      planes.push_back(input.byte() % (batch.num_masks + 1) - 1);
    }
    d.planes = planes.data();
  }
  const bool cropped = input.flag();
  for (int64_t plane = 0; plane < d.num_planes; ++plane) {
    const int64_t i = d.planes ? planes[plane] : plane;
    const int64_t mask_h = i < 0 ? 0 : rles[i].h, mask_w = i < 0 ? 0 : rles[i].w;
    const int64_t y = input.below(mask_h + 1), x = input.below(mask_w + 1);
    const int64_t h = std::min(mask_h - y, input.byte() % 90);
    const int64_t w = std::min(mask_w - x, input.byte() % 90);
    crops.insert(crops.end(), {y, x, h, w});
    d.out_h = std::max(d.out_h, cropped ? h : mask_h);
    d.out_w = std::max(d.out_w, cropped ? w : mask_w);
  }
  if (cropped) d.crops = crops.data();
  d.resize = d.resize || d.out_h * d.out_w > kLargeMask;
  d.out_h = d.resize ? input.byte() % 90 : d.out_h + input.byte() % 3;
  d.out_w = d.resize ? input.byte() % 90 : d.out_w + input.byte() % 3;

  const int64_t bytes = d.num_planes * d.out_h * d.out_w * d.item_size;
  const auto plain = exactly<uint8_t>(d.fresh ? 0 : bytes);
  cpu::ZeroPages pages(d.fresh ? static_cast<size_t>(bytes) : 0);
  d.out = d.fresh ? pages.data() : plain.get();
  CHECK(cpu::decode(batch, d, 2) == kOk);
  CHECK(decoded_right(rles, counts, d));
}

// A header with one word replaced: kernels may refuse it, or read other bytes of the block.
void run_with_broken_header(const std::vector<Rle>& rles, Input& input) {
  BatchBlock block(rles);
  const Batch& batch = block.batch();
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(input.byte());
  block.set_word(input.byte() % (3 * batch.num_masks + 1), static_cast<int64_t>(value));
  const auto counts = exactly<uint32_t>(batch.num_bytes);
  const auto offsets = exactly<int64_t>(batch.num_masks + 1);
  const auto area = exactly<int64_t>(batch.num_masks);
  const auto bbox = exactly<float>(4 * batch.num_masks);
  const auto centroid = exactly<float>(2 * batch.num_masks);
  const auto out = exactly<uint8_t>(batch.num_masks * 30);
  Decode d = {};
  d.num_planes = batch.num_masks;
  d.resize = true;
  d.out_h = 5;
  d.out_w = 6;
  d.out = out.get();
  d.item_size = 1;
  d.one = 1;
  const int64_t status = cpu::decompress(batch, counts.get(), offsets.get());
  CHECK(cpu::regions(batch, area.get(), bbox.get(), centroid.get(), 2) == status);
  CHECK(cpu::decode(batch, d, 2) == status);
  CHECK(cpu::validate(batch) != kBadHeader || status == kBadHeader);
}

}  // namespace

void run(Input& input) {
  std::vector<Rle> rles(static_cast<size_t>(input.byte() % 4));
  for (Rle& rle : rles) {
    rle.h = read_side(input);
    rle.w = read_side(input);
    rle.chars = fuzz_chars(input, rle.h * rle.w);
  }
  if (input.flag()) {
    run_with_broken_header(rles, input);
    return;
  }
  const BatchBlock block(rles);
  const std::vector<Counts> counts = read_counts(block.batch());
  check_strings(rles, block.batch(), counts);
  check_regions(rles, block.batch(), counts);
  check_decode(rles, block.batch(), counts, input);
}

}  // namespace sa1b::test
