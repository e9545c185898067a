// Python's way to the launchers of labels.h.
#include "bindings.h"
#include "labels.h"

namespace py = pybind11;

namespace {

using sa1b::batch_at;
using sa1b::pointer;

int64_t paint_labels(uintptr_t data, int64_t num_bytes, int64_t num_masks, int64_t num_images,
                     uintptr_t order, uintptr_t labels, int32_t background, int64_t out_h,
                     int64_t out_w, uintptr_t out, int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::paint_labels(
      batch_at(data, num_bytes, num_masks),
      {num_images, pointer<const int64_t>(order), pointer<const int32_t>(labels), background, out_h,
       out_w, pointer<int32_t>(out)},
      num_threads);
}

py::bytearray make_bytes(int64_t n) {
  auto bytes = py::reinterpret_steal<py::bytearray>(PyByteArray_FromStringAndSize(nullptr, n));
  if (!bytes) throw py::error_already_set();
  return bytes;
}

// (block of RLEBatch, int64 labels of its masks, int64 number of labels of each map), or a status.
py::object split_labels(uintptr_t data, int64_t num_maps, int64_t h, int64_t w, int64_t map_stride,
                        int64_t row_stride, int64_t column_stride, int item_size, bool is_signed,
                        bool grouped, bool has_background, int64_t background, int num_threads) {
  sa1b::cpu::SplitLabels split;
  int64_t status;
  {
    py::gil_scoped_release release;
    status = sa1b::cpu::split_labels(
        {pointer<const uint8_t>(data), num_maps, h, w, map_stride, row_stride, column_stride,
         item_size, is_signed, grouped, has_background, background},
        num_threads, &split);
  }
  if (status != sa1b::kOk) return py::int_(status);
  const py::bytearray block = make_bytes(split.num_bytes());
  const py::bytearray labels = make_bytes(8 * split.num_masks()), counts = make_bytes(8 * num_maps);
  const auto memory = [](const py::bytearray& bytes) { return PyByteArray_AS_STRING(bytes.ptr()); };
  {
    py::gil_scoped_release release;
    split.write(reinterpret_cast<uint8_t*>(memory(block)),
                reinterpret_cast<int64_t*>(memory(labels)),
                reinterpret_cast<int64_t*>(memory(counts)));
  }
  return py::make_tuple(block, labels, counts);
}

}  // namespace

void sa1b::bind_labels(py::module_& m) {
  m.def("paint_labels", &paint_labels);
  m.def("split_labels", &split_labels);
}
