// Suppression against all pairs, and matching against its definition.
#include <numeric>

#include "matching.h"
#include "reference.h"

namespace sa1b::test {
namespace {

void suppress(uint64_t seed) {
  Random random(seed);
  const int64_t h = random.below(30), w = random.below(30);
  std::vector<Rle> rles(static_cast<size_t>(random.below(12)));
  const bool hostile = random.one_in(3);
  for (Rle& rle : rles) {
    rle = random_rle(random, h, w);
    if (!hostile) continue;
    for (uint8_t& c : rle.chars) c = random.one_in(5) ? random.byte() : c;
  }
  const BatchBlock block(rles);
  const auto n = static_cast<int64_t>(rles.size());
  const auto order = exactly<int64_t>(n), labels = exactly<int64_t>(n);
  const auto keep = exactly<uint8_t>(n);
  std::iota(order.get(), order.get() + n, 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  for (int64_t i = 0; i < n; ++i) labels[i] = random.below(2);
  const bool by_iou = random.one_in(2), labelled = random.one_in(2);
  const double threshold = static_cast<double>(random.below(11)) / 10;
  const Suppression suppression = {kNotGrouped,
                                   order.get(),
                                   labelled ? labels.get() : nullptr,
                                   by_iou ? Pairwise::kIou : Pairwise::kContainment,
                                   threshold,
                                   keep.get()};
  CHECK(cpu::suppress(block.batch(), suppression, 2) == kOk);
  if (n == 0) return;
  const std::vector<int64_t> shared = all_shared(rles, block.batch(), block.batch());
  std::vector<int64_t> kept;
  for (int64_t at = 0; at < n; ++at) {
    const int64_t j = order[at];
    const bool removed = std::any_of(kept.begin(), kept.end(), [&](int64_t i) {
      if (labelled && labels[i] != labels[j]) return false;
      const int64_t both = shared[i * n + j], area = shared[j * n + j];
      const int64_t divisor = by_iou ? shared[i * n + i] + area - both : area;
      return divisor > 0 && static_cast<double>(both) / static_cast<double>(divisor) > threshold;
    });
    CHECK(keep[j] == !removed);
    if (!removed) kept.push_back(j);
  }
  order[random.below(n)] = random.one_in(2) ? n : -1;
  CHECK(cpu::suppress(block.batch(), suppression, 1) == kBadPlane);
}

void match(uint64_t seed) {
  Random random(seed);
  const int64_t n = random.below(9), m = random.below(9);
  std::vector<int64_t> pairs, order(static_cast<size_t>(n));
  std::vector<double> iou;
  for (int64_t d = 0; d < n; ++d) {
    for (int64_t g = 0; g < m; ++g) {
      if (random.one_in(2)) continue;
      pairs.insert(pairs.end(), {d, g});
      iou.push_back(static_cast<double>(random.between(1, 6)) / 6);
    }
  }
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  std::vector<uint8_t> iscrowd, ignore;
  for (int64_t g = 0; g < m; ++g) {
    iscrowd.push_back(random.one_in(4));
    ignore.push_back(iscrowd.back() || random.one_in(4));
  }
  const double threshold = 0.5;
  const auto matches = exactly<int64_t>(n);
  Match input = {static_cast<int64_t>(iou.size()),
                 n,
                 m,
                 1,
                 pairs.data(),
                 iou.data(),
                 order.data(),
                 iscrowd.data(),
                 ignore.data(),
                 &threshold,
                 matches.get()};
  CHECK(cpu::match(input) == kOk);
  // The best of what is left: not ignored before ignored, then the highest IoU, then the last.
  std::vector<bool> taken(static_cast<size_t>(m));
  for (const int64_t d : order) {
    int64_t best = -1;
    std::pair<bool, double> highest;
    for (size_t k = 0; k < iou.size(); ++k) {
      const int64_t g = pairs[2 * k + 1];
      if (pairs[2 * k] != d || iou[k] < threshold || (taken[g] && !iscrowd[g])) continue;
      const std::pair<bool, double> rank = {!ignore[g], iou[k]};
      if (best >= 0 && rank < highest) continue;
      best = g;
      highest = rank;
    }
    CHECK(matches[d] == best);
    if (best >= 0) taken[best] = true;
  }
  if (pairs.empty()) return;
  pairs[random.below(2)] = 9;
  CHECK(cpu::match(input) == kBadPlane);
}

}  // namespace
}  // namespace sa1b::test

int main() {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    sa1b::test::suppress(seed);
    sa1b::test::match(seed);
  }
}
