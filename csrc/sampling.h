// Launchers that pick pixels of masks. Conventions and status codes are those of launch.h.
#pragma once

#include "launch.h"

namespace sa1b {

// The pixels of a mask that are picked from. Each kind is ordered by position, column by column.
enum class Region : uint8_t {
  kForeground = 0,
  kBackground = 1,
  kBoundary = 2,  // foreground with a pixel of background, or the image's border, above, below,
                  // left or right of it
};

namespace cpu {

int64_t boundary_area(const Batch& batch,
                      int64_t* area,  // [N] pixels
                      int num_threads);

// The pixels at places in the order of a region.
int64_t pixels_at_ranks(const Batch& batch, Region region,
                        const int64_t* ranks,  // [N][num_ranks] from 0 on, in any order
                        int64_t num_ranks,
                        int64_t* points,  // [N][num_ranks][2] x, y; -1, -1 where there is no such
                                          // pixel
                        int num_threads);

constexpr int64_t kMaxInteriorRows = 1 << 24;  // of a mask, which bounds the scratch memory

// The pixel of each mask that is farthest from all outside it, in the image or beyond, measured by
// the larger of the distances in x and in y; of equals the one of the lowest position. kBadShape
// for more than kMaxInteriorRows rows.
int64_t interior_points(const Batch& batch,
                        int64_t* points,  // [N][3] x, y, and that distance; -1, -1, 0 if empty
                        int num_threads);

}  // namespace cpu

namespace cuda {

int64_t sampling_workspace(const Batch& batch);  // for both that follow

int boundary_area(const Batch& batch, int64_t* area, void* workspace, const Stream& stream);

int pixels_at_ranks(const Batch& batch, Region region, const int64_t* ranks, int64_t num_ranks,
                    int64_t* points, void* workspace, const Stream& stream);

}  // namespace cuda
}  // namespace sa1b
