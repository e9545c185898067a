// The CUDA kernels as a Python module that runs them on the CPU, for the tests.
#include <dlfcn.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <set>

#include "bindings.h"
#include "cuda_on_cpu.h"

namespace {

// The kernels that were launched, as distances from where this module is loaded: what nm shows.
std::set<intptr_t> take_launched() {
  std::set<intptr_t> result;
  for (const void* kernel : sa1b::emulator::take_launched()) {
    Dl_info module;
    if (dladdr(kernel, &module) == 0) continue;
    result.insert(static_cast<const char*>(kernel) - static_cast<const char*>(module.dli_fbase));
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_cuda_on_cpu, m) {
  // What no test takes for the error that it expects.
  pybind11::register_exception<sa1b::emulator::Bug>(m, "Bug", PyExc_AssertionError);
  m.def("set_seed", &sa1b::emulator::set_seed);
  m.def("take_launched", &take_launched);
  pybind11::module_ cuda = m.def_submodule("cuda");
  sa1b::bind_cuda(cuda);
}
