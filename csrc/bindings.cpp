// The files named bindings* are the only ones that know Python. Arrays come as addresses and sizes,
// so that nothing here depends on torch's or NumPy's binary interface. The GIL is released around
// every kernel.
#include "bindings.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "bindings_cuda.h"
#include "cpu/zero_pages.h"

namespace py = pybind11;

namespace {

using sa1b::batch_at;
using sa1b::pointer;

// One of the RLE dicts: its size and its characters, which belong to `counts`.
struct Rle {
  int64_t h, w;
  std::string_view chars;
  py::object counts;
};

// The value of a key, none if there is no such key. Holds a reference: looking up the next key may
// run Python (the keys' own __eq__), which may drop the value.
py::object find(const py::object& dict, PyObject* key) {
  PyObject* const value = PyDict_GetItemWithError(dict.ptr(), key);
  if (value == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return value ? py::reinterpret_borrow<py::object>(value) : py::none();
}

// Reads an RLE dict, or the one under "segmentation" of an annotation. False for anything that is
// not of the plain form: exact dict, size of two ints, counts of bytes or ASCII text.
bool read_rle(py::object item, Rle* rle) {
  static PyObject* const kCounts = PyUnicode_InternFromString("counts");
  static PyObject* const kSize = PyUnicode_InternFromString("size");
  static PyObject* const kSegmentation = PyUnicode_InternFromString("segmentation");
  if (!PyDict_CheckExact(item.ptr())) return false;
  rle->counts = find(item, kCounts);
  if (rle->counts.is_none()) {
    item = find(item, kSegmentation);
    if (!PyDict_CheckExact(item.ptr())) return false;
    rle->counts = find(item, kCounts);
  }
  PyObject* const counts = rle->counts.ptr();
  if (PyBytes_CheckExact(counts)) {
    rle->chars = {PyBytes_AS_STRING(counts), static_cast<size_t>(PyBytes_GET_SIZE(counts))};
  } else if (PyUnicode_CheckExact(counts) && PyUnicode_IS_COMPACT_ASCII(counts)) {
    rle->chars = {static_cast<const char*>(PyUnicode_DATA(counts)),
                  static_cast<size_t>(PyUnicode_GET_LENGTH(counts))};
  } else {
    return false;
  }
  const py::object size_object = find(item, kSize);
  PyObject* const size = size_object.ptr();
  if (!(PyList_CheckExact(size) || PyTuple_CheckExact(size)) ||
      PySequence_Fast_GET_SIZE(size) != 2) {
    return false;
  }
  int64_t sides[2];
  for (int i = 0; i < 2; ++i) {
    PyObject* side = PySequence_Fast_GET_ITEM(size, i);
    int overflow = 0;
    if (!PyLong_CheckExact(side)) return false;
    sides[i] = PyLong_AsLongLongAndOverflow(side, &overflow);
    if (overflow || sides[i] < 0 || sides[i] > static_cast<int64_t>(sa1b::kMaxPixels)) return false;
  }
  rle->h = sides[0];
  rle->w = sides[1];
  return static_cast<uint64_t>(rle->h) * static_cast<uint64_t>(rle->w) <= sa1b::kMaxPixels;
}

// Packs a plain RLE dict, or a list or tuple of them: (block, number of masks, max h, max w,
// whether all sizes are equal). None if any item is of another form; the caller then reads them
// itself.
py::object pack(const py::object& rles) {
  const bool many = PyList_CheckExact(rles.ptr()) || PyTuple_CheckExact(rles.ptr());
  // A tuple of its own: reading the dicts may run Python, which may change the list.
  const py::tuple items = many ? py::tuple(rles) : py::make_tuple(rles);
  const auto n = static_cast<Py_ssize_t>(items.size());
  if (n == 0) return py::none();
  std::vector<Rle> masks(n);
  int64_t num_bytes = 8 * (3 * n + 1);
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!read_rle(items[i], &masks[i])) return py::none();
    num_bytes += static_cast<int64_t>(masks[i].chars.size());
  }
  auto block = py::reinterpret_steal<py::object>(PyByteArray_FromStringAndSize(nullptr, num_bytes));
  if (!block) throw py::error_already_set();
  char* const data = PyByteArray_AS_STRING(block.ptr());
  auto* const sizes = reinterpret_cast<int64_t*>(data);
  int64_t* const offsets = sizes + 2 * n;
  int64_t at = 8 * (3 * n + 1), max_h = 0, max_w = 0;
  bool uniform = true;
  for (Py_ssize_t i = 0; i < n; ++i) {
    const Rle& mask = masks[i];
    sizes[2 * i] = mask.h;
    sizes[2 * i + 1] = mask.w;
    offsets[i] = at;
    memcpy(data + at, mask.chars.data(), mask.chars.size());
    at += static_cast<int64_t>(mask.chars.size());
    max_h = std::max(max_h, mask.h);
    max_w = std::max(max_w, mask.w);
    uniform = uniform && mask.h == masks[0].h && mask.w == masks[0].w;
  }
  offsets[n] = at;
  return py::make_tuple(block, n, max_h, max_w, uniform);
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
#ifdef SA1B_WITH_CUDA
  py::module_ cuda = m.def_submodule("cuda");
  bind_cuda(cuda);
#endif
}
