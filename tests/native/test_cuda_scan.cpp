// Scans over a block, one right after another, with an operator whose order matters.
#include "cuda/scan.cuh"
#include "reference.h"

namespace sa1b::test {
namespace {

// x -> factor * x + summand, modulo 2**32.
struct Map {
  uint32_t factor, summand;
};
constexpr Map kIdentity = {1, 0};

constexpr Map then(const Map& earlier, const Map& later) {
  return {later.factor * earlier.factor, later.factor * earlier.summand + later.summand};
}
bool operator==(const Map& a, const Map& b) {
  return a.factor == b.factor && a.summand == b.summand;
}

template <uint32_t kThreads>
__global__ void scan_kernel(const Map* in, int rounds, Map* out, Map* totals) {
  for (int i = 0; i < rounds; ++i, in += kThreads, out += kThreads) {
    Map total;
    out[threadIdx.x] =
        cuda::block_exclusive_scan<kThreads>(in[threadIdx.x], kIdentity, then, &total);
    if (threadIdx.x == kThreads - 1) totals[i] = total;
  }
}

template <uint32_t kThreads>
__global__ void scan_warp_kernel(const Map* in, Map* out) {
  out[threadIdx.x] = cuda::warp_inclusive_scan(in[threadIdx.x], then);
}

template <uint32_t kThreads>
void check_scans() {
  constexpr int kRounds = 3;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    emulator::set_seed(random.bits());
    const auto in = exactly<Map>(kRounds * kThreads), out = exactly<Map>(kRounds * kThreads);
    const auto totals = exactly<Map>(kRounds);
    for (uint32_t i = 0; i < kRounds * kThreads; ++i) {
      in[i] = {static_cast<uint32_t>(random.bits()), static_cast<uint32_t>(random.bits())};
    }
    CHECK(SA1B_LAUNCH((scan_kernel<kThreads>), 1, kThreads, 0, nullptr, in.get(), kRounds,
                      out.get(), totals.get()) == cudaSuccess);
    for (uint32_t round = 0; round < kRounds; ++round) {
      Map expected = kIdentity;
      for (uint32_t i = round * kThreads; i < (round + 1) * kThreads; ++i) {
        CHECK(out[i] == expected);
        expected = then(expected, in[i]);
      }
      CHECK(totals[round] == expected);
    }
    CHECK(SA1B_LAUNCH((scan_warp_kernel<kThreads>), 1, kThreads, 0, nullptr, in.get(), out.get()) ==
          cudaSuccess);
    Map expected = kIdentity;
    for (uint32_t i = 0; i < kThreads; ++i) {
      expected = i % 32 == 0 ? in[i] : then(expected, in[i]);
      CHECK(out[i] == expected);
    }
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::check_scans<32>();
  sa1b::test::check_scans<64>();
  sa1b::test::check_scans<256>();
  sa1b::test::check_scans<1024>();
}
