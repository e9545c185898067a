// The functions behind `sa1b_fastdecode.mask`, from Python objects to Python objects, since one
// call for one small mask must cost no more than pycocotools' own. Each returns None for what is
// not of the plain form or not valid; the caller then finds out what it is.
#include <pybind11/numpy.h>

#include <algorithm>
#include <optional>

#include "bindings.h"
#include "bindings_rles.h"
#include "coco.h"
#include "launch.h"
#include "matching.h"

namespace py = pybind11;

namespace {

// What is worth letting other threads run for: getting the GIL back can take milliseconds.
constexpr int64_t kLongWork = 1 << 16;  // characters, or multiples of 64 pixels

class ReleaseIfLong {
 public:
  explicit ReleaseIfLong(int64_t work) {
    if (work >= kLongWork) release_.emplace();
  }

 private:
  std::optional<py::gil_scoped_release> release_;
};

// RLEs that were read and validated.
class Masks {
 public:
  bool read(const py::object& rles) {
    if (!rles_.read(rles)) return false;
    block_.resize(static_cast<size_t>(rles_.num_bytes()));
    rles_.write(block_.data());
    return sa1b::cpu::validate(batch()) == sa1b::kOk;
  }

  bool single() const { return rles_.single(); }
  bool uniform() const { return rles_.uniform(); }
  int64_t size() const { return rles_.size(); }
  int64_t height() const { return size() == 0 ? 0 : rles_[0].h; }
  int64_t width() const { return size() == 0 ? 0 : rles_[0].w; }
  int64_t num_bytes() const { return rles_.num_bytes(); }
  sa1b::Batch batch() const { return {block_.data(), num_bytes(), size()}; }

 private:
  PlainRles rles_;
  std::vector<uint8_t> block_;
};

// Lives as long as the process.
PyObject* numpy_attribute(const char* name) {
  return py::object(py::module_::import("numpy").attr(name)).release().ptr();
}

// An array's only element where there was one mask, in no list.
py::object result_of(const Masks& masks, const py::array& array) {
  if (!masks.single()) return array;
  auto element = py::reinterpret_steal<py::object>(PySequence_GetItem(array.ptr(), 0));
  if (!element) throw py::error_already_set();
  return element;
}

py::dict make_rle(int64_t h, int64_t w, const uint8_t* chars, int64_t num_chars, bool text) {
  static PyObject* const kSize = PyUnicode_InternFromString("size");
  static PyObject* const kCounts = PyUnicode_InternFromString("counts");
  py::list size(2);
  PyList_SET_ITEM(size.ptr(), 0, py::int_(h).release().ptr());
  PyList_SET_ITEM(size.ptr(), 1, py::int_(w).release().ptr());
  const auto* const begin = reinterpret_cast<const char*>(chars);
  auto counts =
      py::reinterpret_steal<py::object>(text ? PyUnicode_DecodeASCII(begin, num_chars, nullptr)
                                             : PyBytes_FromStringAndSize(begin, num_chars));
  py::dict rle;
  if (!counts || PyDict_SetItem(rle.ptr(), kSize, size.ptr()) != 0 ||
      PyDict_SetItem(rle.ptr(), kCounts, counts.ptr()) != 0) {
    throw py::error_already_set();
  }
  return rle;
}

py::dict make_rle(int64_t h, int64_t w, const std::vector<uint8_t>& chars, bool text) {
  return make_rle(h, w, chars.data(), static_cast<int64_t>(chars.size()), text);
}

// An RLE whose counts are a list of run lengths to one with a string.
py::object compress(const py::object& rle, bool text) {
  if (!PyDict_CheckExact(rle.ptr())) return py::none();
  static PyObject* const kCounts = PyUnicode_InternFromString("counts");
  int64_t h, w;
  const py::object counts = PlainRles::find(rle, kCounts);
  if (!PyList_CheckExact(counts.ptr()) || !PlainRles::read_size(rle, &h, &w)) return py::none();
  const Py_ssize_t n = PyList_GET_SIZE(counts.ptr());
  std::vector<uint8_t> chars(sa1b::kMaxCharsPerCount * static_cast<size_t>(n));
  sa1b::CountWriter writer(chars.data());
  int64_t sum = 0;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* const item = PyList_GET_ITEM(counts.ptr(), i);
    if (!PyLong_CheckExact(item)) return py::none();
    int overflow = 0;
    const int64_t count = PyLong_AsLongLongAndOverflow(item, &overflow);
    if (overflow || count < 0 || count > h * w - sum) return py::none();
    sum += count;
    writer.add(static_cast<uint32_t>(count));
  }
  if (sum != h * w) return py::none();
  return make_rle(h, w, chars.data(), writer.at() - chars.data(), text);
}

// Masks (h, w) to an RLE, (h, w, N) to a list of them.
py::object encode(const py::object& masks, bool text) {
  if (!py::isinstance<py::array>(masks)) return py::none();
  const auto array = py::reinterpret_borrow<py::array>(masks);
  const auto ndim = array.ndim();
  const int item_size = static_cast<int>(array.itemsize());
  const char kind = array.dtype().kind();
  const bool integers = kind == 'b' || kind == 'u' || kind == 'i';
  const bool native = array.dtype().byteorder() == '=' || array.dtype().byteorder() == '|';
  if ((ndim != 2 && ndim != 3) || !native || !(integers || kind == 'f') || item_size > 8) {
    return py::none();
  }
  const int64_t h = array.shape(0), w = array.shape(1), n = ndim == 3 ? array.shape(2) : 1;
  uint64_t value_bits = ~uint64_t{0} >> (64 - 8 * item_size);
  if (!integers) value_bits >>= 1;  // -0.0 is background
  const sa1b::Dense dense = {static_cast<const uint8_t*>(array.data()),
                             n,
                             h,
                             w,
                             ndim == 3 ? array.strides(2) : 0,
                             array.strides(0),
                             array.strides(1),
                             item_size,
                             value_bits};
  sa1b::cpu::Encoded encoded;
  std::vector<uint8_t> block;
  {
    const ReleaseIfLong release(array.size() / 64);
    if (sa1b::cpu::encode(dense, 1, &encoded) != sa1b::kOk) return py::none();
    block.resize(static_cast<size_t>(encoded.num_bytes()));
    encoded.write(block.data());
  }
  const sa1b::Batch batch = {block.data(), static_cast<int64_t>(block.size()), n};
  const auto rle_at = [&](int64_t i) {
    const int64_t begin = batch.word(2 * n + i), end = batch.word(2 * n + i + 1);
    return make_rle(h, w, block.data() + begin, end - begin, text);
  };
  if (ndim == 2) return rle_at(0);
  py::list rles(n);
  for (int64_t i = 0; i < n; ++i) PyList_SET_ITEM(rles.ptr(), i, rle_at(i).release().ptr());
  return rles;
}

// uint8 (h, w) of an RLE, (h, w, N) of a list, in column-major order.
py::object decode(const py::object& rles) {
  static PyObject* const kZeros = numpy_attribute("zeros");
  static PyObject* const kUint8 = numpy_attribute("uint8");
  Masks masks;
  if (!masks.read(rles) || !masks.uniform()) return py::none();
  const int64_t h = masks.height(), w = masks.width(), n = masks.size();
  py::object shape = py::make_tuple(h, w);
  if (!masks.single()) shape = py::make_tuple(h, w, n);
  const auto out = py::reinterpret_steal<py::array>(
      PyObject_CallFunction(kZeros, "OOs", shape.ptr(), kUint8, "F"));
  if (!out) throw py::error_already_set();
  auto* const pixels = static_cast<uint8_t*>(const_cast<void*>(out.data()));
  {
    const ReleaseIfLong release(out.size() / 64);
    sa1b::cpu::decode_columns(masks.batch(), pixels);
  }
  return out;
}

py::object area(const py::object& rles) {
  Masks masks;
  if (!masks.read(rles)) return py::none();
  std::vector<int64_t> areas(masks.size());
  {
    const ReleaseIfLong release(masks.num_bytes());
    sa1b::cpu::regions(masks.batch(), areas.data(), nullptr, nullptr, 1);
  }
  py::array_t<uint32_t> out(masks.size());
  std::copy(areas.begin(), areas.end(), out.mutable_data());
  return result_of(masks, out);
}

py::object boxes(const py::object& rles) {
  Masks masks;
  if (!masks.read(rles)) return py::none();
  std::vector<py::ssize_t> shape = {masks.size(), 4};
  if (masks.single()) shape.erase(shape.begin());
  py::array_t<double> out(shape);
  double* const to = out.mutable_data();
  {
    const ReleaseIfLong release(masks.num_bytes());
    sa1b::cpu::exact_boxes(masks.batch(), to);
  }
  return out;
}

py::object merge(const py::object& rles, const py::object& intersect, bool text) {
  Masks masks;
  if (!PyBool_Check(intersect.ptr()) && !PyLong_CheckExact(intersect.ptr())) return py::none();
  if (!masks.read(rles) || masks.single() || masks.size() == 0 || !masks.uniform()) {
    return py::none();
  }
  std::vector<uint8_t> chars;
  {
    const bool both = PyObject_IsTrue(intersect.ptr()) != 0;
    const ReleaseIfLong release(masks.num_bytes());
    sa1b::cpu::merge(masks.batch(), both, &chars);
  }
  return make_rle(masks.height(), masks.width(), chars, text);
}

// Reads one number for each of N masks from a list or tuple of plain ints and bools, or an array.
bool read_iscrowd(const py::object& iscrowd, int64_t n, std::vector<uint8_t>* out) {
  if (py::isinstance<py::array>(iscrowd)) {
    const auto array = py::reinterpret_borrow<py::array>(iscrowd);
    const char kind = array.dtype().kind();
    if (array.ndim() != 1 || array.shape(0) != n || array.itemsize() != 1) return false;
    if (kind != 'b' && kind != 'u') return false;
    for (int64_t i = 0; i < n; ++i) out->push_back(*static_cast<const uint8_t*>(array.data(i)));
    return true;
  }
  if (!PyList_CheckExact(iscrowd.ptr()) && !PyTuple_CheckExact(iscrowd.ptr())) return false;
  if (PySequence_Fast_GET_SIZE(iscrowd.ptr()) != n) return false;
  for (int64_t i = 0; i < n; ++i) {
    PyObject* const flag = PySequence_Fast_GET_ITEM(iscrowd.ptr(), i);
    if (!PyLong_CheckExact(flag) && !PyBool_Check(flag)) return false;
    int overflow = 0;
    const int64_t value = PyLong_AsLongLongAndOverflow(flag, &overflow);
    if (overflow || value < 0 || value > 255) return false;
    out->push_back(static_cast<uint8_t>(value));
  }
  return true;
}

// float64 (M, N) of two lists of RLEs, in column-major order; an empty list if one of them is.
py::object iou(const py::object& rles, const py::object& others, const py::object& iscrowd) {
  Masks a, b;
  std::vector<uint8_t> crowd;
  if (!a.read(rles) || a.single()) return py::none();
  const bool same = rles.is(others);
  if (!same && (!b.read(others) || b.single())) return py::none();
  const Masks& second = same ? a : b;
  if (!read_iscrowd(iscrowd, second.size(), &crowd)) return py::none();
  if (a.size() == 0 || second.size() == 0) return py::list();
  const std::vector<py::ssize_t> shape = {a.size(), second.size()};
  py::array_t<double, py::array::f_style> out(shape);
  double* const to = out.mutable_data();
  {
    const ReleaseIfLong release(a.num_bytes() + second.num_bytes() + a.size() * second.size());
    std::fill(to, to + a.size() * second.size(), 0);
    sa1b::cpu::mask_iou(a.batch(), second.batch(), crowd.data(), to);
  }
  return out;
}

using Doubles = py::array_t<double, py::array::c_style>;
using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Integers = py::array_t<int64_t, py::array::c_style>;

// The same of boxes (M, 4) and (N, 4).
py::object box_iou(const Doubles& boxes, const Doubles& others, const Bytes& iscrowd) {
  const int64_t m = boxes.shape(0), n = others.shape(0);
  const std::vector<py::ssize_t> shape = {m, n};
  py::array_t<double, py::array::f_style> out(shape);
  double* const to = out.mutable_data();
  const double *const a = boxes.data(), *const b = others.data();
  const uint8_t* const crowd = iscrowd.data();
  {
    const ReleaseIfLong release(m * n);
    sa1b::cpu::box_iou(a, m, b, n, crowd, to);
  }
  return out;
}

// Which of a list of RLEs are kept, going through them in `order`: bool (N,).
py::object suppress(const py::object& rles, const Integers& order, double threshold) {
  Masks masks;
  if (!masks.read(rles) || masks.single() || !masks.uniform()) return py::none();
  if (order.size() != masks.size()) return py::none();
  py::array_t<bool> keep(masks.size());
  const int64_t* const by_score = order.data();
  auto* const kept = reinterpret_cast<uint8_t*>(keep.mutable_data());
  int64_t status;
  {
    const ReleaseIfLong release(masks.num_bytes());
    status = sa1b::cpu::suppress(
        masks.batch(),
        {sa1b::kNotGrouped, by_score, nullptr, sa1b::Pairwise::kIou, threshold, kept}, 1);
  }
  if (status != sa1b::kOk) return py::none();
  return keep;
}

// Reads a list or tuple of plain floats and ints.
bool read_numbers(PyObject* numbers, std::vector<double>* out) {
  if (!PyList_CheckExact(numbers) && !PyTuple_CheckExact(numbers)) return false;
  out->clear();
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(numbers); ++i) {
    PyObject* const number = PySequence_Fast_GET_ITEM(numbers, i);
    if (PyFloat_CheckExact(number)) {
      out->push_back(PyFloat_AS_DOUBLE(number));
    } else if (PyLong_CheckExact(number)) {
      out->push_back(PyLong_AsDouble(number));
      if (PyErr_Occurred()) {
        PyErr_Clear();
        return false;
      }
    } else {
      return false;
    }
  }
  return true;
}

// Reads a polygon as a list of x, y, x, y, ... of at least one point.
bool read_polygon(const py::object& polygon, std::vector<double>* xy) {
  return read_numbers(polygon.ptr(), xy) && xy->size() >= 2;
}

// The corners of a box x, y, w, h.
void outline_box(const double* box, std::vector<double>* xy) {
  const double left = box[0], top = box[1], right = left + box[2], bottom = top + box[3];
  *xy = {left, top, left, bottom, right, bottom, right, top};
}

// A list of polygons, or boxes (N, 4), to a list of RLEs.
py::object draw(const py::object& polygons, int64_t h, int64_t w, bool text) {
  const auto most = static_cast<int64_t>(sa1b::kMaxPixels);
  if (h < 0 || w < 0 || h > most || w > most || (h > 0 && w > most / h)) return py::none();
  const bool boxes = py::isinstance<Doubles>(polygons);
  const auto array = boxes ? py::reinterpret_borrow<Doubles>(polygons) : Doubles();
  if (boxes ? array.ndim() != 2 || array.shape(1) != 4 : !PyList_CheckExact(polygons.ptr())) {
    return py::none();
  }
  py::list rles;
  std::vector<double> xy;
  std::vector<uint8_t> chars;
  // The list may change meanwhile: collecting garbage may run Python.
  for (Py_ssize_t i = 0; i < (boxes ? array.shape(0) : PyList_GET_SIZE(polygons.ptr())); ++i) {
    if (boxes) {
      outline_box(array.data(i, 0), &xy);
    } else {
      PyObject* const polygon = PyList_GET_ITEM(polygons.ptr(), i);
      if (!read_polygon(py::reinterpret_borrow<py::object>(polygon), &xy)) return py::none();
    }
    if (!sa1b::cpu::draw_polygon(xy.data(), static_cast<int64_t>(xy.size() / 2),
                                 static_cast<uint32_t>(h), static_cast<uint32_t>(w), &chars)) {
      return py::none();
    }
    rles.append(make_rle(h, w, chars, text));
  }
  return rles;
}

}  // namespace

void sa1b::bind_coco(py::module_& m) {
  m.def("coco_encode", &encode);
  m.def("coco_decode", &decode);
  m.def("coco_area", &area);
  m.def("coco_boxes", &boxes);
  m.def("coco_merge", &merge);
  m.def("coco_iou", &iou);
  m.def("coco_box_iou", &box_iou);
  m.def("coco_suppress", &suppress);
  m.def("coco_draw", &draw);
  m.def("coco_compress", &compress);
}
