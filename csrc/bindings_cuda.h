// Adds the CUDA kernels to a Python module: to `_C.cuda`, and in tests to one that runs them on the
// CPU.
#pragma once

#include <pybind11/pybind11.h>

void bind_cuda(pybind11::module_& m);
