// The CUDA kernels as a Python module that runs them on the CPU, for the tests.
#include <pybind11/stl.h>

#include "bindings.h"
#include "cuda_on_cpu.h"

PYBIND11_MODULE(_cuda_on_cpu, m) {
  m.def("set_seed", &sa1b::emulator::set_seed);
  m.def("take_launched", &sa1b::emulator::take_launched);
  pybind11::module_ cuda = m.def_submodule("cuda");
  sa1b::bind_cuda(cuda);
}
