// Painting masks into label maps, and splitting label maps, against the pixels one by one.
#include <map>
#include <numeric>

#include "labels.h"
#include "reference.h"

namespace sa1b::test {
namespace {

// Masks of one size, or hostile strings of that size.
std::vector<Rle> draw_masks(Random& random, int64_t h, int64_t w) {
  std::vector<Rle> rles(static_cast<size_t>(random.below(7)));
  const bool hostile = random.one_in(3);
  for (Rle& rle : rles) {
    rle = random_rle(random, h, w);
    if (hostile) {
      for (uint8_t& c : rle.chars) c = random.one_in(5) ? random.byte() : c;
    }
  }
  return rles;
}

void paint(uint64_t seed) {
  Random random(seed);
  const int64_t h = random.below(40), w = random.one_in(9) ? 600 : random.below(40);
  const std::vector<Rle> rles = draw_masks(random, h, w);
  const BatchBlock block(rles);
  const auto n = static_cast<int64_t>(rles.size());
  const std::vector<Counts> counts = read_counts(block.batch());
  const auto order = exactly<int64_t>(n);
  const auto labels = exactly<int32_t>(n);
  std::iota(order.get(), order.get() + n, 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  for (int64_t i = 0; i < n; ++i) labels[i] = static_cast<int32_t>(random.bits());
  const int64_t out_h = h + random.below(3), out_w = w + random.below(3);
  const auto out = exactly<int32_t>(out_h * out_w);
  const LabelPlanes planes = {kNotGrouped, order.get(), labels.get(), -5, out_h, out_w, out.get()};
  CHECK(cpu::paint_labels(block.batch(), planes, 1 + static_cast<int>(seed % 3)) == kOk);
  for (int64_t y = 0; y < out_h; ++y) {
    for (int64_t x = 0; x < out_w; ++x) {
      int32_t expected = -5;
      for (int64_t k = 0; k < n && y < h && x < w; ++k) {
        if (Pixels(h, counts[order[k]]).at(y, x)) expected = labels[order[k]];
      }
      CHECK(out[y * out_w + x] == expected);
    }
  }
  if (n > 0) {
    order[random.below(n)] = random.one_in(2) ? n : -1;
    CHECK(cpu::paint_labels(block.batch(), planes, 1) == kBadPlane);
  }
}

template <class T>
void split(uint64_t seed) {
  Random random(seed);
  const int64_t maps = random.below(4), h = random.below(70), w = random.below(140);
  const bool by_columns = random.one_in(3), gaps = random.one_in(3);
  const auto size = static_cast<int64_t>(sizeof(T)), step = size * (gaps ? 2 : 1);
  const int64_t pixels = h * w;
  const auto memory = exactly<uint8_t>(maps * pixels * step);
  const LabelMaps input = {memory.get(),
                           maps,
                           h,
                           w,
                           pixels * step,
                           by_columns ? step : w * step,
                           by_columns ? h * step : step,
                           static_cast<int>(size),
                           random.one_in(2),
                           false,
                           random.one_in(2),
                           1};
  const int64_t spread = random.between(1, 120);
  const auto at = [&](int64_t i, int64_t y, int64_t x) {
    return memory.get() + i * input.map_stride + y * input.row_stride + x * input.column_stride;
  };
  for (int64_t i = 0; i < maps; ++i) {
    T value = 1;
    for (int64_t p = 0; p < pixels; ++p) {
      if (random.one_in(10)) value = static_cast<T>(random.below(spread));
      memcpy(at(i, p % h, p / h), &value, sizeof(T));
    }
  }
  cpu::SplitLabels result;
  CHECK(cpu::split_labels(input, 1 + static_cast<int>(seed % 3), &result) == kOk);
  const auto block = exactly<uint8_t>(result.num_bytes());
  const auto labels = exactly<int64_t>(result.num_masks()), counts = exactly<int64_t>(maps);
  result.write(block.get(), labels.get(), counts.get());
  const Batch batch = {block.get(), result.num_bytes(), result.num_masks()};
  CHECK(cpu::validate(batch) == kOk);
  const std::vector<Counts> strings = read_counts(batch);
  int64_t mask = 0;
  for (int64_t i = 0; i < maps; ++i) {
    std::map<int64_t, Pixels> found;
    for (int64_t k = 0; k < counts[i]; ++k, ++mask) {
      CHECK(k == 0 || labels[mask] > labels[mask - 1]);
      found.emplace(labels[mask], Pixels(h, strings[mask]));
    }
    for (int64_t p = 0; p < pixels; ++p) {
      T value;
      memcpy(&value, at(i, p % h, p / h), sizeof(T));
      const auto label = static_cast<int64_t>(value);
      const auto in = found.find(label);
      CHECK((in == found.end()) == (input.has_background && label == 1));
      if (in != found.end()) CHECK(in->second.at(p % h, p / h));
    }
    int64_t covered = 0;
    for (int64_t k = mask - counts[i]; k < mask; ++k) {
      for (size_t run = 1; run < strings[k].size(); run += 2) covered += strings[k][run];
    }
    CHECK(covered <= pixels && (input.has_background || covered == pixels));
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  for (uint64_t seed = 0; seed < 300; seed += sa1b::test::kStep) {
    sa1b::test::paint(seed);
    sa1b::test::split<uint8_t>(seed);
    sa1b::test::split<uint16_t>(seed);
    sa1b::test::split<uint32_t>(seed);
    sa1b::test::split<uint64_t>(seed);
  }
}
