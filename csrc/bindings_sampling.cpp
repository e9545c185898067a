// Python's way to the launchers of sampling.h.
#include "bindings.h"
#include "sampling.h"

namespace py = pybind11;

namespace {

using sa1b::batch_at;
using sa1b::pointer;

int64_t boundary_area(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t area,
                      int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::boundary_area(batch_at(data, num_bytes, num_masks), pointer<int64_t>(area),
                                  num_threads);
}

int64_t pixels_at_ranks(uintptr_t data, int64_t num_bytes, int64_t num_masks, int region,
                        uintptr_t ranks, int64_t num_ranks, uintptr_t points, int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::pixels_at_ranks(
      batch_at(data, num_bytes, num_masks), static_cast<sa1b::Region>(region),
      pointer<const int64_t>(ranks), num_ranks, pointer<int64_t>(points), num_threads);
}

int64_t interior_points(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t points,
                        int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::interior_points(batch_at(data, num_bytes, num_masks), pointer<int64_t>(points),
                                    num_threads);
}

}  // namespace

void sa1b::bind_sampling(py::module_& m) {
  m.def("boundary_area", &boundary_area);
  m.def("pixels_at_ranks", &pixels_at_ranks);
  m.def("interior_points", &interior_points);
}
