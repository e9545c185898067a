// The truth that the kernels are compared with: every function here follows the definition of the
// format word by word, shares no code with the library, and is as slow as that makes it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "check.h"
#include "launch.h"

namespace sa1b::test {

using Counts = std::vector<uint32_t>;
using Chars = std::vector<uint8_t>;

// Heap memory of exactly `n` elements, so that AddressSanitizer sees an access beside them.
template <class T>
std::unique_ptr<T[]> exactly(int64_t n) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(n)]);
}

// ---- strings

// The fewest characters, at least `min_chars`, that hold the value in two's complement.
inline void append_value(int64_t value, Chars* chars, int min_chars = 1) {
  int n = 1;
  while (n < min_chars || value < -(int64_t{1} << (5 * n - 1)) ||
         value >= int64_t{1} << (5 * n - 1)) {
    ++n;
  }
  for (int k = 0; k < n; ++k) {
    const int64_t payload = (value >> (5 * k)) & 31;
    chars->push_back(static_cast<uint8_t>(48 + payload + (k + 1 < n ? 32 : 0)));
  }
}

inline Chars to_chars(const Counts& counts) {
  Chars chars;
  for (size_t i = 0; i < counts.size(); ++i) {
    append_value(int64_t{counts[i]} - (i > 2 ? int64_t{counts[i - 2]} : 0), &chars);
  }
  return chars;
}

// The counts of a string that is exactly a mask of h*w pixels, else nothing.
inline std::optional<Counts> parse(const Chars& chars, uint64_t pixels) {
  std::vector<int64_t> counts;
  for (size_t at = 0; at < chars.size();) {
    int64_t value = 0;
    int n = 0;
    for (bool more = true; more; ++n) {
      if (at == chars.size() || n == 7 || chars[at] < 48 || chars[at] >= 48 + 64) return {};
      const int64_t six_bits = chars[at++] - 48;
      value += (six_bits & 31) << (5 * n);
      more = (six_bits & 32) != 0;
    }
    if (value >= int64_t{1} << (5 * n - 1)) value -= int64_t{1} << (5 * n);
    const size_t i = counts.size();
    counts.push_back(value + (i > 2 ? counts[i - 2] : 0));
    if (counts[i] < 0 || counts[i] >= int64_t{1} << 32) return {};
  }
  uint64_t sum = 0;
  for (const int64_t count : counts) sum += static_cast<uint64_t>(count);
  if (sum != pixels) return {};
  return Counts(counts.begin(), counts.end());
}

// ---- masks

struct Rle {
  int64_t h, w;
  Chars chars;
};

// A mask given by its counts, which need not add up to h*w: what lies beyond the image is ignored.
class Pixels {
 public:
  Pixels(int64_t h, const Counts& counts) : h_(static_cast<uint64_t>(h)) {
    uint64_t end = 0;
    for (const uint32_t count : counts) run_ends_.push_back(end += count);
  }

  // Whether (y, x) lies in a run with an odd index, that is in the foreground.
  bool at(int64_t y, int64_t x) const {
    const uint64_t position = static_cast<uint64_t>(x) * h_ + static_cast<uint64_t>(y);
    const auto run = std::upper_bound(run_ends_.begin(), run_ends_.end(), position);
    return run != run_ends_.end() && (run - run_ends_.begin()) % 2 == 1;
  }

 private:
  uint64_t h_;
  std::vector<uint64_t> run_ends_;
};

// Counts of a mask of h*w pixels: empty, full, from the first pixel on, with runs of zero length,
// runs that cross columns or single pixels.
inline Counts random_counts(Random& random, int64_t pixels) {
  Counts counts;
  if (random.one_in(2)) counts.push_back(0);
  const int64_t longest = std::max<int64_t>(1, pixels >> random.below(12));
  const int64_t typical_number = 1 << random.between(3, 12);
  while (pixels > 0) {
    const int64_t count = random.one_in(8) ? 0 : std::min(pixels, random.between(1, longest));
    counts.push_back(static_cast<uint32_t>(random.one_in(typical_number) ? pixels : count));
    pixels -= counts.back();
  }
  if (random.one_in(8)) counts.push_back(0);
  return counts;
}

inline Rle random_rle(Random& random, int64_t h, int64_t w) {
  return {h, w, to_chars(random_counts(random, h * w))};
}

// A batch in memory of exactly its size.
class BatchBlock {
 public:
  explicit BatchBlock(const std::vector<Rle>& rles) {
    std::vector<int64_t> header;
    for (const Rle& rle : rles) header.insert(header.end(), {rle.h, rle.w});
    int64_t at = 8 * (3 * static_cast<int64_t>(rles.size()) + 1);
    const int64_t header_bytes = at;
    header.push_back(at);
    for (const Rle& rle : rles) header.push_back(at += static_cast<int64_t>(rle.chars.size()));
    data_ = exactly<uint8_t>(at);
    memcpy(data_.get(), header.data(), static_cast<size_t>(header_bytes));
    uint8_t* to = data_.get() + header_bytes;
    for (const Rle& rle : rles) to = std::copy(rle.chars.begin(), rle.chars.end(), to);
    batch_ = {data_.get(), at, static_cast<int64_t>(rles.size())};
  }

  const Batch& batch() const { return batch_; }
  void set_word(int64_t i, int64_t value) { memcpy(data_.get() + 8 * i, &value, 8); }

 private:
  std::unique_ptr<uint8_t[]> data_;
  Batch batch_;
};

// A block of the masks of several images; grouped, a table of images lies before the strings.
inline std::vector<uint8_t> make_block(const std::vector<std::vector<Rle>>& images, bool grouped) {
  std::vector<Rle> all;
  std::vector<int64_t> table;
  for (const auto& image : images) {
    all.insert(all.end(), image.begin(), image.end());
    if (grouped) table.insert(table.end(), {static_cast<int64_t>(image.size()), 0, 0});
  }
  const BatchBlock flat(all);
  const Batch& batch = flat.batch();
  const auto extra = static_cast<int64_t>(8 * table.size());
  const int64_t n = batch.num_masks, head = 8 * (3 * n + 1);
  std::vector<uint8_t> block(batch.data, batch.data + head);
  for (int64_t i = 0; i <= n; ++i) {
    const int64_t offset = batch.word(2 * n + i) + extra;
    memcpy(block.data() + 8 * (2 * n + i), &offset, 8);
  }
  const auto* const bytes = reinterpret_cast<const uint8_t*>(table.data());
  block.insert(block.end(), bytes, bytes + extra);
  block.insert(block.end(), batch.data + head, batch.data + batch.num_bytes);
  return block;
}

// The counts that the library reads from every mask, whatever its bytes are.
inline std::vector<Counts> read_counts(const Batch& batch) {
  const auto counts = exactly<uint32_t>(batch.num_bytes - 8 * (3 * batch.num_masks + 1));
  const auto offsets = exactly<int64_t>(batch.num_masks + 1);
  CHECK(cpu::decompress(batch, counts.get(), offsets.get()) == kOk);
  std::vector<Counts> all(static_cast<size_t>(batch.num_masks));
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    all[i].assign(counts.get() + offsets[i], counts.get() + offsets[i + 1]);
  }
  return all;
}

// ---- decoding

inline int64_t reference_source(int64_t d, int64_t in, int64_t out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float source = std::floor((static_cast<float>(d) + 0.5f) * scale);
  return std::min(static_cast<int64_t>(source), in - 1);
}

// Whether every element of d.out is what its definition says, given the counts of each mask.
inline bool decoded_right(const std::vector<Rle>& rles, const std::vector<Counts>& counts,
                          const Decode& d) {
  const auto* at = static_cast<const uint8_t*>(d.out);
  for (int64_t plane = 0; plane < d.num_planes; ++plane) {
    const int64_t i = d.planes ? d.planes[plane] : plane;
    const Pixels pixels(i < 0 ? 0 : rles[i].h, i < 0 ? Counts{} : counts[i]);
    int64_t window[4] = {0, 0, i < 0 ? 0 : rles[i].h, i < 0 ? 0 : rles[i].w};
    if (d.crops) std::copy_n(d.crops + 4 * plane, 4, window);
    const int64_t h = window[2], w = window[3];
    for (int64_t y = 0; y < d.out_h; ++y) {
      for (int64_t x = 0; x < d.out_w; ++x, at += d.item_size) {
        bool inside = i >= 0 && h > 0 && w > 0;
        int64_t source_y = y, source_x = x;
        if (d.resize && inside) {
          source_y = reference_source(y, h, d.out_h);
          source_x = reference_source(x, w, d.out_w);
        }
        inside = inside && source_y < h && source_x < w &&
                 pixels.at(window[0] + source_y, window[1] + source_x);
        const uint32_t expected = inside ? d.one : 0;
        if (memcmp(at, &expected, static_cast<size_t>(d.item_size)) != 0) return false;
      }
    }
  }
  return true;
}

// ---- regions

struct Regions {
  std::unique_ptr<int64_t[]> area;
  std::unique_ptr<float[]> bbox, centroid;
};

inline Regions run_regions(const Batch& batch, int num_threads) {
  Regions r = {exactly<int64_t>(batch.num_masks), exactly<float>(4 * batch.num_masks),
               exactly<float>(2 * batch.num_masks)};
  CHECK(cpu::regions(batch, r.area.get(), r.bbox.get(), r.centroid.get(), num_threads) == kOk);
  return r;
}

// Whether the regions of mask i are what a sum over its pixels gives. Each float is a quotient of
// exact integers, hence equal and not only close.
inline bool regions_right(const Regions& r, int64_t i, const Rle& rle, const Counts& counts) {
  const Pixels pixels(rle.h, counts);
  int64_t area = 0, sum_y = 0, sum_x = 0;
  int64_t top = rle.h, bottom = 0, left = rle.w, right = 0;
  for (int64_t y = 0; y < rle.h; ++y) {
    for (int64_t x = 0; x < rle.w; ++x) {
      if (!pixels.at(y, x)) continue;
      ++area;
      sum_y += y;
      sum_x += x;
      top = std::min(top, y);
      bottom = std::max(bottom, y + 1);
      left = std::min(left, x);
      right = std::max(right, x + 1);
    }
  }
  const float* bbox = r.bbox.get() + 4 * i;
  const float* centroid = r.centroid.get() + 2 * i;
  if (area == 0) {
    return r.area[i] == 0 && std::all_of(bbox, bbox + 4, [](float side) { return side == 0; }) &&
           std::isnan(centroid[0]) && std::isnan(centroid[1]);
  }
  const auto n = static_cast<double>(area);
  return r.area[i] == area && bbox[0] == static_cast<float>(left) &&
         bbox[1] == static_cast<float>(top) && bbox[2] == static_cast<float>(right - left) &&
         bbox[3] == static_cast<float>(bottom - top) &&
         centroid[0] == static_cast<float>(static_cast<double>(sum_y) / n) &&
         centroid[1] == static_cast<float>(static_cast<double>(sum_x) / n);
}

// ---- pairs

// The pixels of h*w that are inside both masks, given by their counts: runs in order, one by one.
inline int64_t shared_pixels(int64_t pixels, const Counts& a, const Counts& b) {
  const auto foreground = [&](const Counts& counts) {
    std::vector<std::pair<int64_t, int64_t>> runs;
    int64_t end = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const int64_t begin = std::min(end, pixels);
      end += int64_t{counts[i]};
      if (i % 2 == 1) runs.emplace_back(begin, std::min(end, pixels));
    }
    return runs;
  };
  int64_t shared = 0;
  const auto runs_of_b = foreground(b);
  for (const auto& [begin_a, end_a] : foreground(a)) {
    for (const auto& [begin_b, end_b] : runs_of_b) {
      shared += std::max<int64_t>(0, std::min(end_a, end_b) - std::max(begin_a, begin_b));
    }
  }
  return shared;
}

// What every pair of masks shares, by definition: [N][M].
inline std::vector<int64_t> all_shared(const std::vector<Rle>& rles, const Batch& a,
                                       const Batch& b) {
  const std::vector<Counts> counts_a = read_counts(a), counts_b = read_counts(b);
  std::vector<int64_t> shared;
  for (const Counts& row : counts_a) {
    for (const Counts& column : counts_b) {
      shared.push_back(shared_pixels(rles[0].h * rles[0].w, row, column));
    }
  }
  return shared;
}

inline std::vector<int64_t> run_intersection(const Batch& a, const Batch& b, int num_threads) {
  const auto out = exactly<int64_t>(a.num_masks * b.num_masks);
  std::fill_n(out.get(), a.num_masks * b.num_masks, int64_t{0});
  const Pairwise pairs = {
      Pairwise::kIntersection, kNotGrouped, a.num_masks, b.num_masks, nullptr, out.get()};
  CHECK(cpu::pairwise(a, b, pairs, num_threads) == kOk);
  return {out.get(), out.get() + a.num_masks * b.num_masks};
}

// The pairs that share pixels, laid out as a matrix again; in order, and room for exactly all.
inline std::vector<int64_t> run_intersecting_pairs(const Batch& a, const Batch& b,
                                                   int num_threads) {
  IntersectingPairs pairs = {kNotGrouped, 0, nullptr, nullptr};
  const int64_t found = cpu::intersecting_pairs(a, b, pairs, num_threads);
  CHECK(found >= 0);
  const auto indices = exactly<int64_t>(2 * found), intersection = exactly<int64_t>(found);
  pairs = {kNotGrouped, found, indices.get(), intersection.get()};
  CHECK(cpu::intersecting_pairs(a, b, pairs, num_threads) == found);
  std::vector<int64_t> shared(static_cast<size_t>(a.num_masks * b.num_masks));
  int64_t last = -1;
  for (int64_t k = 0; k < found; ++k) {
    const int64_t at = indices[2 * k] * b.num_masks + indices[2 * k + 1];
    CHECK(at > last && intersection[k] > 0);
    shared[at] = intersection[k];
    last = at;
  }
  return shared;
}

// Compares the strings with one another, all taken as masks of the size that the first one has.
inline void check_pairs_of_one_size(std::vector<Rle> rles) {
  if (rles.empty()) return;
  for (Rle& rle : rles) rle = {rles[0].h, rles[0].w, rle.chars};
  const BatchBlock block(rles), last(std::vector<Rle>{rles.back()});
  const Batch& batch = block.batch();
  const std::vector<int64_t> shared = all_shared(rles, batch, batch);
  CHECK(run_intersection(batch, batch, 2) == shared);
  CHECK(run_intersecting_pairs(batch, batch, 2) == shared);
  CHECK(run_intersection(batch, last.batch(), 2) == all_shared(rles, batch, last.batch()));
}

}  // namespace sa1b::test
