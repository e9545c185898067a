// Runs CUDA kernels on the CPU, so that they are tested where there is no GPU. Kernels include
// cuda/launch_kernel.h, which includes this file in nvcc's place.
//
// Every CUDA thread has a stack of its own. One runs at a time, until it waits for others; who goes
// on next is drawn from a seed, and so is the order of the blocks, which run one after another. All
// happens in the host thread that launches, before the launch returns; streams mean nothing.
//
// Shared memory is declared with SA1B_SHARED and SA1B_DYNAMIC_SHARED. Plain __shared__ does not
// exist: all that a macro could make of it is a static variable, and those cannot all be found to
// be filled before each block, as GCC ignores section attributes in templates. Each variable has an
// allocation of its own, so AddressSanitizer sees what lies outside it.
//
// A mistake throws a Bug, which names kernel, block, thread, line and seed:
// * threads of a block at different barriers, or at one that others do not reach, having exited;
// * lanes of a warp in different calls or with different masks, a mask without the calling lane or
//   with one that has exited or never existed, a shuffle that reads a lane outside the mask;
// * a deadlock, a call outside of a kernel, more shared memory than a block can have.
// CUDA is more lenient with barriers and masks where threads have exited. What a launch may ask for
// is as on a GPU (compute capability 9.0), with CUDA's error codes.
//
// Results are wrong, for some seeds, where a barrier is missing, or where shared memory is read
// before it is written: it is full of random bits when a block starts. A thread is interrupted only
// where it waits, though, so not every race shows. Built with -fsanitize=thread (SA1B_SANITIZE in
// CMakeLists.txt), all of them do that are between threads of one block: accesses to shared or
// global memory that are not atomic, and that no barrier, __syncwarp or __threadfence orders.
//
// Unseen are races between blocks, unless their order changes results; the order in which a write
// becomes visible to others; and all of time, bank conflicts, registers, __launch_bounds__ and
// asynchronous execution. Blocks that wait for one another hang. What is not declared here does not
// exist: __activemask, TMA, cooperative groups and so on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

// NOLINTBEGIN(bugprone-reserved-identifier,performance-enum-size): all names from here are CUDA's
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// --- Types -------------------------------------------------------------------------------------

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  // NOLINTNEXTLINE(google-explicit-constructor)
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) noexcept
      : x(x_), y(y_), z(z_) {}
};

#define SA1B_VECTOR_TYPES(type, name)                              \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };         \
  struct alignas(16) name##4 { type x, y, z, w; };                 \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SA1B_VECTOR_TYPES(int, int)
SA1B_VECTOR_TYPES(unsigned, uint)
SA1B_VECTOR_TYPES(float, float)
#undef SA1B_VECTOR_TYPES

struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

constexpr int warpSize = 32;

// --- The runtime's functions -------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
using cudaStream_t = struct CUstream_st*;

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaSetDevice(int device);  // there is only device 0
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

// NOLINTEND(bugprone-reserved-identifier,performance-enum-size)

// --- The emulator ------------------------------------------------------------------------------

namespace sa1b::emulator {

// What a kernel did wrong. Its launch throws it; the emulator stays usable.
class Bug : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Orders of the launches that follow in this host thread: the same seed, the same orders.
void set_seed(uint64_t seed);

// Where the kernels are that were launched since this was last asked.
std::set<const void*> take_launched();

struct Line {
  const char* file;
  int number;

  // As a default argument, the line of the call.
  static constexpr Line here(const char* file = __builtin_FILE(), int number = __builtin_LINE()) {
    return {file, number};
  }
};

// Where the running thread is: CUDA's built-in variables.
struct Place {
  uint3 thread, block;
  dim3 threads, blocks;
};
inline thread_local Place place;

struct Kernel {
  const char* name;
  const void* address;
  void (*run)(const void* arguments);
  const void* arguments;
};
cudaError_t launch(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamic_bytes);

template <class... Parameters, class... Arguments>
cudaError_t launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                   size_t dynamic_bytes, cudaStream_t /*stream*/, Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                "copied to the GPU byte by byte");
  using Call = std::tuple<void (*)(Parameters...), Parameters...>;
  const Call call(kernel, static_cast<Parameters>(arguments)...);
  const auto run = [](const void* arguments_of_call) {
    std::apply([](auto function, const auto&... values) { function(values...); },
               *static_cast<const Call*>(arguments_of_call));
  };
  return launch(Kernel{name, reinterpret_cast<const void*>(kernel), run, &call}, grid, block,
                dynamic_bytes);
}

// A declaration of shared memory in a kernel, of which each block has its own.
class SharedVariable {
 public:
  SharedVariable(const char* name, size_t num_bytes);

  template <class T>
  T& of_this_block() const {
    static_assert(std::is_trivial_v<std::remove_all_extents_t<T>>, "has no initial value");
    static_assert(alignof(T) <= 16);
    return *static_cast<T*>(memory_of_this_block());
  }

 private:
  void* memory_of_this_block() const;

  const char* name_;
  size_t num_bytes_, index_;
};
void* dynamic_shared();

// Waits for all threads of the block. Returns for how many of them the predicate is true.
unsigned meet_block(const char* call, Line line, bool predicate);

// Waits for all lanes in the mask. Returns the value that lane `source` brought.
uint64_t meet_warp(const char* call, Line line, unsigned mask, uint64_t value, int source);
// Waits for all lanes in the mask. Returns those for which the predicate is true.
unsigned meet_warp_ballot(const char* call, Line line, unsigned mask, bool predicate);

// Waits for all lanes in the mask, and orders what they do in memory. Calls that only exchange
// values do not, here as in CUDA.
void sync_warp(Line line, unsigned mask);
void fence();

// This thread's number in its warp.
int lane();

template <class T>
T shuffle(const char* call, Line line, unsigned mask, T value, int source) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "CUDA shuffles 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = meet_warp(call, line, mask, bits, source);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// Replaces a value as one step, as everything is that does not wait. That loads and stores are
// atomic by themselves is for ThreadSanitizer to see.
template <class T, class... Allowed, class Update>
T atomic(T* address, Update update) {
  static_assert((std::is_same_v<T, Allowed> || ...), "CUDA has no such atomic for this type");
  T old, updated;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  updated = update(old);
  __atomic_store(address, &updated, __ATOMIC_RELAXED);
  return old;
}

}  // namespace sa1b::emulator

#define threadIdx (::sa1b::emulator::place.thread)
#define blockIdx (::sa1b::emulator::place.block)
#define blockDim (::sa1b::emulator::place.threads)
#define gridDim (::sa1b::emulator::place.blocks)

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's names again

// --- Barriers, votes and shuffles --------------------------------------------------------------

inline void __syncthreads(sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  sa1b::emulator::meet_block("__syncthreads", line, false);
}
inline int __syncthreads_count(int predicate,
                               sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  return static_cast<int>(sa1b::emulator::meet_block("__syncthreads_count", line, predicate != 0));
}
inline int __syncthreads_or(int predicate,
                            sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  return sa1b::emulator::meet_block("__syncthreads_or", line, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate,
                             sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  return sa1b::emulator::meet_block("__syncthreads_and", line, predicate == 0) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffff,
                       sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  sa1b::emulator::sync_warp(line, mask);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  return sa1b::emulator::meet_warp_ballot("__ballot_sync", line, mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate,
                      sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  return sa1b::emulator::meet_warp_ballot("__any_sync", line, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  return sa1b::emulator::meet_warp_ballot("__all_sync", line, mask, predicate == 0) == 0;
}

// `width` splits the warp into groups of that many lanes, a power of two. A lane whose source would
// lie outside its group keeps its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  const int group = sa1b::emulator::lane() & ~(width - 1);
  return sa1b::emulator::shuffle("__shfl_sync", line, mask, value, group | (source & (width - 1)));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  const int lane = sa1b::emulator::lane(), in_group = lane & (width - 1);
  const int source =
      delta > static_cast<unsigned>(in_group) ? lane : lane - static_cast<int>(delta);
  return sa1b::emulator::shuffle("__shfl_up_sync", line, mask, value, source);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  const int lane = sa1b::emulator::lane(), in_group = lane & (width - 1);
  const bool inside = delta < static_cast<unsigned>(width - in_group);
  return sa1b::emulator::shuffle("__shfl_down_sync", line, mask, value,
                                 inside ? lane + static_cast<int>(delta) : lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  sa1b::emulator::Line line = sa1b::emulator::Line::here()) {
  const int lane = sa1b::emulator::lane(), source = lane ^ lane_mask;
  const int group_end = (lane & ~(width - 1)) + width;  // groups before this one can be read
  return sa1b::emulator::shuffle("__shfl_xor_sync", line, mask, value,
                                 source < group_end ? source : lane);
}

inline void __threadfence() { sa1b::emulator::fence(); }
inline void __threadfence_block() { sa1b::emulator::fence(); }

// --- Atomics: the types that CUDA has them for, of which uint64_t is none on Linux
// ----------------

#define SA1B_ATOMIC(name, expression, ...)                           \
  template <class T>                                                 \
  T name(T* address, std::common_type_t<T> value) {                  \
    return sa1b::emulator::atomic<T, __VA_ARGS__>(                   \
        address, [&](T old) { return static_cast<T>(expression); }); \
  }
SA1B_ATOMIC(atomicAdd, old + value, int, unsigned, unsigned long long, float, double)
SA1B_ATOMIC(atomicSub, old - value, int, unsigned)
SA1B_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
SA1B_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, unsigned long long)
SA1B_ATOMIC(atomicAnd, old& value, int, unsigned, unsigned long long)
SA1B_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
SA1B_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
SA1B_ATOMIC(atomicExch, ((void)old, value), int, unsigned, unsigned long long, float)
#undef SA1B_ATOMIC

template <class T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return sa1b::emulator::atomic<T, int, unsigned, unsigned long long>(
      address, [&](T old) { return old == expected ? value : old; });
}

// --- Arithmetic --------------------------------------------------------------------------------

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return result;
}
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) result |= (x >> i & 1) << (31 - i);
  return result;
}
// The high, or low, 32 bits of hi:lo shifted; `shift` counts modulo 32.
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
  return static_cast<unsigned>((uint64_t{hi} << 32 | lo) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
  return static_cast<unsigned>((uint64_t{hi} << 32 | lo) >> (shift & 31));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(Wide{a} * b >> 64);
}

inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

// Loads and stores that tell the caches what to expect.
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}
// NOLINTEND(bugprone-reserved-identifier)
