// The functions of CUDA's runtime that launchers call, and what a launch may ask for.
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "cuda_on_cpu.h"
#include "cuda_on_cpu/run_blocks.h"

namespace {

// As of compute capability 9.0; the default holds for all.
constexpr size_t kDefaultSharedBytes = 48 << 10;
constexpr size_t kMaxSharedBytes = 227 << 10;
constexpr int kMultiProcessors = 4;

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t record(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// What cudaFuncSetAttribute has set, by kernel.
std::mutex max_dynamic_bytes_mutex;
std::unordered_map<const void*, size_t> max_dynamic_bytes;

bool raised(const void* kernel, size_t* bytes) {
  const std::lock_guard<std::mutex> lock(max_dynamic_bytes_mutex);
  const auto found = max_dynamic_bytes.find(kernel);
  if (found == max_dynamic_bytes.end()) return false;
  *bytes = found->second;
  return true;
}

std::mutex launched_mutex;
std::set<const void*> launched;

bool valid(dim3 grid, dim3 block) {
  const auto within = [](dim3 size, unsigned x, unsigned y, unsigned z) {
    return size.x >= 1 && size.y >= 1 && size.z >= 1 && size.x <= x && size.y <= y && size.z <= z;
  };
  return within(grid, 0x7fffffff, 65535, 65535) && within(block, 1024, 1024, 64) &&
         uint64_t{block.x} * block.y * block.z <= 1024;
}

}  // namespace

namespace sa1b::emulator {

std::set<const void*> take_launched() {
  const std::lock_guard<std::mutex> lock(launched_mutex);
  return std::exchange(launched, {});
}

cudaError_t launch(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamic_bytes) {
  if (!valid(grid, block)) return record(cudaErrorInvalidConfiguration);
  size_t max_bytes = kDefaultSharedBytes;
  const bool is_raised = raised(kernel.address, &max_bytes);
  if (dynamic_bytes > max_bytes) return record(cudaErrorInvalidValue);
  {
    const std::lock_guard<std::mutex> lock(launched_mutex);
    launched.insert(kernel.address);
  }
  run_blocks(kernel, grid, block, dynamic_bytes, is_raised ? kMaxSharedBytes : kDefaultSharedBytes);
  return cudaSuccess;
}

}  // namespace sa1b::emulator

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
  }
  return "unrecognized error code";
}

cudaError_t cudaSetDevice(int device) {
  return record(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return record(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiProcessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kMaxSharedBytes;
      return cudaSuccess;
  }
  return record(cudaErrorInvalidValue);
}

cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) { return cudaSuccess; }

cudaError_t cudaMemsetAsync(void* data, int value, size_t num_bytes, cudaStream_t /*stream*/) {
  if (num_bytes) memset(data, value, num_bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t num_bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t /*stream*/) {
  if (num_bytes) memcpy(to, from, num_bytes);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > kMaxSharedBytes) {
    return record(cudaErrorInvalidValue);
  }
  const std::lock_guard<std::mutex> lock(max_dynamic_bytes_mutex);
  max_dynamic_bytes[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}
