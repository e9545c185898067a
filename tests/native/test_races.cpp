// Whether ThreadSanitizer finds the races between the threads of a block on the emulator, and no
// others. Built for it alone.
#include <vector>

#include "check.h"
#include "cuda/launch_kernel.h"

namespace {
int num_reports = 0;
}  // namespace

// ThreadSanitizer calls this for each race, and asks for options when it starts.
extern "C" void __tsan_on_report(void* /*report*/) { ++num_reports; }
extern "C" const char* __tsan_default_options() { return "exitcode=0"; }

namespace sa1b::test {
namespace {

constexpr unsigned kThreads = 64;

template <bool kPlanted>
__global__ void block_barrier_kernel(unsigned* values) {
  SA1B_SHARED(unsigned[kThreads], reversed);
  reversed[kThreads - 1 - threadIdx.x] = values[threadIdx.x];
  if (!kPlanted) __syncthreads();
  values[threadIdx.x] = reversed[threadIdx.x];
}

// An exchange of values is no barrier for memory.
template <bool kPlanted>
__global__ void warp_barrier_kernel(unsigned* values) {
  SA1B_DYNAMIC_SHARED(unsigned, sums);
  sums[threadIdx.x] = __shfl_xor_sync(~0u, values[threadIdx.x], 1);
  if (kPlanted) {
    __ballot_sync(~0u, 1);
  } else {
    __syncwarp();
  }
  values[threadIdx.x] = sums[threadIdx.x ^ 1];
}

// The results would be right in any order of whole threads.
template <bool kPlanted>
__global__ void sum_kernel(unsigned* values) {
  SA1B_SHARED(unsigned, sum);
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (kPlanted) {
    sum += values[threadIdx.x];
  } else {
    atomicAdd(&sum, values[threadIdx.x]);
  }
  __syncthreads();
  values[threadIdx.x] = sum;
}

template <bool kPlanted>
__global__ void one_output_kernel(unsigned* values) {
  if (kPlanted || threadIdx.x == 0) values[0] = 1;
}

// The last thread to write its value adds up all of them.
template <bool kPlanted>
__global__ void last_thread_kernel(unsigned* values) {
  SA1B_SHARED(unsigned[kThreads], written);
  SA1B_SHARED(unsigned, num_written);
  if (threadIdx.x == 0) num_written = 0;
  __syncthreads();
  written[threadIdx.x] = values[threadIdx.x];
  if (!kPlanted) __threadfence_block();
  if (atomicAdd(&num_written, 1) < kThreads - 1) return;
  if (!kPlanted) __threadfence_block();
  unsigned sum = 0;
  for (const unsigned value : written) sum += value;
  values[0] = sum;
}

int num_races(void (*kernel)(unsigned* values)) {
  num_reports = 0;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    emulator::set_seed(seed);
    std::vector<unsigned> values(kThreads, 1);
    CHECK(SA1B_LAUNCH(kernel, 1, kThreads, kThreads * sizeof(unsigned), nullptr, values.data()) ==
          cudaSuccess);
  }
  return num_reports;
}

}  // namespace
}  // namespace sa1b::test

int main() {
  using namespace sa1b::test;
  CHECK(num_races(block_barrier_kernel<false>) == 0);
  CHECK(num_races(block_barrier_kernel<true>) > 0);
  CHECK(num_races(warp_barrier_kernel<false>) == 0);
  CHECK(num_races(warp_barrier_kernel<true>) > 0);
  CHECK(num_races(sum_kernel<false>) == 0);
  CHECK(num_races(sum_kernel<true>) > 0);
  CHECK(num_races(one_output_kernel<false>) == 0);
  CHECK(num_races(one_output_kernel<true>) > 0);
  CHECK(num_races(last_thread_kernel<false>) == 0);
  CHECK(num_races(last_thread_kernel<true>) > 0);
}
