// The emulator's version of each CUDA function against what CUDA says of it.
#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cuda/launch_kernel.h"

namespace sa1b::test {
namespace {

constexpr uint64_t kSeeds = 8;

template <class Test>
void for_seeds(Test test) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    emulator::set_seed(seed);
    test(seed);
  }
}

__global__ void place_kernel(unsigned* visits) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(&visits[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
}

void every_thread_of_every_block_runs_once() {
  for_seeds([](uint64_t) {
    std::vector<unsigned> visits(3 * 5 * 2 * 33 * 3 * 2);
    CHECK(SA1B_LAUNCH(place_kernel, dim3(3, 5, 2), dim3(33, 3, 2), 0, nullptr, visits.data()) ==
          cudaSuccess);
    CHECK(std::all_of(visits.begin(), visits.end(), [](unsigned n) { return n == 1; }));
  });
}

__global__ void order_kernel(unsigned* order, unsigned* next) {
  order[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}

std::vector<unsigned> order_of_threads(uint64_t seed, unsigned num_blocks, unsigned num_threads) {
  emulator::set_seed(seed);
  std::vector<unsigned> order(num_blocks * num_threads);
  unsigned next = 0;
  CHECK(SA1B_LAUNCH(order_kernel, num_blocks, num_threads, 0, nullptr, order.data(), &next) ==
        cudaSuccess);
  return order;
}

void orders_depend_on_the_seed() {
  for (const auto& [blocks, threads] : {std::array{1u, 64u}, std::array{64u, 1u}}) {
    const std::vector<unsigned> order = order_of_threads(1, blocks, threads);
    CHECK(order == order_of_threads(1, blocks, threads));
    CHECK(order != order_of_threads(2, blocks, threads));
    CHECK(!std::is_sorted(order.begin(), order.end()));
  }
}

template <class T>
__global__ void shuffle_kernel(const T* in, T* out, int argument, int width) {
  const unsigned lane = threadIdx.x;
  const T value = in[lane];
  out[lane] = __shfl_sync(~0u, value, argument, width);
  out[32 + lane] = __shfl_up_sync(~0u, value, static_cast<unsigned>(argument), width);
  out[64 + lane] = __shfl_down_sync(~0u, value, static_cast<unsigned>(argument), width);
  out[96 + lane] = __shfl_xor_sync(~0u, value, argument, width);
}

template <class T>
void shuffles() {
  for_seeds([](uint64_t seed) {
    Random random(seed);
    std::vector<T> in(32), out(4 * 32);
    for (T& value : in) value = static_cast<T>(random.bits() >> 3);
    for (const int width : {1, 2, 8, 32}) {
      for (int argument = 0; argument < 32; ++argument) {
        CHECK(SA1B_LAUNCH(shuffle_kernel<T>, 1, 32, 0, nullptr, in.data(), out.data(), argument,
                          width) == cudaSuccess);
        for (int lane = 0; lane < 32; ++lane) {
          const int first = lane / width * width, last = first + width - 1;
          CHECK(out[lane] == in[first + argument % width]);
          CHECK(out[32 + lane] == in[lane - argument < first ? lane : lane - argument]);
          CHECK(out[64 + lane] == in[lane + argument > last ? lane : lane + argument]);
          CHECK(out[96 + lane] == in[(lane ^ argument) > last ? lane : lane ^ argument]);
        }
      }
    }
  });
}

__global__ void vote_kernel(const int* predicates, unsigned* out) {
  const unsigned thread = threadIdx.x, lane = thread & 31;
  // Lanes of three groups at once, each in calls of its own.
  const unsigned mask = lane < 5 ? 0x1f : lane & 1 ? 0xaaaaaaa0 : 0x55555540;
  for (int round = 0; round < 3; ++round) {
    const int predicate = predicates[32 * round + lane];
    unsigned* const row = out + 3 * (blockDim.x * round + thread);
    row[0] = __ballot_sync(mask, predicate);
    row[1] = static_cast<unsigned>(__any_sync(mask, predicate));
    row[2] = static_cast<unsigned>(__all_sync(mask, predicate));
    __syncwarp(mask);
    __syncwarp();
  }
}

void votes() {
  for_seeds([](uint64_t seed) {
    Random random(seed);
    std::vector<int> predicates(3 * 32);
    for (int& predicate : predicates) predicate = random.below(4) ? 1 << random.below(31) : 0;
    std::vector<unsigned> out(3 * 3 * 64);
    CHECK(SA1B_LAUNCH(vote_kernel, 1, 64, 0, nullptr, predicates.data(), out.data()) ==
          cudaSuccess);
    for (unsigned i = 0; i < 3 * 64; ++i) {
      const unsigned lane = i % 32, round = i / 64;
      const unsigned mask = lane < 5 ? 0x1f : lane & 1 ? 0xaaaaaaa0 : 0x55555540;
      unsigned votes = 0;
      for (unsigned j = 0; j < 32; ++j) votes |= (predicates[32 * round + j] != 0 ? 1u : 0) << j;
      CHECK(out[3 * i] == (votes & mask));
      CHECK(out[3 * i + 1] == ((votes & mask) != 0));
      CHECK(out[3 * i + 2] == ((votes & mask) == mask));
    }
  });
}

__global__ void barrier_kernel(const int* predicates, int* out) {
  for (unsigned round = 0; round < 4; ++round) {
    const unsigned i = blockDim.x * round + threadIdx.x;
    out[3 * i] = __syncthreads_count(predicates[i]);
    out[3 * i + 1] = __syncthreads_or(predicates[i]);
    out[3 * i + 2] = __syncthreads_and(predicates[i]);
  }
}

void barriers_that_count() {
  for_seeds([](uint64_t seed) {
    Random random(seed);
    const int n = 70;
    std::vector<int> predicates(4 * n), out(4 * 3 * n);
    for (int i = 0; i < 4 * n; ++i) {
      predicates[i] = i < n ? 0 : i < 2 * n ? -1 : static_cast<int>(random.below(3));
    }
    CHECK(SA1B_LAUNCH(barrier_kernel, 1, n, 0, nullptr, predicates.data(), out.data()) ==
          cudaSuccess);
    for (int i = 0; i < 4 * n; ++i) {
      const auto begin = predicates.begin() + i / n * n;
      const auto count = n - std::count(begin, begin + n, 0);
      CHECK(out[3 * i] == count && !out[3 * i + 1] == !count && !out[3 * i + 2] == (count != n));
    }
  });
}

// Inclusive sums of a block: in each warp by shuffles, over the warps through shared memory.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) scan_kernel(const T* in, T* out) {
  SA1B_SHARED(T[kThreads / 32], totals);
  const unsigned thread = threadIdx.x, lane = thread & 31, i = blockIdx.x * kThreads + thread;
  T sum = in[i];
  for (unsigned d = 1; d < 32; d <<= 1) {
    const T before = __shfl_up_sync(~0u, sum, d);
    if (lane >= d) sum += before;
  }
  if (lane == 31) totals[thread >> 5] = sum;
  __syncthreads();
  for (unsigned warp = 0; warp < thread >> 5; ++warp) sum += totals[warp];
  out[i] = sum;
}

template <class T>
void scans() {
  for_seeds([](uint64_t seed) {
    Random random(seed);
    std::vector<T> in(5 * 1024), out(in.size()), expected(in.size());
    for (T& value : in) value = static_cast<T>(random.below(1000));
    CHECK(SA1B_LAUNCH((scan_kernel<T, 1024>), 5, 1024, 0, nullptr, in.data(), out.data()) ==
          cudaSuccess);
    for (size_t block = 0; block < 5; ++block) {
      const auto begin = in.begin() + 1024 * block;
      std::partial_sum(begin, begin + 1024, expected.begin() + 1024 * block);
    }
    CHECK(out == expected);
  });
}

__global__ void transpose_kernel(const float* in, float* out, unsigned n) {
  SA1B_SHARED(float[32][33], tile);
  const unsigned x = blockIdx.x * 32, y = blockIdx.y * 32;
  for (unsigned row = threadIdx.y; row < 32; row += blockDim.y) {
    if (y + row < n && x + threadIdx.x < n) {
      tile[row][threadIdx.x] = in[(y + row) * n + x + threadIdx.x];
    }
  }
  __syncthreads();
  for (unsigned row = threadIdx.y; row < 32; row += blockDim.y) {
    if (x + row < n && y + threadIdx.x < n) {
      out[(x + row) * n + y + threadIdx.x] = tile[threadIdx.x][row];
    }
  }
}

__global__ void transpose_bits_kernel(unsigned* words) {
  const unsigned lane = threadIdx.x;
  unsigned x = words[lane];
  unsigned low = 0xffff;
  for (unsigned j = 16; j; j >>= 1, low ^= low << j) {
    const unsigned other = __shfl_xor_sync(~0u, x, static_cast<int>(j));
    x = lane & j ? (x & ~low) | (other >> j & low) : (x & low) | (other & low) << j;
  }
  words[lane] = x;
}

void transposes() {
  for_seeds([](uint64_t seed) {
    Random random(seed);
    const unsigned n = 67;
    std::vector<float> in(n * n), out(n * n);
    std::iota(in.begin(), in.end(), 0.0f);
    CHECK(SA1B_LAUNCH(transpose_kernel, dim3(3, 3), dim3(32, 8), 0, nullptr, in.data(), out.data(),
                      n) == cudaSuccess);
    for (unsigned i = 0; i < n * n; ++i) CHECK(out[i] == in[i % n * n + i / n]);

    std::vector<unsigned> before(32);
    for (unsigned& word : before) word = static_cast<unsigned>(random.bits());
    std::vector<unsigned> after = before;
    CHECK(SA1B_LAUNCH(transpose_bits_kernel, 1, 32, 0, nullptr, after.data()) == cudaSuccess);
    for (unsigned i = 0; i < 32 * 32; ++i) {
      CHECK((after[i / 32] >> i % 32 & 1) == (before[i % 32] >> i / 32 & 1));
    }
  });
}

template <class T>
struct Atomics {
  T add, least, most, all, any, odd, last, claimed;
};

template <class T>
__global__ void atomics_kernel(const T* in, Atomics<T>* out) {
  SA1B_SHARED(Atomics<T>, of_block);
  if (threadIdx.x == 0) of_block = *out;
  __syncthreads();
  const T value = in[threadIdx.x];
  atomicAdd(&of_block.add, value);
  atomicMin(&of_block.least, value);
  atomicMax(&of_block.most, value);
  atomicAnd(&of_block.all, value);
  atomicOr(&of_block.any, value);
  atomicXor(&of_block.odd, value);
  atomicExch(&of_block.last, value);
  if (atomicCAS(&of_block.claimed, 0, value) == 0) atomicAdd(&of_block.add, 1);
  __syncthreads();
  if (threadIdx.x == 0) *out = of_block;
}

template <class T>
void atomics() {
  for_seeds([](uint64_t seed) {
    Random random(seed);
    std::vector<T> in(100);
    for (T& value : in) value = static_cast<T>(random.bits() >> 8 & 0x00ffffff) | 1;
    Atomics<T> out = {0, std::numeric_limits<T>::max(), 0, ~T{0}, 0, 0, 0, 0};
    CHECK(SA1B_LAUNCH(atomics_kernel<T>, 1, 100, 0, nullptr, in.data(), &out) == cudaSuccess);
    Atomics<T> expected = {1, in[0], in[0], ~T{0}, 0, 0, out.last, out.claimed};
    for (const T value : in) {
      expected.add += value;
      expected.least = std::min(expected.least, value);
      expected.most = std::max(expected.most, value);
      expected.all &= value;
      expected.any |= value;
      expected.odd ^= value;
    }
    CHECK(memcmp(&out, &expected, sizeof(out)) == 0);
    CHECK(std::count(in.begin(), in.end(), out.last) > 0);
    CHECK(std::count(in.begin(), in.end(), out.claimed) > 0);
  });
}

template <int kVersion>
__global__ void reverse_kernel(const uint32_t* in, uint32_t* out, unsigned n) {
  SA1B_DYNAMIC_SHARED(uint32_t, words);
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) words[i] = in[i];
  __syncthreads();
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) out[i] = words[n - 1 - i];
}

void dynamic_shared_memory_has_limits() {
  std::vector<uint32_t> in(227 << 8), out(in.size());
  std::iota(in.begin(), in.end(), 0u);
  const auto launch = [&](auto* kernel, size_t num_bytes) {
    return SA1B_LAUNCH(kernel, 1, 128, num_bytes, nullptr, in.data(), out.data(),
                       static_cast<unsigned>(num_bytes / 4));
  };
  CHECK(launch(reverse_kernel<0>, 48 << 10) == cudaSuccess);
  CHECK(out[0] == (48 << 8) - 1 && out[(48 << 8) - 1] == 0);
  CHECK(launch(reverse_kernel<0>, (48 << 10) + 1) == cudaErrorInvalidValue);
  const auto raise = [&](int num_bytes) {
    return cudaFuncSetAttribute(reverse_kernel<0>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                num_bytes);
  };
  CHECK(raise((227 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(raise(100 << 10) == cudaSuccess);
  CHECK(launch(reverse_kernel<0>, 100 << 10) == cudaSuccess);
  CHECK(launch(reverse_kernel<0>, (100 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(raise(227 << 10) == cudaSuccess);
  CHECK(launch(reverse_kernel<0>, 227 << 10) == cudaSuccess);
  CHECK(out[0] == (227 << 8) - 1 && out[(227 << 8) - 1] == 0);
  // Each kernel has a limit of its own.
  CHECK(launch(reverse_kernel<1>, (48 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
}

__global__ void empty_kernel() {}

void launches_have_limits() {
  const auto launch = [](dim3 grid, dim3 block) {
    const cudaError_t error = SA1B_LAUNCH(empty_kernel, grid, block, 0, nullptr);
    CHECK(cudaPeekAtLastError() == error);
    CHECK(cudaGetLastError() == error);
    CHECK(cudaGetLastError() == cudaSuccess);
    return error;
  };
  CHECK(launch(70000, 1) == cudaSuccess);
  CHECK(launch(dim3(1, 65535), 1) == cudaSuccess);
  CHECK(launch(dim3(1, 1, 65535), 1) == cudaSuccess);
  CHECK(launch(1, 1024) == cudaSuccess);
  CHECK(launch(1, dim3(1, 1024)) == cudaSuccess);
  CHECK(launch(1, dim3(4, 4, 64)) == cudaSuccess);
  for (const dim3 grid :
       {dim3(0), dim3(1, 0), dim3(1, 1, 0), dim3(0x80000000), dim3(1, 65536), dim3(1, 1, 65536)}) {
    CHECK(launch(grid, 1) == cudaErrorInvalidConfiguration);
  }
  for (const dim3 block : {dim3(0), dim3(1, 0), dim3(1, 1, 0), dim3(1025), dim3(1, 1025),
                           dim3(1, 1, 65), dim3(33, 32), dim3(0x80000000, 2)}) {
    CHECK(launch(1, block) == cudaErrorInvalidConfiguration);
  }
}

__global__ void bits_kernel(uint64_t* out) {
  const uint64_t results[] = {
      static_cast<uint64_t>(__popc(0xf0f00001)),
      static_cast<uint64_t>(__popcll(~0ull)),
      static_cast<uint64_t>(__clz(0)),
      static_cast<uint64_t>(__clz(1)),
      static_cast<uint64_t>(__clzll(0)),
      static_cast<uint64_t>(__clzll(-1)),
      static_cast<uint64_t>(__ffs(0)),
      static_cast<uint64_t>(__ffs(0x50)),
      static_cast<uint64_t>(__ffsll(0)),
      static_cast<uint64_t>(__ffsll(1ll << 40)),
      __brev(0x12345678),
      __byte_perm(0x33221100, 0x77665544, 0x7531),
      __funnelshift_r(0x89abcdef, 0x01234567, 8),
      __funnelshift_l(0x89abcdef, 0x01234567, 8),
      __funnelshift_r(1, 2, 32),
      __funnelshift_l(1, 2, 32),
      __umulhi(0xffffffff, 0xffffffff),
      __umul64hi(~0ull, 3),
      static_cast<uint64_t>(min(3, -2) + max(2, 40)),
      min(3u, 4u) + max(3ull, 4ull),
  };
  for (const uint64_t result : results) *out++ = result;
}

__global__ void numbers_kernel(double* out) {
  out[0] = __ull2double_rn((1ull << 53) + 1);
  out[1] = __double2float_rn(__ddiv_rn(1, 3));
  out[2] = __fdiv_rn(__fadd_rn(1, 2), __fmul_rn(3, 3));
}

void arithmetic() {
  const std::vector<uint64_t> bits = {
      9,          64,         32,         31,         64, 0, 0,          5, 0,  41,
      0x1e6a2c48, 0x77553311, 0x6789abcd, 0x23456789, 1,  2, 0xfffffffe, 2, 38, 7};
  std::vector<uint64_t> out(bits.size());
  CHECK(SA1B_LAUNCH(bits_kernel, 1, 1, 0, nullptr, out.data()) == cudaSuccess);
  CHECK(out == bits);
  double numbers[3];
  CHECK(SA1B_LAUNCH(numbers_kernel, 1, 1, 0, nullptr, numbers) == cudaSuccess);
  CHECK(numbers[0] == 9007199254740992.0);
  CHECK(numbers[1] == 1.0f / 3 && numbers[2] == 1.0f / 3);
  CHECK(sizeof(uint4) == 16 && alignof(uint4) == 16 && alignof(uint2) == 8);
}

void runtime_functions() {
  std::array<uint8_t, 4> a{}, b{};
  CHECK(cudaMemsetAsync(a.data(), 0x17, 3, nullptr) == cudaSuccess);
  CHECK(cudaMemcpyAsync(b.data(), a.data(), 4, cudaMemcpyDeviceToDevice, nullptr) == cudaSuccess);
  CHECK((b == std::array<uint8_t, 4>{0x17, 0x17, 0x17, 0}));
  int value = -1;
  CHECK(cudaSetDevice(0) == cudaSuccess && cudaGetDevice(&value) == cudaSuccess && value == 0);
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
  CHECK(value == 227 << 10);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(std::string(cudaGetErrorString(cudaErrorInvalidDevice)) == "invalid device ordinal");
}

void host_threads_launch_at_once() {
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    threads.emplace_back([seed] {
      emulator::set_seed(seed);
      const std::vector<unsigned> ones(20 * 64, 1);
      std::vector<unsigned> sums(ones.size());
      CHECK(SA1B_LAUNCH((scan_kernel<unsigned, 64>), 20, 64, 0, nullptr, ones.data(),
                        sums.data()) == cudaSuccess);
      for (unsigned i = 0; i < sums.size(); ++i) CHECK(sums[i] == i % 64 + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sa1b::test

int main() {
  using namespace sa1b::test;
  every_thread_of_every_block_runs_once();
  orders_depend_on_the_seed();
  shuffles<int>();
  shuffles<unsigned long long>();
  shuffles<float>();
  shuffles<double>();
  votes();
  barriers_that_count();
  scans<unsigned>();
  scans<double>();
  transposes();
  atomics<int>();
  atomics<unsigned>();
  atomics<unsigned long long>();
  dynamic_shared_memory_has_limits();
  launches_have_limits();
  arithmetic();
  runtime_functions();
  host_threads_launch_at_once();
}
