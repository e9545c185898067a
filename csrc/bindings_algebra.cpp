// The operators of algebra.h for Python: a block of RLEBatch comes back, or a status.
#include "algebra.h"
#include "bindings.h"

namespace py = pybind11;

namespace sa1b {
namespace {

Images images_at(uintptr_t table, int64_t num_images) {
  return {pointer<const int64_t>(table), num_images};
}

template <class Launch>
py::object make_block(Launch launch) {
  cpu::Encoded encoded;
  int64_t status;
  {
    py::gil_scoped_release release;
    status = launch(&encoded);
  }
  return status == kOk ? to_block(encoded) : py::int_(status);
}

py::object combine(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t other,
                   int64_t other_bytes, int64_t num_other, int kind, uintptr_t members,
                   int64_t num_members, uintptr_t group_offsets, int64_t num_groups,
                   uintptr_t images, int64_t num_images, int num_threads) {
  return make_block([&](cpu::Encoded* encoded) {
    return cpu::combine(
        batch_at(data, num_bytes, num_masks), batch_at(other, other_bytes, num_other),
        {kind, pointer<const int64_t>(members), num_members, pointer<const int64_t>(group_offsets),
         num_groups, images_at(images, num_images)},
        num_threads, encoded);
  });
}

py::object place(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t windows,
                 uintptr_t sizes, uintptr_t images, int64_t num_images, int num_threads) {
  return make_block([&](cpu::Encoded* encoded) {
    return cpu::place(batch_at(data, num_bytes, num_masks),
                      {pointer<const int64_t>(windows), pointer<const int64_t>(sizes),
                       images_at(images, num_images)},
                      num_threads, encoded);
  });
}

py::object turn(uintptr_t data, int64_t num_bytes, int64_t num_masks, bool transpose,
                bool reverse_rows, bool reverse_columns, uintptr_t images, int64_t num_images,
                int num_threads) {
  return make_block([&](cpu::Encoded* encoded) {
    return cpu::turn(batch_at(data, num_bytes, num_masks),
                     {transpose, reverse_rows, reverse_columns, images_at(images, num_images)},
                     num_threads, encoded);
  });
}

}  // namespace

void bind_algebra(py::module_& m) {
  m.def("combine", &combine);
  m.def("place", &place);
  m.def("turn", &turn);
}

}  // namespace sa1b
