// Reads RLE dicts into the block of a batch, if they are of the plain form that nearly all have.
#pragma once

#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

#include "rle_format.h"

class PlainRles {
 public:
  // One of them: its size and its characters, which belong to `counts`.
  struct Rle {
    int64_t h, w;
    std::string_view chars;
    pybind11::object counts;
  };

  // Reads an RLE dict, or a list or tuple of them. False if any is not plain: an exact dict, or one
  // under "segmentation", with size of two ints and counts of bytes or ASCII text. May be called
  // once.
  bool read(const pybind11::object& rles) {
    single_ = PyDict_CheckExact(rles.ptr());
    if (single_) {
      masks_.resize(1);
      if (!read_rle(rles, &masks_[0])) return false;
    } else {
      if (!PyList_CheckExact(rles.ptr()) && !PyTuple_CheckExact(rles.ptr())) return false;
      // A tuple of its own: reading the dicts may run Python, which may change the list.
      const pybind11::tuple items(rles);
      masks_.resize(items.size());
      for (size_t i = 0; i < masks_.size(); ++i) {
        if (!read_rle(items[i], &masks_[i])) return false;
      }
    }
    for (const Rle& mask : masks_) {
      num_chars_ += static_cast<int64_t>(mask.chars.size());
      uniform_ = uniform_ && mask.h == masks_[0].h && mask.w == masks_[0].w;
    }
    return true;
  }

  // Whether it was one dict, in no list.
  bool single() const { return single_; }
  // Whether all sizes are equal.
  bool uniform() const { return uniform_; }
  int64_t size() const { return static_cast<int64_t>(masks_.size()); }
  const Rle& operator[](int64_t i) const { return masks_[i]; }
  std::vector<Rle>::const_iterator begin() const { return masks_.begin(); }
  std::vector<Rle>::const_iterator end() const { return masks_.end(); }

  int64_t num_bytes() const { return header_bytes() + num_chars_; }

  // Writes the block of rle_format.h: [num_bytes], 8-byte aligned.
  void write(uint8_t* block) const {
    auto* const sizes = reinterpret_cast<int64_t*>(block);
    int64_t* const offsets = sizes + 2 * size();
    int64_t at = header_bytes();
    for (int64_t i = 0; i < size(); ++i) {
      const Rle& mask = masks_[i];
      sizes[2 * i] = mask.h;
      sizes[2 * i + 1] = mask.w;
      offsets[i] = at;
      memcpy(block + at, mask.chars.data(), mask.chars.size());
      at += static_cast<int64_t>(mask.chars.size());
    }
    offsets[size()] = at;
  }

  // The value of a key, none if there is no such key. Holds a reference: looking up the next key
  // may run Python (the keys' own __eq__), which may drop the value.
  static pybind11::object find(const pybind11::object& dict, PyObject* key) {
    PyObject* const value = PyDict_GetItemWithError(dict.ptr(), key);
    if (value == nullptr && PyErr_Occurred()) throw pybind11::error_already_set();
    return value ? pybind11::reinterpret_borrow<pybind11::object>(value) : pybind11::none();
  }

  // Reads the size of an RLE dict, if it is plain and of less than 2**32 pixels.
  static bool read_size(const pybind11::object& rle, int64_t* h, int64_t* w) {
    static PyObject* const kSize = PyUnicode_InternFromString("size");
    const pybind11::object size_object = find(rle, kSize);
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
      if (overflow || sides[i] < 0 || sides[i] > static_cast<int64_t>(sa1b::kMaxPixels)) {
        return false;
      }
    }
    *h = sides[0];
    *w = sides[1];
    return static_cast<uint64_t>(*h) * static_cast<uint64_t>(*w) <= sa1b::kMaxPixels;
  }

 private:
  int64_t header_bytes() const { return 8 * (3 * size() + 1); }

  static bool read_rle(pybind11::object item, Rle* rle) {
    static PyObject* const kCounts = PyUnicode_InternFromString("counts");
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
    return read_size(item, &rle->h, &rle->w);
  }

  std::vector<Rle> masks_;
  int64_t num_chars_ = 0;
  bool single_ = false, uniform_ = true;
};
