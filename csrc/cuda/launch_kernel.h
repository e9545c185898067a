// How kernels declare shared memory and are launched, the same for nvcc and for the emulator that
// runs them on the CPU in tests. Every .cu file includes this instead of CUDA's own headers.
//
//     SA1B_SHARED(uint32_t[kWarps], totals);     uint32_t (&totals)[kWarps], one for the block
//     SA1B_DYNAMIC_SHARED(uint32_t, words);      uint32_t* words, 16-byte aligned: what the launch
//                                                asked for
//     cudaError_t error = SA1B_LAUNCH(some_kernel, grid, block, shared_bytes, stream,
//     arguments...);
//
// A kernel whose template arguments have commas is launched in parentheses: (kernel<A, B>).
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <utility>

#define SA1B_SHARED(type, name) __shared__::sa1b::cuda::Identity<type> name
#define SA1B_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char sa1b_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(sa1b_dynamic_shared)
#define SA1B_LAUNCH(kernel, ...) ::sa1b::cuda::launch(kernel, __VA_ARGS__)

namespace sa1b::cuda {

template <class T>
using Identity = T;

// Returns the error of this launch alone, where <<<>>> leaves it to be asked for.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace sa1b::cuda

#else
#include "cuda_on_cpu.h"
#endif
