// What COCO run-length encoding is, and how a batch of it lies in memory. Read this file first.
//
// A mask of `h` rows and `w` columns is a list of `counts`: lengths of runs, background first, then
// alternating. Runs walk the pixels column by column: pixel (y, x) has position x*h + y. The counts
// add up to h*w < 2**32. A count of zero is legal anywhere and changes nothing.
//
// In the compressed string every character minus 48 gives 6 bits: the low 5 are payload, least
// significant first; 0x20 says that more characters follow; 0x10 of the last one is the sign. From
// the fourth count on (index > 2) the value stored is the difference to the count two before.
//
// A batch ("RLEBatch" in Python) is one block of bytes:
//
//     int64 sizes[N][2]         h, w of each mask
//     int64 offsets[N+1]        where each string starts, in bytes from the start of the block
//     int64 images[B][3]        only if grouped by image: number of masks, h, w of each image
//     uint8 chars[]             the compressed strings, one after another
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define SA1B_HD __host__ __device__ __forceinline__
#else
#define SA1B_HD inline
#endif

// For the few loops whose state must stay in registers; also on lambdas, behind their parameters.
#if defined(__GNUC__)
#define SA1B_ALWAYS_INLINE __attribute__((always_inline))
#else
#define SA1B_ALWAYS_INLINE
#endif

namespace sa1b {

constexpr int kMaxCharsPerCount = 7;  // 7 * 5 bits hold any count below 2**32 and its sign
constexpr uint64_t kMaxPixels = (1ull << 32) - 1;  // h*w of one mask

constexpr uint32_t kCharBase = 48;
constexpr uint32_t kPayloadBits = 5;
constexpr uint32_t kPayload = 0x1f;
constexpr uint32_t kSign = 0x10;
constexpr uint32_t kMore = 0x20;

// One mask of a batch: its size and its compressed string.
struct Mask {
  const uint8_t* begin = nullptr;
  const uint8_t* end = nullptr;
  uint32_t h = 0, w = 0;

  SA1B_HD uint64_t pixels() const { return uint64_t{h} * w; }
};

// A batch as the kernels see it.
struct Batch {
  const uint8_t* data;  // [num_bytes], laid out as above, 8-byte aligned
  int64_t num_bytes;
  int64_t num_masks;

  SA1B_HD int64_t word(int64_t i) const {
    int64_t value;
    memcpy(&value, data + 8 * i, 8);
    return value;
  }

  // Whether sizes and offsets fit into the block at all.
  SA1B_HD bool header_fits() const {
    return num_masks >= 0 && num_masks <= num_bytes / 24 && 8 * (3 * num_masks + 1) <= num_bytes;
  }

  // Whether the table of that many images fits behind them, and every mask can be of one.
  SA1B_HD bool images_fit(int64_t num_images) const {
    return num_images >= (num_masks > 0) &&
           num_images <= (num_bytes - 8 * (3 * num_masks + 1)) / 24;
  }

  // Reads mask i. False if the header contradicts itself: nothing may be read then.
  SA1B_HD bool mask(int64_t i, Mask* out) const {
    const int64_t h = word(2 * i), w = word(2 * i + 1);
    const int64_t begin = word(2 * num_masks + i), end = word(2 * num_masks + i + 1);
    if (begin < 0 || begin > end || end > num_bytes) return false;
    const int64_t limit = int64_t{1} << 32;
    if (h < 0 || w < 0 || h >= limit || w >= limit) return false;
    out->begin = data + begin;
    out->end = data + end;
    out->h = static_cast<uint32_t>(h);
    out->w = static_cast<uint32_t>(w);
    return out->pixels() <= kMaxPixels;
  }
};

// Reads the counts of one mask, one at a time. Strings that were validated give exact counts; any
// other bytes give some counts, each below 2**32, and never a read outside the string.
class CountReader {
 public:
  SA1B_HD explicit CountReader(const Mask& mask) : at_(mask.begin), end_(mask.end) {}

  SA1B_HD bool next(uint32_t* count) {
    if (at_ == end_) return false;
    uint32_t c = *at_++ - kCharBase;
    uint32_t value;
    if (c < kMore) {  // 92 % of all values are one character
      value = (c ^ kSign) - kSign;
    } else {
      value = c & kPayload;
      uint32_t shift = kPayloadBits;
      while (c & kMore) {
        if (at_ == end_) return false;
        c = *at_++ - kCharBase;
        if (shift < 32) value |= (c & kPayload) << shift;
        shift += kPayloadBits;
      }
      if ((c & kSign) && shift < 32) value |= ~0u << shift;
    }
    *count = value + older_;
    // The first count never serves as a base, which alone makes the rule "index > 2".
    older_ = newer_;
    newer_ = first_ ? 0 : *count;
    first_ = false;
    return true;
  }

  // For those who read several counts at once.
  SA1B_HD const uint8_t* at() const { return at_; }
  SA1B_HD const uint8_t* end() const { return end_; }
  SA1B_HD bool at_start() const { return first_; }
  SA1B_HD uint32_t older() const { return older_; }
  SA1B_HD uint32_t newer() const { return newer_; }
  SA1B_HD void skip_to(const uint8_t* at, uint32_t older, uint32_t newer) {
    at_ = at;
    older_ = older;
    newer_ = newer;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  uint32_t older_ = 0, newer_ = 0;  // the last two counts
  bool first_ = true;
};

// Writes the counts of one mask, one at a time, with the fewest characters: what CountReader reads.
// Each needs room for kMaxCharsPerCount characters.
class CountWriter {
 public:
  SA1B_HD explicit CountWriter(uint8_t* at) : at_(at) {}

  SA1B_HD void add(uint32_t count) {
    write(int64_t{count} - older_);
    older_ = newer_;
    newer_ = first_ ? 0 : count;  // as in CountReader: the rule "index > 2"
    first_ = false;
  }

  // For those who write a string in pieces: go on after these last two counts, or elsewhere.
  SA1B_HD uint8_t* at() const { return at_; }
  SA1B_HD uint32_t older() const { return older_; }
  SA1B_HD uint32_t newer() const { return newer_; }
  SA1B_HD void go_on_after(uint32_t older, uint32_t newer) {
    older_ = older;
    newer_ = newer;
    first_ = false;
  }
  SA1B_HD void go_on_at(uint8_t* at) { at_ = at; }

 private:
  SA1B_HD void write(int64_t value) {
    if (static_cast<uint64_t>(value + kSign) < kMore) {  // one character, as 92 % of all
      *at_++ = static_cast<uint8_t>(kCharBase + (static_cast<uint32_t>(value) & kPayload));
      return;
    }
    for (bool more = true; more;) {
      const uint32_t low = static_cast<uint32_t>(value) & kPayload;
      value >>= kPayloadBits;
      // Done when the rest is nothing but copies of this character's sign bit.
      more = value != ((low & kSign) ? -1 : 0);
      *at_++ = static_cast<uint8_t>(kCharBase + low + (more ? kMore : 0));
    }
  }

  uint8_t* at_;
  uint32_t older_ = 0, newer_ = 0;  // the last two counts
  bool first_ = true;
};

// A column and a row that follow a growing position without a division for each step.
class Cursor {
 public:
  SA1B_HD explicit Cursor(uint32_t h) : h_(h) {}
  SA1B_HD void move_to(uint32_t position) {
    uint32_t y = y_ + (position - position_);
    // A run rarely reaches past the next column.
    if (position - position_ < h_) {
      if (y >= h_) {
        y -= h_;
        ++x_;
      }
    } else {
      x_ = position / h_;
      y = position - x_ * h_;
    }
    y_ = y;
    position_ = position;
  }
  SA1B_HD uint32_t x() const { return x_; }
  SA1B_HD uint32_t y() const { return y_; }

 private:
  uint32_t h_, position_ = 0, x_ = 0, y_ = 0;
};

// The index of the source pixel that nearest resizing takes for output pixel d: torch's
// "nearest-exact", min(floor((d + 0.5) * (in / out)), in - 1), all in float32.
SA1B_HD uint32_t nearest_source(uint32_t d, float scale, uint32_t in) {
  const float source = (static_cast<float>(d) + 0.5f) * scale;
  if (source >= 4294967296.0f) return in - 1;  // no uint32 holds it
  const uint32_t index = static_cast<uint32_t>(source);
  return index < in ? index : in - 1;
}

}  // namespace sa1b
