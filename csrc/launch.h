// Every kernel's launcher. Raw pointers and sizes, no Python and no torch; N = batch.num_masks.
// Those of the CPU return kOk or one of the codes below and may throw std::bad_alloc before they
// write anything.
#pragma once

#include <cstdint>
#include <memory>

#include "rle_format.h"

namespace sa1b {

constexpr int64_t kOk = -1;
constexpr int64_t kBadHeader = -2;   // sizes or offsets that do not fit the block
constexpr int64_t kBadPlane = -3;    // a plane that shows no mask of the batch
constexpr int64_t kBadWindow = -4;   // a crop outside its mask, or a plane smaller than its mask
constexpr int64_t kBadShape = -5;    // sizes that no mask has
constexpr int64_t kMixedSizes = -6;  // masks of different sizes, which cannot be compared
constexpr int64_t kBadLabel = -7;    // an unsigned label of 2**63 or more

// What `decode` writes: `num_planes` planes of `out_h` rows and `out_w` columns.
struct Decode {
  const int64_t* planes;  // [num_planes] the mask each plane shows, -1 for none; null: mask i
  int64_t num_planes;
  const int64_t* crops;  // [num_planes][4] window (y, x, h, w) of the mask to show; null: all of it
  bool resize;           // stretch the window to the plane; else it lies top left, zeros around
  int64_t out_h, out_w;
  void* out;      // [num_planes][out_h][out_w] elements of item_size bytes
  int item_size;  // 1, 2 or 4; 0: a bit a pixel, the first of 8 the lowest, rows of whole bytes
  uint32_t one;   // the bits of an element inside the mask; outside it is all zero bits
  bool fresh;     // `out` is a ZeroPages block that nobody has written to
};

// How the masks of a result are grouped by image.
struct Images {
  const int64_t* table = nullptr;  // [num_images][3] number of masks, h, w of each image
  int64_t num_images = 0;          // 0: not grouped
};

// What `encode` reads: masks of elements, of which each is foreground or background.
struct Dense {
  const uint8_t* data;  // element (0, 0, 0) of [num_masks][h][w] elements of item_size bytes
  int64_t num_masks, h, w;
  int64_t mask_stride, row_stride, column_stride;  // in bytes, of any sign, zero included
  int item_size;                                   // 1, 2, 4 or 8
  uint64_t value_bits;  // an element is foreground if any of these bits is set
};

constexpr int64_t kNotGrouped = -1;  // in place of a number of images: all pairs are compared

// What `pairwise` writes: mask i of one batch (N masks) against mask j of another (M masks), or, of
// batches grouped by image, against those of the same image only.
struct Pairwise {
  enum Kind : uint8_t { kIntersection = 0, kIou = 1, kContainment = 2 };
  int kind;
  int64_t num_images;      // of both batches, or kNotGrouped
  int64_t rows, columns;   // [N], [M]; grouped: the most masks that an image has in either batch
  const uint8_t* iscrowd;  // [M] nonzero: the union is the area of mask i alone; null: none is
  void* out;               // [rows][columns], grouped: [num_images][rows][columns]; int64 for
                           // kIntersection, else float. Zero before: only what is not is written.

  // Writes element `at`, of a pair with at least one pixel in common; `column` is mask j.
  SA1B_HD void write(int64_t at, int64_t column, uint32_t area_of_row, uint32_t area_of_column,
                     uint32_t intersection) const {
    if (kind == kIntersection) {
      static_cast<int64_t*>(out)[at] = intersection;
      return;
    }
    uint64_t divisor = area_of_column;
    if (kind == kIou) {
      const bool crowd = iscrowd && iscrowd[column];
      divisor = crowd ? area_of_row : uint64_t{area_of_row} + area_of_column - intersection;
    }
    const double quotient = static_cast<double>(intersection) / static_cast<double>(divisor);
    static_cast<float*>(out)[at] = static_cast<float>(quotient);
  }
};

// What `intersecting_pairs` writes: the pairs with a pixel in common, sorted.
struct IntersectingPairs {
  int64_t num_images;     // of both batches, or kNotGrouped
  int64_t capacity;       // pairs beyond it are counted, not written
  int64_t* indices;       // [capacity][2] i and j, also of grouped batches counted over all images
  int64_t* intersection;  // [capacity] pixels
};

// Masks by their boundaries: positions where a pixel differs from the one before, background
// before the first.
struct Boundaries {
  uint32_t* positions;  // those of each mask rise, and are below its h*w
  int64_t* begins;      // [N] where in `positions` those of each mask begin
  int64_t* ends;        // [N]
  int64_t* sizes;       // [N][2] h, w of each mask
  int64_t num_masks;
  bool inverted;  // background and foreground change places
  Images images;
};

namespace cpu {

int64_t decode(const Batch& batch, const Decode& decode, int num_threads);

// Any output may be null.
int64_t regions(const Batch& batch,
                int64_t* area,    // [N] pixels
                float* bbox,      // [N][4] x, y, w, h in full pixels; zeros for an empty mask
                float* centroid,  // [N][2] y, x of pixel centres; NaN for an empty mask
                int num_threads);

int64_t pairwise(const Batch& a, const Batch& b, const Pairwise& pairs, int num_threads);

// How many pairs there are, or one of the codes above.
int64_t intersecting_pairs(const Batch& a, const Batch& b, const IntersectingPairs& pairs,
                           int num_threads);

// The index of the first mask whose string is not exactly a mask of its size, or kOk.
int64_t validate(const Batch& batch);

// Counts to strings. Writes at most kMaxCharsPerCount characters a count.
void compress(const uint32_t* counts,        // [count_offsets[N]]
              const int64_t* count_offsets,  // [N+1]
              int64_t num_masks,
              uint8_t* chars,          // [kMaxCharsPerCount * count_offsets[N]]
              int64_t* char_offsets);  // [N+1]

// Strings to counts: at most one count a character.
int64_t decompress(const Batch& batch,
                   uint32_t* counts,         // [characters in the batch]
                   int64_t* count_offsets);  // [N+1]

// Encoded masks. How long their strings are is known only at the end, so they are held here until
// there is a block to put them into.
class Encoded {
 public:
  Encoded();
  ~Encoded();

  int64_t num_bytes() const;   // of the block
  void write(uint8_t* block);  // [num_bytes], 8-byte aligned; once: gives its memory back meanwhile

  struct State;
  std::unique_ptr<State> state;
};

int64_t encode(const Dense& dense, int num_threads, Encoded* encoded);

}  // namespace cpu

// On the GPU all pointers are device pointers. A launcher sets the device, allocates nothing, waits
// for nothing, and returns 0, a cudaError_t, or one of the codes above (negative) for what can be
// told without reading the batch. Kernels stay inside their buffers whatever the bytes are: a mask
// whose header contradicts itself, a plane that shows no mask and a crop outside its mask are
// empty. `workspace` is memory of as many bytes as the function beside says, aligned to 256; of
// none where the launcher will find that a header does not fit.
namespace cuda {

// Where to run.
struct Stream {
  int device;
  void* stream;  // a cudaStream_t
};

const char* describe(int error);

int64_t decode_workspace(const Batch& batch, int64_t num_images);

// Grouped (num_images is not kNotGrouped, planes is null): as many planes for each image, which
// show its masks and then nothing. `fresh` is of no concern here.
int decode(const Batch& batch, int64_t num_images, const Decode& decode, void* workspace,
           const Stream& stream);

int regions(const Batch& batch, int64_t* area, float* bbox, float* centroid, const Stream& stream);

// For all that follow.
int64_t pairs_workspace(const Batch& a, const Batch& b, int64_t num_images);

// Pairs of masks of different sizes have no pixel in common.
int pairwise(const Batch& a, const Batch& b, const Pairwise& pairs, void* workspace,
             const Stream& stream);

// How many pairs have pixels in common: begins[i] pairs come before those of mask i, begins[N] all.
int count_pairs(const Batch& a, const Batch& b, int64_t num_images,
                int64_t* begins,  // [N + 1]
                void* workspace, const Stream& stream);

// Writes them, with the workspace that `count_pairs` has filled.
int write_pairs(const Batch& a, const Batch& b, const IntersectingPairs& pairs,
                const int64_t* begins,  // [N + 1]
                void* workspace, const Stream& stream);

// Encodes in two steps, since only after the first one is it known how long the strings are: it
// leaves in the workspace all that the second one needs. Elements are aligned to their size.
int64_t encode_workspace(const Dense& dense);  // bytes
int encode_measure(const Dense& dense,
                   void* workspace,     // [encode_workspace], 256-byte aligned
                   int64_t* num_chars,  // [1] of all strings
                   const Stream& stream);
int encode_write(const Dense& dense, const void* workspace,
                 uint8_t* block,  // [8*(3*N+1) + num_chars], 8-byte aligned
                 const Stream& stream);

// Makes compressed strings of boundaries, in two steps as `encode` does.
int compress_measure(const Boundaries& boundaries,
                     int64_t* char_begins,  // [N + 1] characters before each string, and of all
                     const Stream& stream);
int compress_write(const Boundaries& boundaries,
                   const int64_t* char_begins,  // [N + 1]
                   uint8_t* block,  // [8*(3*N+1+3*num_images) + char_begins[N]], 8-byte aligned
                   const Stream& stream);

}  // namespace cuda
}  // namespace sa1b
