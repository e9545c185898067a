// Python's way to the launchers of matching.h.
#include "bindings.h"
#include "matching.h"

namespace py = pybind11;

namespace {

using sa1b::batch_at;
using sa1b::pointer;

int64_t suppress(uintptr_t data, int64_t num_bytes, int64_t num_masks, int64_t num_images,
                 uintptr_t order, uintptr_t labels, int metric, double threshold, uintptr_t keep,
                 int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::suppress(
      batch_at(data, num_bytes, num_masks),
      {num_images, pointer<const int64_t>(order), pointer<const int64_t>(labels), metric, threshold,
       pointer<uint8_t>(keep)},
      num_threads);
}

int64_t match(int64_t num_pairs, int64_t num_detections, int64_t num_truths, int64_t num_thresholds,
              uintptr_t pairs, uintptr_t iou, uintptr_t order, uintptr_t iscrowd, uintptr_t ignore,
              uintptr_t thresholds, uintptr_t matches) {
  py::gil_scoped_release release;
  return sa1b::cpu::match({num_pairs, num_detections, num_truths, num_thresholds,
                           pointer<const int64_t>(pairs), pointer<const double>(iou),
                           pointer<const int64_t>(order), pointer<const uint8_t>(iscrowd),
                           pointer<const uint8_t>(ignore), pointer<const double>(thresholds),
                           pointer<int64_t>(matches)});
}

}  // namespace

void sa1b::bind_matching(py::module_& m) {
  m.def("suppress", &suppress);
  m.def("match", &match);
}
