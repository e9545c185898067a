// What the files that know Python share.
#pragma once

#include <pybind11/pybind11.h>

#include "launch.h"

namespace sa1b {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

inline Batch batch_at(uintptr_t data, int64_t num_bytes, int64_t num_masks) {
  return {pointer<const uint8_t>(data), num_bytes, num_masks};
}

// Encoded masks as a block of RLEBatch.
inline pybind11::object to_block(cpu::Encoded& encoded) {
  auto block = pybind11::reinterpret_steal<pybind11::object>(
      PyByteArray_FromStringAndSize(nullptr, encoded.num_bytes()));
  if (!block) throw pybind11::error_already_set();
  auto* const to = reinterpret_cast<uint8_t*>(PyByteArray_AS_STRING(block.ptr()));
  pybind11::gil_scoped_release release;
  encoded.write(to);
  return block;
}

// Each adds the functions of its file.
void bind_algebra(pybind11::module_& m);
void bind_coco(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_labels(pybind11::module_& m);
void bind_matching(pybind11::module_& m);
void bind_sampling(pybind11::module_& m);

}  // namespace sa1b
