// What a launch does once its arguments are found valid.
#pragma once

#include "cuda_on_cpu.h"

namespace sa1b::emulator {

constexpr size_t kMaxStaticSharedBytes = 48 << 10;

// Throws what a kernel throws. `max_shared_bytes` bounds static and dynamic shared memory together.
void run_blocks(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamic_bytes,
                size_t max_shared_bytes);

}  // namespace sa1b::emulator
