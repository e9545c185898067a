// What masks have in common, pair by pair, from their runs: no pixel is made.
//
// Outlines: one pass over the characters of each batch splits the runs of every mask in two. The
// first run of a column, if it ends in that column, goes into a table with two 16-bit rows a
// column; all others are listed by position, each with the pixels of those listed before it. In
// SA-1B 96 % of the runs go into the tables. A column takes 4 bytes, and a table has at most two
// for each of its runs; a listed run takes 8. So a run takes 4 bytes in most masks and never more
// than 8.
//
// Pairs: threads take rows of the output. The row's box is tested against all others, a few at a
// time in vector registers. Of two masks whose boxes meet only shared columns are looked at: table
// against table 8 columns in 9 instructions, a listed run against a table in one look-up a column,
// lists by a merge without branches, or by searching the longer one for each run of the shorter
// one. Pixels in common are the sum of the four. A batch with itself is half the pairs.
//
// Bound: splitting the runs, 75 us of 95 for 100 masks of SA-1B, of which reading characters is 20.
#include "pairs.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kScratchHits = 1 << 20;  // 8 MB of pairs between the threads and their output

}  // namespace

int64_t pairwise(const Batch& a, const Batch& b, const Pairwise& pairs, int num_threads) {
  return for_each_pair(
      a, b, pairs.num_images, pairs.rows, pairs.columns, num_threads,
      [&](int64_t at, int64_t, int64_t j, uint32_t area_of_row, uint32_t area_of_column,
          uint32_t shared) { pairs.write(at, j, area_of_row, area_of_column, shared); });
}

int64_t intersecting_pairs(const Batch& a, const Batch& b, const IntersectingPairs& pairs,
                           int num_threads) {
  std::vector<Image> images;
  const int64_t status = find_images(a, b, pairs.num_images, &images);
  if (status != kOk) return status;
  if (a.num_masks == 0 || b.num_masks == 0) return 0;
  int64_t most = 1;
  for (const Image& image : images) most = std::max(most, image.columns);
  const Sides sides(a, b, std::move(images), num_threads);

  // Threads fill rows of hits, a block of rows at a time; then the hits are written in order.
  struct Hit {
    uint32_t column, area;
  };
  const int64_t block = std::clamp<int64_t>(kScratchHits / most, 1, a.num_masks);
  const std::unique_ptr<Hit[]> hits(new Hit[block * most]);
  std::vector<int64_t> num_hits(block);
  int64_t found = 0;
  for (int64_t begin = 0; begin < a.num_masks; begin += block) {
    const int64_t rows = std::min(block, a.num_masks - begin);
    parallel_if_long(rows, num_threads, [&](int64_t r) {
      const Image& image = sides.images[sides.image_of(begin + r)];
      const Outline& row = sides.rows[begin + r];
      Hit* next = hits.get() + r * most;
      sides.boxes.for_each_meeting(
          row.box, image.first_column, image.first_column + image.columns, [&](int64_t j) {
            const uint32_t shared = intersect(row, sides.columns[j]);
            *next = {static_cast<uint32_t>(j - image.first_column), shared};
            next += shared > 0;
          });
      num_hits[r] = next - (hits.get() + r * most);
    });
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = sides.images[sides.image_of(begin + r)].first_column;
      for (int64_t k = 0; k < num_hits[r]; ++k, ++found) {
        if (found >= pairs.capacity) continue;
        const Hit& hit = hits[r * most + k];
        pairs.indices[2 * found] = begin + r;
        pairs.indices[2 * found + 1] = first + hit.column;
        pairs.intersection[found] = hit.area;
      }
    }
  }
  return found;
}

}  // namespace sa1b::cpu
