// The kernels of algebra.h against their definition, pixel by pixel, on valid and on hostile
// strings; then the sizes at which they take other ways. All memory is of exact size.
#include <functional>

#include "algebra.h"
#include "reference.h"

namespace sa1b::test {
namespace {

using IsForeground = std::function<bool(int64_t y, int64_t x)>;

// The canonical string: no run of zero length but perhaps the first.
Chars chars_of(int64_t h, int64_t w, const IsForeground& foreground) {
  Counts counts = {0};
  bool current = false;
  for (int64_t x = 0; x < w; ++x) {
    for (int64_t y = 0; y < h; ++y) {
      if (foreground(y, x) != current) {
        current = !current;
        counts.push_back(0);
      }
      ++counts.back();
    }
  }
  return to_chars(counts);
}

// The block of the result, checked to be laid out as the format says.
std::vector<Rle> write(cpu::Encoded& encoded, int64_t num_masks) {
  const int64_t num_bytes = encoded.num_bytes();
  const auto block = exactly<uint8_t>(num_bytes);
  encoded.write(block.get());
  const Batch batch = {block.get(), num_bytes, num_masks};
  CHECK(batch.header_fits());
  std::vector<Rle> rles;
  const uint8_t* end = block.get() + 8 * (3 * num_masks + 1);
  for (int64_t i = 0; i < num_masks; ++i) {
    Mask mask;
    CHECK(batch.mask(i, &mask));
    CHECK(mask.begin == end);
    end = mask.end;
    rles.push_back({mask.h, mask.w, Chars(mask.begin, mask.end)});
  }
  CHECK(end == block.get() + num_bytes);
  return rles;
}

void check(const Rle& rle, int64_t h, int64_t w, const IsForeground& foreground) {
  CHECK(rle.h == h && rle.w == w);
  CHECK(rle.chars == chars_of(h, w, foreground));
}

void check_combine(Random& random, const std::vector<Rle>& rles, const Batch& batch,
                   const std::vector<Counts>& counts) {
  const auto n = static_cast<int64_t>(rles.size());
  std::vector<int64_t> members, offsets = {0};
  for (int64_t group = random.below(4); group > 0; --group) {
    for (int64_t k = random.between(1, 4); k > 0; --k) members.push_back(random.below(2 * n));
    offsets.push_back(static_cast<int64_t>(members.size()));
  }
  const auto num_groups = static_cast<int64_t>(offsets.size()) - 1;
  const Combine combine = {static_cast<int>(random.below(5)),
                           members.data(),
                           static_cast<int64_t>(members.size()),
                           offsets.data(),
                           num_groups,
                           {}};
  cpu::Encoded encoded;
  CHECK(cpu::combine(batch, batch, combine, 2, &encoded) == kOk);
  const std::vector<Rle> results = write(encoded, num_groups);
  for (int64_t group = 0; group < num_groups; ++group) {
    std::vector<Pixels> pixels;
    for (int64_t k = offsets[group]; k < offsets[group + 1]; ++k) {
      pixels.emplace_back(rles[0].h, counts[members[k] % n]);
    }
    check(results[group], rles[0].h, rles[0].w, [&](int64_t y, int64_t x) {
      const auto inside = std::count_if(pixels.begin(), pixels.end(),
                                        [&](const Pixels& mask) { return mask.at(y, x); });
      switch (combine.kind) {
        case Combine::kUnion:
          return inside > 0;
        case Combine::kIntersection:
          return inside == static_cast<int64_t>(pixels.size());
        case Combine::kXor:
          return inside % 2 == 1;
        case Combine::kDifference:
          return inside == 1 && pixels[0].at(y, x);
        default:
          return inside == 0;
      }
    });
  }
}

void check_place(Random& random, const std::vector<Rle>& rles, const Batch& batch,
                 const std::vector<Counts>& counts) {
  const int64_t h = rles[0].h, w = rles[0].w;
  std::vector<int64_t> windows, sizes;
  const bool stretch = random.one_in(2);
  for (size_t i = 0; i < rles.size(); ++i) {
    windows.insert(windows.end(), {random.between(-3, h), random.between(-3, w),
                                   random.below(h + 5), random.below(w + 5)});
    const int64_t* window = &windows[4 * i];
    sizes.push_back(stretch ? random.below(2 * h + 2) : window[2]);
    sizes.push_back(stretch ? random.below(2 * w + 2) : window[3]);
  }
  cpu::Encoded encoded;
  CHECK(cpu::place(batch, {windows.data(), sizes.data(), {}}, 2, &encoded) == kOk);
  const std::vector<Rle> results = write(encoded, batch.num_masks);
  for (size_t i = 0; i < rles.size(); ++i) {
    const Pixels pixels(h, counts[i]);
    const int64_t *window = &windows[4 * i], *size = &sizes[2 * i];
    check(results[i], size[0], size[1], [&](int64_t y, int64_t x) {
      if (window[2] == 0 || window[3] == 0) return false;
      y = window[0] + reference_source(y, window[2], size[0]);
      x = window[1] + reference_source(x, window[3], size[1]);
      return y >= 0 && x >= 0 && y < h && x < w && pixels.at(y, x);
    });
  }
}

void check_turn(Random& random, const std::vector<Rle>& rles, const Batch& batch,
                const std::vector<Counts>& counts) {
  const Turn turn = {random.one_in(2), random.one_in(2), random.one_in(2), {}};
  cpu::Encoded encoded;
  CHECK(cpu::turn(batch, turn, 2, &encoded) == kOk);
  const std::vector<Rle> results = write(encoded, batch.num_masks);
  for (size_t i = 0; i < rles.size(); ++i) {
    const Pixels pixels(rles[i].h, counts[i]);
    const int64_t h = turn.transpose ? rles[i].w : rles[i].h;
    const int64_t w = turn.transpose ? rles[i].h : rles[i].w;
    check(results[i], h, w, [&](int64_t y, int64_t x) {
      if (turn.reverse_rows) y = h - 1 - y;
      if (turn.reverse_columns) x = w - 1 - x;
      return turn.transpose ? pixels.at(x, y) : pixels.at(y, x);
    });
  }
}

void check_all(Random& random, const std::vector<Rle>& rles) {
  const BatchBlock block(rles);
  const std::vector<Counts> counts = read_counts(block.batch());
  check_combine(random, rles, block.batch(), counts);
  check_place(random, rles, block.batch(), counts);
  check_turn(random, rles, block.batch(), counts);
}

void small_masks() {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Random random(seed);
    const int64_t h = random.below(40), w = random.below(40);
    std::vector<Rle> rles;
    for (int64_t i = random.between(1, 4); i > 0; --i) rles.push_back(random_rle(random, h, w));
    check_all(random, rles);
  }
}

void hostile_strings() {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const int64_t h = random.below(20), w = random.below(20);
    std::vector<Rle> rles;
    for (int64_t i = random.between(1, 4); i > 0; --i) {
      Rle rle = {h, w, {}};
      const bool any_byte = random.one_in(2), often_short = random.one_in(2);
      for (int64_t k = random.below(60); k > 0; --k) {
        const int64_t c = random.between(48, often_short && !random.one_in(9) ? 63 : 111);
        rle.chars.push_back(any_byte ? random.byte() : static_cast<uint8_t>(c));
      }
      rles.push_back(rle);
    }
    check_all(random, rles);
  }
}

// Several windows of positions, blocks of counts and threads, and more rows than a band.
void large_masks() {
  for (const auto& [h, w] : {std::pair{401, 700}, {70001, 3}}) {
    Random random(static_cast<uint64_t>(h));
    std::vector<Rle> rles;
    for (int i = 0; i < 3; ++i) {
      Counts counts;
      for (int64_t left = int64_t{h} * w; left > 0; left -= counts.back()) {
        counts.push_back(static_cast<uint32_t>(std::min(left, random.between(1, 1 + 3 * i))));
      }
      rles.push_back({h, w, to_chars(counts)});
    }
    for (int i = 0; i < 4; ++i) check_all(random, rles);
  }
}

void wrong_arguments() {
  const BatchBlock block({{2, 3, to_chars({1, 2, 3})}, {3, 2, to_chars({6})}});
  const Batch& batch = block.batch();
  cpu::Encoded encoded;
  const auto combine = [&](std::vector<int64_t> members, std::vector<int64_t> offsets, int kind) {
    return cpu::combine(batch, batch,
                        {kind,
                         members.data(),
                         static_cast<int64_t>(members.size()),
                         offsets.data(),
                         static_cast<int64_t>(offsets.size()) - 1,
                         {}},
                        1, &encoded);
  };
  CHECK(combine({0, 2}, {0, 2}, 0) == kOk);
  CHECK(combine({0, 1}, {0, 2}, 0) == kMixedSizes);
  CHECK(combine({0, 4}, {0, 2}, 0) == kBadPlane);
  CHECK(combine({0, -1}, {0, 2}, 0) == kBadPlane);
  CHECK(combine({0, 2}, {0, 3}, 0) == kBadPlane);
  CHECK(combine({0, 2}, {0, 1}, 0) == kBadPlane);
  CHECK(combine({0, 2}, {0, 0, 2}, 0) == kBadPlane);
  CHECK(combine({0, 2}, {0, 2}, 5) == kBadPlane);
  const int64_t windows[] = {0, 0, 2, 3, 0, 0, -1, 2}, sizes[] = {2, 3, 65536, 65536};
  CHECK(cpu::place(batch, {windows, sizes, {}}, 1, &encoded) == kBadShape);
  CHECK(cpu::place(batch, {windows, windows, {}}, 1, &encoded) == kBadWindow);
  Batch broken = batch;
  broken.num_masks = 9;
  CHECK(cpu::turn(broken, {}, 1, &encoded) == kBadHeader);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::small_masks();
  sa1b::test::hostile_strings();
  sa1b::test::large_masks();
  sa1b::test::wrong_arguments();
}
