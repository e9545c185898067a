// Whether the emulator finds the mistakes that kernels have: each kernel here does its job right,
// or with one mistake planted, and does so for several seeds.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/launch_kernel.h"

namespace sa1b::test {
namespace {

constexpr uint64_t kSeeds = 10;
constexpr unsigned kBlocks = 3, kThreads = 64;

using Values = std::vector<unsigned>;
using Kernel = void (*)(const unsigned* in, unsigned* out);  // [kBlocks][kThreads]

cudaError_t run(Kernel kernel, uint64_t seed, const Values& in, Values* out) {
  emulator::set_seed(seed);
  out->assign(in.size(), 0);
  return SA1B_LAUNCH(kernel, kBlocks, kThreads, kThreads * sizeof(unsigned), nullptr, in.data(),
                     out->data());
}

// For how many seeds the results are wrong.
uint64_t num_wrong(Kernel kernel, void (*do_job)(Values* values)) {
  uint64_t wrong = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Random random(seed);
    Values in(kBlocks * kThreads), out;
    for (unsigned& value : in) value = static_cast<unsigned>(random.below(1000));
    CHECK(run(kernel, seed, in, &out) == cudaSuccess);
    do_job(&in);
    wrong += in != out;
  }
  return wrong;
}

// Checks that the kernel throws, whatever the seed; which of its threads notices may differ.
void check_throws(Kernel kernel, const std::vector<std::string>& reasons) {
  const Values in(kBlocks * kThreads);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::string message;
    Values out;
    try {
      run(kernel, seed, in, &out);
    } catch (const emulator::Bug& bug) {
      message = bug.what();
    }
    CHECK(std::any_of(reasons.begin(), reasons.end(), [&](const std::string& reason) {
      return message.find(reason) != std::string::npos;
    }));
  }
}

// The jobs: reverse the values of every block, or of every warp; sum those of every block.
template <unsigned kGroup>
void reverse(Values* values) {
  for (auto at = values->begin(); at != values->end(); at += kGroup) std::reverse(at, at + kGroup);
}

void sum(Values* values) {
  for (auto at = values->begin(); at != values->end(); at += kThreads) {
    std::fill_n(at, kThreads, std::accumulate(at, at + kThreads, 0u));
  }
}

// --- Results that are wrong for some seeds -----------------------------------------------------

template <bool kPlanted>
__global__ void missing_barrier_kernel(const unsigned* in, unsigned* out) {
  SA1B_DYNAMIC_SHARED(unsigned, values);
  const unsigned first = blockIdx.x * kThreads;
  values[threadIdx.x] = in[first + threadIdx.x];
  if (!kPlanted) __syncthreads();
  out[first + threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

// Values are swapped over ever larger distances, and must have been read before they are replaced.
template <bool kPlanted>
__global__ void missing_barrier_before_write_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned[kThreads], values);
  const unsigned first = blockIdx.x * kThreads;
  unsigned value = in[first + threadIdx.x];
  for (unsigned distance = 1; distance < kThreads; distance *= 2) {
    if (!kPlanted) __syncthreads();
    values[threadIdx.x] = value;
    __syncthreads();
    value = values[threadIdx.x ^ distance];
  }
  out[first + threadIdx.x] = value;
}

template <bool kPlanted>
__global__ void missing_warp_barrier_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned[kThreads], values);
  const unsigned first = blockIdx.x * kThreads;
  values[threadIdx.x] = in[first + threadIdx.x];
  if (!kPlanted) __syncwarp();
  out[first + threadIdx.x] = values[threadIdx.x ^ 31];
}

template <bool kPlanted>
__global__ void uninitialised_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned, total);
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  // A block before this one may have run on the same multiprocessor, or none.
  if (threadIdx.x == 0 && !(kPlanted && blockIdx.x > 0)) total = 0;
  __syncthreads();
  atomicAdd(&total, in[i]);
  __syncthreads();
  out[i] = total;
}

template <bool kPlanted>
__global__ void uninitialised_dynamic_kernel(const unsigned* in, unsigned* out) {
  SA1B_DYNAMIC_SHARED(unsigned, sums);
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (threadIdx.x < (kPlanted ? 1 : 2)) sums[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&sums[threadIdx.x % 2], in[i]);
  __syncthreads();
  out[i] = sums[0] + sums[1];
}

// The last block of the launch is not the last to run.
template <bool kPlanted>
__global__ void order_of_blocks_kernel(const unsigned* in, unsigned* out) {
  const unsigned n = kBlocks * kThreads, i = blockIdx.x * kThreads + threadIdx.x;
  if (!kPlanted) {
    out[i] = in[i ^ (kThreads - 1)];
  } else if (blockIdx.x == kBlocks - 1) {
    for (unsigned j = threadIdx.x; j < n; j += kThreads) out[j] = in[j ^ (kThreads - 1)];
  } else {
    out[i] = 0;
  }
}

void wrong_results_show() {
  const auto check = [](Kernel right, Kernel planted, void (*do_job)(Values* values)) {
    CHECK(num_wrong(right, do_job) == 0);
    CHECK(num_wrong(planted, do_job) >= kSeeds / 2);
  };
  check(missing_barrier_kernel<false>, missing_barrier_kernel<true>, reverse<kThreads>);
  check(missing_barrier_before_write_kernel<false>, missing_barrier_before_write_kernel<true>,
        reverse<kThreads>);
  check(missing_warp_barrier_kernel<false>, missing_warp_barrier_kernel<true>, reverse<32>);
  check(uninitialised_kernel<false>, uninitialised_kernel<true>, sum);
  check(uninitialised_dynamic_kernel<false>, uninitialised_dynamic_kernel<true>, sum);
  check(order_of_blocks_kernel<false>, order_of_blocks_kernel<true>, reverse<kThreads>);
}

// --- Barriers that not all threads reach -------------------------------------------------------

template <bool kPlanted>
__global__ void divergent_barrier_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned[kThreads], values);
  const unsigned first = blockIdx.x * kThreads;
  values[threadIdx.x] = in[first + threadIdx.x];
  if (kPlanted && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[first + threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

template <bool kPlanted>
__global__ void exit_before_barrier_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned[kThreads], values);
  const unsigned first = blockIdx.x * kThreads;
  values[threadIdx.x] = in[first + threadIdx.x];
  if (kPlanted && threadIdx.x == 5) return;
  __syncthreads();
  out[first + threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

// Every round moves the values on by one, and all threads must take part in it.
template <bool kPlanted>
__global__ void barrier_in_loop_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned, total);
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (threadIdx.x == 0) total = 0;
  const unsigned rounds = kPlanted ? 1 + threadIdx.x / 32 : 2;
  for (unsigned round = 0; round < rounds; ++round) {
    __syncthreads();
    if (round == threadIdx.x / 32) atomicAdd(&total, in[i]);
  }
  __syncthreads();
  out[i] = total;
}

template <bool kPlanted>
__global__ void barrier_against_warp_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  const unsigned value = __shfl_xor_sync(~0u, in[i], 31);
  if (kPlanted && threadIdx.x % 32 < 7) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  out[i] = value;
}

void divergent_barriers_are_reported() {
  CHECK(num_wrong(divergent_barrier_kernel<false>, reverse<kThreads>) == 0);
  check_throws(divergent_barrier_kernel<true>, {"waits in __syncthreads at "});
  CHECK(num_wrong(exit_before_barrier_kernel<false>, reverse<kThreads>) == 0);
  check_throws(exit_before_barrier_kernel<true>,
               {"but thread (5, 0, 0) has exited", "thread (5, 0, 0) exits, while thread"});
  CHECK(num_wrong(barrier_in_loop_kernel<false>, sum) == 0);
  check_throws(barrier_in_loop_kernel<true>, {"waits in __syncthreads at "});
  CHECK(num_wrong(barrier_against_warp_kernel<false>, reverse<32>) == 0);
  check_throws(barrier_against_warp_kernel<true>, {"nobody can"});
}

// --- Lanes that do not take part, or should not ------------------------------------------------

template <bool kPlanted>
__global__ void excluded_lane_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  unsigned value = in[i];
  if (!kPlanted || threadIdx.x % 32 != 9) value = __shfl_xor_sync(~0u, value, 31);
  out[i] = value;
}

template <bool kPlanted>
__global__ void own_lane_excluded_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  out[i] = __shfl_xor_sync(kPlanted ? ~2u : ~0u, in[i], 31);
}

template <bool kPlanted>
__global__ void lane_outside_mask_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x, lane = threadIdx.x % 32;
  // Lane i reads lane 31 - i, so both must be in the same half.
  const unsigned ends = 0xff0000ff, half = kPlanted ? 0xffff : ends;
  const bool is_in_half = half >> lane & 1;
  out[i] = __shfl_xor_sync(is_in_half ? half : ~half, in[i], 31);
}

template <bool kPlanted>
__global__ void exited_lane_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x, lane = threadIdx.x % 32;
  const unsigned value = __shfl_xor_sync(~0u, in[i], 31);
  out[i] = value;
  if (lane == 0) return;
  const unsigned others = kPlanted ? ~0u : ~1u;
  if (__any_sync(others, value > 1000)) out[i] = 0;
}

template <bool kPlanted>
__global__ void different_masks_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x, lane = threadIdx.x % 32;
  const unsigned mask = kPlanted && lane >= 16 ? 0xffffff00 : ~0u;
  out[i] = __shfl_xor_sync(mask, in[i], lane % 16 < 8 ? 31 : kPlanted ? 1 : 31);
}

template <bool kPlanted>
__global__ void different_calls_kernel(const unsigned* in, unsigned* out) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (kPlanted && threadIdx.x % 2) {
    out[i] = __shfl_xor_sync(~0u, in[i], 31);
  } else {
    out[i] = __shfl_xor_sync(~0u, in[i], 31);
  }
}

void lanes_in_the_wrong_are_reported() {
  CHECK(num_wrong(excluded_lane_kernel<false>, reverse<32>) == 0);
  check_throws(excluded_lane_kernel<true>, {"has exited", "exits, while thread"});
  CHECK(num_wrong(own_lane_excluded_kernel<false>, reverse<32>) == 0);
  check_throws(own_lane_excluded_kernel<true>, {"does not name its own lane, 1", "lane 1, which"});
  CHECK(num_wrong(lane_outside_mask_kernel<false>, reverse<32>) == 0);
  check_throws(lane_outside_mask_kernel<true>, {", which the mask does not name"});
  CHECK(num_wrong(exited_lane_kernel<false>, reverse<32>) == 0);
  check_throws(exited_lane_kernel<true>, {"lane 0, which has exited", "exits, while thread"});
  CHECK(num_wrong(different_masks_kernel<false>, reverse<32>) == 0);
  check_throws(different_masks_kernel<true>, {"nobody can"});
  CHECK(num_wrong(different_calls_kernel<false>, reverse<32>) == 0);
  check_throws(different_calls_kernel<true>, {"nobody can"});
}

__global__ void vote_of_all_kernel(unsigned* out) { out[threadIdx.x] = __ballot_sync(~0u, 1); }

void lanes_that_do_not_exist_are_reported() {
  Values out(96);
  const auto launch = [&](unsigned num_threads) {
    return SA1B_LAUNCH(vote_of_all_kernel, 1, num_threads, 0, nullptr, out.data());
  };
  CHECK(launch(96) == cudaSuccess && out == Values(96, ~0u));
  std::string message;
  try {
    launch(40);
  } catch (const emulator::Bug& bug) {
    message = bug.what();
  }
  CHECK(message.find("lane 8, which does not exist") != std::string::npos);
}

// --- Launches ----------------------------------------------------------------------------------

template <unsigned kBytes>
__global__ void static_shared_kernel(const unsigned* in, unsigned* out) {
  SA1B_SHARED(unsigned[kBytes / sizeof(unsigned)], values);
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  values[threadIdx.x] = in[i];
  __syncthreads();
  out[i] = values[threadIdx.x ^ (kThreads - 1)];
}

void too_much_static_shared_memory_is_reported() {
  constexpr unsigned kDynamicBytes = kThreads * sizeof(unsigned), kMost = 48 << 10;
  CHECK(num_wrong(static_shared_kernel<kMost - kDynamicBytes>, reverse<kThreads>) == 0);
  check_throws(static_shared_kernel<kMost>, {"has no room for values"});
}

__global__ void mark_kernel(uint8_t* marks) { marks[blockIdx.y] = 1; }

// Masks along the second dimension of the grid are no mistake until there are 65536 of them.
void too_large_grids_are_reported() {
  for (const unsigned n : {65535u, 65536u}) {
    std::vector<uint8_t> marks(n);
    const bool fits =
        SA1B_LAUNCH(mark_kernel, dim3(1, n), 1, 0, nullptr, marks.data()) == cudaSuccess;
    CHECK(fits == (n == 65535));
    CHECK(std::count(marks.begin(), marks.end(), 1) == (fits ? n : 0));
  }
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
}

__global__ void launching_kernel() {
  if (SA1B_LAUNCH(launching_kernel, 1, 1, 0, nullptr) != cudaSuccess) return;
}

template <class Function>
std::string message_of(Function function) {
  try {
    function();
  } catch (const emulator::Bug& bug) {
    return bug.what();
  }
  return "";
}

void calls_in_the_wrong_place_are_reported() {
  CHECK(message_of([] { __syncthreads(); }) == "a function of kernels was called outside of one");
  CHECK(message_of([] { SA1B_LAUNCH(launching_kernel, 1, 1, 0, nullptr); }) ==
        "launching_kernel is launched by a kernel");
}

__global__ void one_lane_kernel() {
  if (blockIdx.y == 1 && threadIdx.x == 2) __syncwarp(1);
}

void messages_say_where() {
  emulator::set_seed(7);
  const std::string file = __FILE__, line = std::to_string(__LINE__ - 5);
  CHECK(message_of([] { SA1B_LAUNCH(one_lane_kernel, dim3(1, 2), 3, 0, nullptr); }) ==
        "one_lane_kernel, block (0, 1, 0): thread (2, 0, 0) calls __syncwarp at " + file + ":" +
            line + " with mask 0x1, which does not name its own lane, 2 (seed 7)");
}

}  // namespace
}  // namespace sa1b::test

int main() {
  using namespace sa1b::test;
  wrong_results_show();
  divergent_barriers_are_reported();
  lanes_in_the_wrong_are_reported();
  lanes_that_do_not_exist_are_reported();
  too_much_static_shared_memory_is_reported();
  too_large_grids_are_reported();
  calls_in_the_wrong_place_are_reported();
  messages_say_where();
}
