// The CUDA kernels as Python sees them: device, stream, addresses and sizes in; 0, a cudaError_t or
// a (negative) code of launch.h out. The GIL is released around every launch.
#include "algebra.h"
#include "bindings.h"
#include "labels.h"
#include "matching.h"
#include "sampling.h"

namespace py = pybind11;

namespace {

using sa1b::batch_at;
using sa1b::pointer;
using sa1b::cuda::Stream;

Stream stream_of(int device, uintptr_t stream) { return {device, pointer<void>(stream)}; }

int64_t decode_workspace(int64_t num_bytes, int64_t num_masks, int64_t num_images) {
  return sa1b::cuda::decode_workspace(batch_at(0, num_bytes, num_masks), num_images);
}

int decode(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
           int64_t num_images, uintptr_t planes, int64_t num_planes, uintptr_t crops, bool resize,
           int64_t out_h, int64_t out_w, uintptr_t out, int item_size, uint32_t one,
           uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::decode(
      batch_at(data, num_bytes, num_masks), num_images,
      {pointer<const int64_t>(planes), num_planes, pointer<const int64_t>(crops), resize, out_h,
       out_w, pointer<void>(out), item_size, one, false},
      pointer<void>(workspace), stream_of(device, stream));
}

int regions(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
            uintptr_t area, uintptr_t bbox, uintptr_t centroid) {
  py::gil_scoped_release release;
  return sa1b::cuda::regions(batch_at(data, num_bytes, num_masks), pointer<int64_t>(area),
                             pointer<float>(bbox), pointer<float>(centroid),
                             stream_of(device, stream));
}

int64_t pairs_workspace(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t other,
                        int64_t other_bytes, int64_t num_other, int64_t num_images) {
  return sa1b::cuda::pairs_workspace(batch_at(data, num_bytes, num_masks),
                                     batch_at(other, other_bytes, num_other), num_images);
}

int pairwise(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
             uintptr_t other, int64_t other_bytes, int64_t num_other, int64_t num_images,
             int64_t rows, int64_t columns, uintptr_t iscrowd, int kind, uintptr_t out,
             uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::pairwise(
      batch_at(data, num_bytes, num_masks), batch_at(other, other_bytes, num_other),
      {kind, num_images, rows, columns, pointer<const uint8_t>(iscrowd), pointer<void>(out)},
      pointer<void>(workspace), stream_of(device, stream));
}

int count_pairs(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
                uintptr_t other, int64_t other_bytes, int64_t num_other, int64_t num_images,
                uintptr_t begins, uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::count_pairs(
      batch_at(data, num_bytes, num_masks), batch_at(other, other_bytes, num_other), num_images,
      pointer<int64_t>(begins), pointer<void>(workspace), stream_of(device, stream));
}

int write_pairs(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
                uintptr_t other, int64_t other_bytes, int64_t num_other, int64_t num_images,
                int64_t capacity, uintptr_t indices, uintptr_t intersection, uintptr_t begins,
                uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::write_pairs(
      batch_at(data, num_bytes, num_masks), batch_at(other, other_bytes, num_other),
      {num_images, capacity, pointer<int64_t>(indices), pointer<int64_t>(intersection)},
      pointer<const int64_t>(begins), pointer<void>(workspace), stream_of(device, stream));
}

sa1b::Dense dense_at(uintptr_t data, int64_t num_masks, int64_t h, int64_t w, int64_t mask_stride,
                     int64_t row_stride, int64_t column_stride, int item_size,
                     uint64_t value_bits) {
  return {pointer<const uint8_t>(data),
          num_masks,
          h,
          w,
          mask_stride,
          row_stride,
          column_stride,
          item_size,
          value_bits};
}

int64_t encode_workspace(uintptr_t data, int64_t num_masks, int64_t h, int64_t w,
                         int64_t mask_stride, int64_t row_stride, int64_t column_stride,
                         int item_size, uint64_t value_bits) {
  return sa1b::cuda::encode_workspace(dense_at(data, num_masks, h, w, mask_stride, row_stride,
                                               column_stride, item_size, value_bits));
}

int encode_measure(int device, uintptr_t stream, uintptr_t data, int64_t num_masks, int64_t h,
                   int64_t w, int64_t mask_stride, int64_t row_stride, int64_t column_stride,
                   int item_size, uint64_t value_bits, uintptr_t workspace, uintptr_t num_chars) {
  py::gil_scoped_release release;
  return sa1b::cuda::encode_measure(dense_at(data, num_masks, h, w, mask_stride, row_stride,
                                             column_stride, item_size, value_bits),
                                    pointer<void>(workspace), pointer<int64_t>(num_chars),
                                    stream_of(device, stream));
}

int encode_write(int device, uintptr_t stream, uintptr_t data, int64_t num_masks, int64_t h,
                 int64_t w, int64_t mask_stride, int64_t row_stride, int64_t column_stride,
                 int item_size, uint64_t value_bits, uintptr_t workspace, uintptr_t block) {
  py::gil_scoped_release release;
  return sa1b::cuda::encode_write(dense_at(data, num_masks, h, w, mask_stride, row_stride,
                                           column_stride, item_size, value_bits),
                                  pointer<const void>(workspace), pointer<uint8_t>(block),
                                  stream_of(device, stream));
}

int64_t sampling_workspace(int64_t num_bytes, int64_t num_masks) {
  return sa1b::cuda::sampling_workspace(batch_at(0, num_bytes, num_masks));
}

int boundary_area(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes,
                  int64_t num_masks, uintptr_t area, uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::boundary_area(batch_at(data, num_bytes, num_masks), pointer<int64_t>(area),
                                   pointer<void>(workspace), stream_of(device, stream));
}

int pixels_at_ranks(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes,
                    int64_t num_masks, int region, uintptr_t ranks, int64_t num_ranks,
                    uintptr_t points, uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::pixels_at_ranks(
      batch_at(data, num_bytes, num_masks), static_cast<sa1b::Region>(region),
      pointer<const int64_t>(ranks), num_ranks, pointer<int64_t>(points), pointer<void>(workspace),
      stream_of(device, stream));
}

int paint_labels(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
                 int64_t num_images, uintptr_t order, uintptr_t labels, int32_t background,
                 int64_t out_h, int64_t out_w, uintptr_t out, uintptr_t workspace) {
  py::gil_scoped_release release;
  return sa1b::cuda::paint_labels(
      batch_at(data, num_bytes, num_masks),
      {num_images, pointer<const int64_t>(order), pointer<const int32_t>(labels), background, out_h,
       out_w, pointer<int32_t>(out)},
      pointer<void>(workspace), stream_of(device, stream));
}

int suppress(int device, uintptr_t stream, int64_t num_masks, int64_t num_pairs, uintptr_t area,
             uintptr_t begins, uintptr_t indices, uintptr_t intersection, int64_t num_images,
             uintptr_t order, uintptr_t labels, int metric, double threshold, uintptr_t keep,
             uintptr_t ranks) {
  py::gil_scoped_release release;
  return sa1b::cuda::suppress(
      {num_masks, num_pairs, pointer<const int64_t>(area), pointer<const int64_t>(begins),
       pointer<const int64_t>(indices), pointer<const int64_t>(intersection)},
      {num_images, pointer<const int64_t>(order), pointer<const int64_t>(labels), metric, threshold,
       pointer<uint8_t>(keep)},
      pointer<int64_t>(ranks), stream_of(device, stream));
}

sa1b::Boundaries boundaries_at(uintptr_t positions, uintptr_t begins, uintptr_t ends,
                               uintptr_t sizes, int64_t num_masks) {
  sa1b::Boundaries boundaries = {};
  boundaries.positions = pointer<uint32_t>(positions);
  boundaries.begins = pointer<int64_t>(begins);
  boundaries.ends = pointer<int64_t>(ends);
  boundaries.sizes = pointer<int64_t>(sizes);
  boundaries.num_masks = num_masks;
  return boundaries;
}

int compress_measure(int device, uintptr_t stream, uintptr_t positions, uintptr_t begins,
                     uintptr_t ends, uintptr_t sizes, int64_t num_masks, bool inverted,
                     uintptr_t char_begins) {
  py::gil_scoped_release release;
  sa1b::Boundaries boundaries = boundaries_at(positions, begins, ends, sizes, num_masks);
  boundaries.inverted = inverted;
  return sa1b::cuda::compress_measure(boundaries, pointer<int64_t>(char_begins),
                                      stream_of(device, stream));
}

int compress_write(int device, uintptr_t stream, uintptr_t positions, uintptr_t begins,
                   uintptr_t ends, uintptr_t sizes, int64_t num_masks, bool inverted,
                   uintptr_t char_begins, uintptr_t images, int64_t num_images, uintptr_t block) {
  py::gil_scoped_release release;
  sa1b::Boundaries boundaries = boundaries_at(positions, begins, ends, sizes, num_masks);
  boundaries.inverted = inverted;
  boundaries.images = {pointer<const int64_t>(images), num_images};
  return sa1b::cuda::compress_write(boundaries, pointer<const int64_t>(char_begins),
                                    pointer<uint8_t>(block), stream_of(device, stream));
}

int64_t combine_workspace(uintptr_t data, int64_t num_bytes, int64_t num_masks, uintptr_t other,
                          int64_t other_bytes, int64_t num_other, int64_t num_members,
                          int64_t max_boundaries) {
  return sa1b::cuda::combine_workspace(batch_at(data, num_bytes, num_masks),
                                       batch_at(other, other_bytes, num_other), num_members,
                                       max_boundaries);
}

int combine(int device, uintptr_t stream, uintptr_t data, int64_t num_bytes, int64_t num_masks,
            uintptr_t other, int64_t other_bytes, int64_t num_other, int kind, uintptr_t members,
            int64_t num_members, uintptr_t group_offsets, int64_t num_groups,
            int64_t max_boundaries, uintptr_t workspace, uintptr_t positions, uintptr_t begins,
            uintptr_t ends, uintptr_t sizes, uintptr_t status) {
  py::gil_scoped_release release;
  return sa1b::cuda::combine(batch_at(data, num_bytes, num_masks),
                             batch_at(other, other_bytes, num_other),
                             {kind,
                              pointer<const int64_t>(members),
                              num_members,
                              pointer<const int64_t>(group_offsets),
                              num_groups,
                              {}},
                             max_boundaries, pointer<void>(workspace),
                             boundaries_at(positions, begins, ends, sizes, num_groups),
                             pointer<int64_t>(status), stream_of(device, stream));
}

}  // namespace

void sa1b::bind_cuda(py::module_& m) {
  m.def("describe", &sa1b::cuda::describe);
  m.def("decode_workspace", &decode_workspace);
  m.def("decode", &decode);
  m.def("regions", &regions);
  m.def("pairs_workspace", &pairs_workspace);
  m.def("pairwise", &pairwise);
  m.def("count_pairs", &count_pairs);
  m.def("write_pairs", &write_pairs);
  m.def("encode_workspace", &encode_workspace);
  m.def("encode_measure", &encode_measure);
  m.def("encode_write", &encode_write);
  m.def("sampling_workspace", &sampling_workspace);
  m.def("boundary_area", &boundary_area);
  m.def("pixels_at_ranks", &pixels_at_ranks);
  m.def("paint_labels", &paint_labels);
  m.def("suppress", &suppress);
  m.def("compress_measure", &compress_measure);
  m.def("compress_write", &compress_write);
  m.def("combine_workspace", &combine_workspace);
  m.def("combine", &combine);
}
