// What the files that know Python share. Arrays come as addresses and sizes, so that nothing
// depends on torch's or NumPy's binary interface. The GIL is released around every kernel.
#pragma once

#include <cstdint>

#include "rle_format.h"

namespace pybind11 {
class module_;
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

inline sa1b::Batch batch_at(uintptr_t data, int64_t num_bytes, int64_t num_masks) {
  return {pointer<const uint8_t>(data), num_bytes, num_masks};
}

// Each adds the functions of its file.
void bind_labels(pybind11::module_& m);
void bind_matching(pybind11::module_& m);
void bind_sampling(pybind11::module_& m);
