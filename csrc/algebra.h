// Launchers of the kernels that make masks of masks: strings in, strings out, no pixels. As in
// launch.h; N = batch.num_masks. Every result is canonical: the string that encoding the dense
// masks would give.
#pragma once

#include "launch.h"

namespace sa1b {

// What `combine` makes: a mask from each group of masks of the same size.
struct Combine {
  enum Kind : uint8_t {
    kUnion = 0,         // in any mask of the group
    kIntersection = 1,  // in all of them
    kXor = 2,           // in an odd number of them
    kDifference = 3,    // in the first and no other
    kComplement = 4,    // in none of them
  };
  int kind;
  const int64_t* members;  // [num_members] masks: i < N of the first batch, N + j of the second
  int64_t num_members;
  const int64_t* group_offsets;  // [num_groups + 1] where in `members` each group begins; not empty
  int64_t num_groups;
  Images images;
};

// What `place` makes: the window of each mask, zeros where it reaches out of the mask, stretched to
// a size.
struct Place {
  const int64_t* windows;  // [N][4] y, x, h, w; y and x of any sign
  const int64_t* sizes;    // [N][2] h, w of the result
  Images images;
};

// What `turn` makes: the masks with rows and columns exchanged and then reversed.
struct Turn {
  bool transpose, reverse_rows, reverse_columns;
  Images images;
};

namespace cpu {

int64_t combine(const Batch& a, const Batch& b, const Combine& combine, int num_threads,
                Encoded* encoded);

int64_t place(const Batch& batch, const Place& place, int num_threads, Encoded* encoded);

int64_t turn(const Batch& batch, const Turn& turn, int num_threads, Encoded* encoded);

}  // namespace cpu

namespace cuda {

// Finds the boundaries of the results; of kComplement those of the union, which are then to be
// inverted. All groups have members, and all members are masks.
int64_t combine_workspace(const Batch& a, const Batch& b, int64_t num_members,
                          int64_t max_boundaries);  // bytes
int combine(const Batch& a, const Batch& b, const Combine& combine,
            int64_t max_boundaries,  // of all members together; what is beyond is left out
            void* workspace,
            const Boundaries& boundaries,  // positions [max_boundaries], and all of each group
            int64_t* status,               // [1] kOk; kMixedSizes: masks of a group differ in size
            const Stream& stream);

}  // namespace cuda
}  // namespace sa1b
