// The files named bindings* are the only ones that know Python. Arrays come as addresses and sizes,
// so that nothing here depends on torch's or NumPy's binary interface. The GIL is released around
// every kernel.
#include "bindings.h"

#include <algorithm>

#include "bindings_rles.h"
#include "cpu/zero_pages.h"

namespace py = pybind11;

namespace {

using sa1b::batch_at;
using sa1b::pointer;

// Packs a plain RLE dict, or a list or tuple of them: (block, number of masks, max h, max w,
// whether all sizes are equal). None if any item is of another form; the caller then reads them
// itself.
py::object pack(const py::object& rles) {
  PlainRles masks;
  if (!masks.read(rles) || masks.size() == 0) return py::none();
  auto block =
      py::reinterpret_steal<py::object>(PyByteArray_FromStringAndSize(nullptr, masks.num_bytes()));
  if (!block) throw py::error_already_set();
  masks.write(reinterpret_cast<uint8_t*>(PyByteArray_AS_STRING(block.ptr())));
  int64_t max_h = 0, max_w = 0;
  for (const PlainRles::Rle& mask : masks) {
    max_h = std::max(max_h, mask.h);
    max_w = std::max(max_w, mask.w);
  }
  return py::make_tuple(block, masks.size(), max_h, max_w, masks.uniform());
}

int64_t decode(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t planes,
               int64_t num_planes, uintptr_t crops, bool resize, int64_t out_h, int64_t out_w,
               uintptr_t out, int item_size, uint32_t one, bool fresh, int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::decode(
      batch_at(data, num_bytes, num_masks),
      {pointer<const int64_t>(planes), num_planes, pointer<const int64_t>(crops), resize, out_h,
       out_w, pointer<void>(out), item_size, one, fresh},
      num_threads);
}

int64_t regions(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t area,
                uintptr_t bbox, uintptr_t centroid, int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::regions(batch_at(data, num_bytes, num_masks), pointer<int64_t>(area),
                            pointer<float>(bbox), pointer<float>(centroid), num_threads);
}

int64_t pairwise(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t other,
                 int64_t other_bytes, int64_t num_other, int64_t num_images, int64_t rows,
                 int64_t columns, uintptr_t iscrowd, int kind, uintptr_t out, int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::pairwise(
      batch_at(data, num_bytes, num_masks), batch_at(other, other_bytes, num_other),
      {kind, num_images, rows, columns, pointer<const uint8_t>(iscrowd), pointer<void>(out)},
      num_threads);
}

int64_t intersecting_pairs(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t other,
                           int64_t other_bytes, int64_t num_other, int64_t num_images,
                           int64_t capacity, uintptr_t indices, uintptr_t intersection,
                           int num_threads) {
  py::gil_scoped_release release;
  return sa1b::cpu::intersecting_pairs(
      batch_at(data, num_bytes, num_masks), batch_at(other, other_bytes, num_other),
      {num_images, capacity, pointer<int64_t>(indices), pointer<int64_t>(intersection)},
      num_threads);
}

int64_t validate(uintptr_t data, int64_t num_bytes, int64_t num_masks) {
  py::gil_scoped_release release;
  return sa1b::cpu::validate(batch_at(data, num_bytes, num_masks));
}

void compress(uintptr_t counts, uintptr_t count_offsets, int64_t num_masks, uintptr_t chars,
              uintptr_t char_offsets) {
  py::gil_scoped_release release;
  sa1b::cpu::compress(pointer<const uint32_t>(counts), pointer<const int64_t>(count_offsets),
                      num_masks, pointer<uint8_t>(chars), pointer<int64_t>(char_offsets));
}

int64_t decompress(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t counts,
                   uintptr_t count_offsets) {
  py::gil_scoped_release release;
  return sa1b::cpu::decompress(batch_at(data, num_bytes, num_masks), pointer<uint32_t>(counts),
                               pointer<int64_t>(count_offsets));
}

// A block of RLEBatch, or None if no mask has that shape.
py::object encode(uintptr_t data, int64_t num_masks, int64_t h, int64_t w, int64_t mask_stride,
                  int64_t row_stride, int64_t column_stride, int item_size, uint64_t value_bits,
                  int num_threads) {
  sa1b::cpu::Encoded encoded;
  int64_t status;
  {
    py::gil_scoped_release release;
    status = sa1b::cpu::encode({pointer<const uint8_t>(data), num_masks, h, w, mask_stride,
                                row_stride, column_stride, item_size, value_bits},
                               num_threads, &encoded);
  }
  if (status != sa1b::kOk) return py::none();
  return sa1b::to_block(encoded);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of sa1b_fastdecode; addresses and sizes in, status codes out.";
  py::class_<sa1b::cpu::ZeroPages>(m, "ZeroPages", py::buffer_protocol())
      .def(py::init<size_t>())
      .def_buffer([](sa1b::cpu::ZeroPages& pages) {
        return py::buffer_info(pages.data(), static_cast<py::ssize_t>(pages.num_bytes()));
      });
  // What sa1b_fastdecode/status.py repeats, for a test to compare.
  py::dict constants;
  constants["OK"] = sa1b::kOk;
  constants["BAD_HEADER"] = sa1b::kBadHeader;
  constants["BAD_PLANE"] = sa1b::kBadPlane;
  constants["BAD_WINDOW"] = sa1b::kBadWindow;
  constants["BAD_SHAPE"] = sa1b::kBadShape;
  constants["MIXED_SIZES"] = sa1b::kMixedSizes;
  constants["BAD_LABEL"] = sa1b::kBadLabel;
  constants["NOT_GROUPED"] = sa1b::kNotGrouped;
  constants["INTERSECTION"] = static_cast<int>(sa1b::Pairwise::kIntersection);
  constants["IOU"] = static_cast<int>(sa1b::Pairwise::kIou);
  constants["CONTAINMENT"] = static_cast<int>(sa1b::Pairwise::kContainment);
  constants["MAX_CHARS_PER_COUNT"] = sa1b::kMaxCharsPerCount;
  constants["MAX_PIXELS"] = sa1b::kMaxPixels;
  m.attr("constants") = constants;
  m.def("pack", &pack);
  m.def("decode", &decode);
  m.def("regions", &regions);
  m.def("pairwise", &pairwise);
  m.def("intersecting_pairs", &intersecting_pairs);
  m.def("validate", &validate);
  m.def("compress", &compress);
  m.def("decompress", &decompress);
  m.def("encode", &encode);
  sa1b::bind_algebra(m);
  sa1b::bind_coco(m);
  sa1b::bind_labels(m);
  sa1b::bind_matching(m);
  sa1b::bind_sampling(m);
#ifdef SA1B_WITH_CUDA
  py::module_ cuda = m.def_submodule("cuda");
  sa1b::bind_cuda(cuda);
#endif
}
