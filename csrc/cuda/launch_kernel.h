// How kernels declare shared memory and are launched, alike for nvcc and for the emulator that runs
// them on the CPU in tests. A .cu file includes this in place of CUDA's headers.
//
//     SA1B_SHARED(uint32_t[kWarps], totals);    like __shared__ uint32_t totals[kWarps]
//     SA1B_DYNAMIC_SHARED(uint32_t, words);     a uint32_t* to what the launch asked for
//     const cudaError_t error = SA1B_LAUNCH(kernel, grid, block, dynamic_bytes, stream, ...);
//
// Both kinds of memory are aligned to 16 bytes at most. A kernel with several template arguments is
// launched in parentheses: (kernel<A, B>).
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <utility>

#define SA1B_SHARED(type, name) __shared__::sa1b::cuda::Same<type> name
#define SA1B_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char sa1b_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(sa1b_dynamic_shared)
#define SA1B_LAUNCH(kernel, ...) ::sa1b::cuda::launch(kernel, __VA_ARGS__)

namespace sa1b::cuda {

// Returns the error of this very launch, where <<<>>> leaves it to be asked for.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace sa1b::cuda

#else

#include "cuda_on_cpu.h"

#define SA1B_SHARED(type, name)                                                       \
  static const ::sa1b::emulator::SharedVariable name##_variable(#name, sizeof(type)); \
  auto& name = name##_variable.of_this_block<::sa1b::cuda::Same<type>>()
#define SA1B_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::sa1b::emulator::dynamic_shared())
#define SA1B_LAUNCH(kernel, ...) ::sa1b::emulator::launch(#kernel, kernel, __VA_ARGS__)

#endif

namespace sa1b::cuda {

// Writes a type in one piece: `uint32_t[4] name` is no declaration, `Same<uint32_t[4]> name` is.
template <class T>
using Same = T;

}  // namespace sa1b::cuda
