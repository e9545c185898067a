// Encodes dense masks: finds the boundaries of runs in column-major order and writes their
// distances.
//
// The input is read once, 64 elements at a time, each group becoming a word of bits; reading it is
// the bound. A boundary is a bit that differs from the one before it.
//
//   * Columns without gaps: the bits come in the order of the runs; `w ^ (w << 1 | carry)`.
//   * Rows without gaps: each word is XORed with the one above; what differs goes into a bitmap of
//     changes made of blocks of 64 x 64, cleared when first touched (a bit for each pixel of the
//     blocks that a border crosses, so it stays in cache). Then, for every 64 columns, those blocks
//     are transposed and their bits walked column by column. A run that reaches the last row goes
//     on in the next column: row 0 is compared with the last row, one column to the left.
//   * Any other strides: the same, whichever axis has the smaller steps, words gathered one by one.
//
// Work is split into masks, and masks into strips of columns where there are few or where the
// bitmap would exceed kScratchBytes (encoded.h says how those are joined).
#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

#include "../launch.h"
#include "bits.h"
#include "encoded.h"
#include "foreground.h"
#include "parallel.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kScratchBytes = 8 << 20;  // for the bitmaps of all threads
constexpr int64_t kMinStripColumns = 256;   // reading narrower rows is slow
constexpr int64_t kMinStripPixels = 1 << 18;

// One mask of the input.
struct Plane {
  const uint8_t* data;
  int64_t h, w;
  int64_t row_stride, column_stride;

  const uint8_t* at(int64_t y, int64_t x) const {
    return data + y * row_stride + x * column_stride;
  }
};

struct Free {
  void operator()(void* memory) const { free(memory); }
};

// Where the rows of a strip change from one to the next: blocks of 64 x 64 bits, those of the same
// 64 columns one below the other. What was never touched is never read.
class ChangeBitmap {
 public:
  ChangeBitmap(int64_t h, int64_t columns)
      : bands_((h + 63) / 64),
        groups_((columns + 63) / 64),
        blocks_(static_cast<uint64_t*>(malloc(512 * bands_ * groups_))),
        touched_(bands_ * groups_),
        first_(groups_),
        above_(groups_) {
    if (!blocks_) throw std::bad_alloc();
  }

  static int64_t bytes_for_64_columns(int64_t h) { return (h + 63) / 64 * (512 + 1); }

  uint64_t* first() { return first_.data(); }
  uint64_t* above() { return above_.data(); }

  // Row y of the 64 columns `group`. Once for each.
  void set(int64_t group, int64_t y, uint64_t changes) {
    const int64_t block = group * bands_ + y / 64;
    if (!touched_[block]) {
      touched_[block] = 1;
      memset(&blocks_[64 * block], 0, 512);
    }
    blocks_[64 * block + y % 64] = changes;
  }

  // Hands all changes of a strip to `writer`, column by column, and forgets them.
  void write(uint32_t position, uint32_t h, int64_t columns, BoundaryWriter& writer) {
    for (int64_t group = 0; 64 * group < columns; ++group) {
      uint64_t* const blocks = &blocks_[64 * group * bands_];
      uint8_t* const touched = &touched_[group * bands_];
      uint32_t first = static_cast<uint32_t>(bands_), last = 0;
      for (uint32_t band = 0; band < bands_; ++band) {
        if (!touched[band]) continue;
        transpose_64x64(blocks + 64 * band);
        first = std::min(first, band);
        last = band + 1;
      }
      const int64_t n = std::min<int64_t>(64, columns - 64 * group);
      if (first < last) {
        write_columns(position, h, static_cast<uint32_t>(n), first, last, blocks, touched, writer);
      }
      position += static_cast<uint32_t>(n) * h;
      memset(touched, 0, static_cast<size_t>(bands_));
    }
  }

 private:
  static void write_columns(uint32_t position, uint32_t h, uint32_t columns, uint32_t first,
                            uint32_t last, const uint64_t* blocks, const uint8_t* touched,
                            BoundaryWriter& to) {
    BoundaryWriter writer = to;  // a copy stays in registers
    for (uint32_t column = 0; column < columns; ++column, position += h) {
      for (uint32_t band = first; band < last; ++band) {
        if (!touched[band]) continue;
        const uint64_t changes = blocks[64 * band + column];
        if (changes != 0) writer.add(position + 64 * band, changes);
      }
    }
    to = writer;
  }

  int64_t bands_, groups_;
  std::unique_ptr<uint64_t[], Free> blocks_;  // [groups_][bands_][64]
  std::vector<uint8_t> touched_;              // [groups_][bands_]
  std::vector<uint64_t> first_, above_;       // [groups_] the bits of row 0, and of the row above
};

// Compares each row of columns [column, column + columns) with the one above.
template <class T, bool kContiguous>
void find_changes(const Plane& plane, int64_t column, int64_t columns, T value_bits,
                  ChangeBitmap& bitmap) {
  const int64_t row_bytes = columns * static_cast<int64_t>(sizeof(T));
  const int64_t rows_ahead = (kPrefetchBytes + row_bytes - 1) / row_bytes;
  const LineReader<T> reader(plane.column_stride, rows_ahead * plane.row_stride, value_bits);
  const int64_t words = columns / 64;
  const auto rest = static_cast<uint32_t>(columns % 64);
  const int64_t word_stride = 64 * plane.column_stride;
  uint64_t *const first = bitmap.first(), *const above = bitmap.above();

  const auto read_row = [&](int64_t y, auto visit) {
    const uint8_t* at = plane.at(y, column);
    for (int64_t i = 0; i < words; ++i, at += word_stride) {
      visit(i, reader.template word<kContiguous>(at));
    }
    if (rest > 0) {
      visit(words, reader.template last_word<kContiguous>(at, rest, column + 64 * words));
    }
  };
  read_row(0, [&](int64_t i, uint64_t bits) { first[i] = above[i] = bits; });
  for (int64_t y = 1; y < plane.h; ++y) {
    read_row(y, [&](int64_t i, uint64_t bits) {
      const uint64_t changes = bits ^ above[i];
      if (changes == 0) return;
      above[i] = bits;
      bitmap.set(i, y, changes);
    });
  }
  // Before row 0 comes the last row of the column to the left; before all, background.
  uint64_t left = column > 0 && reader.one(plane.at(plane.h - 1, column - 1));
  for (int64_t i = 0; i < words + (rest > 0); ++i) {
    uint64_t changes = first[i] ^ (above[i] << 1 | left);
    if (i == words) changes &= (uint64_t{1} << rest) - 1;
    left = above[i] >> 63;
    if (changes != 0) bitmap.set(i, 0, changes);
  }
}

// Writes the boundaries at positions [begin, end).
template <class T, bool kContiguous>
void walk_columns(const Plane& plane, int64_t begin, int64_t end, T value_bits,
                  BoundaryWriter& to) {
  const LineReader<T> reader(plane.row_stride, kPrefetchBytes, value_bits);
  const int64_t word_stride = 64 * plane.row_stride;
  int64_t x = begin / plane.h, y = begin % plane.h;
  uint64_t before = 0;  // the pixel one position back
  if (begin > 0) {
    before = y > 0 ? reader.one(plane.at(y - 1, x)) : reader.one(plane.at(plane.h - 1, x - 1));
  }
  BoundaryWriter writer = to;  // a copy stays in registers
  for (; begin < end; ++x, y = 0) {
    const int64_t column_end = begin + std::min(plane.h - y, end - begin);
    const uint8_t* at = plane.at(y, x);
    for (; column_end - begin >= 64; begin += 64, y += 64, at += word_stride) {
      const uint64_t bits = reader.template word<kContiguous>(at);
      const uint64_t changes = bits ^ (bits << 1 | before);
      before = bits >> 63;
      if (changes != 0) writer.add(static_cast<uint32_t>(begin), changes);
    }
    if (begin == column_end) continue;
    const auto rest = static_cast<uint32_t>(column_end - begin);
    const uint64_t bits = reader.template last_word<kContiguous>(at, rest, y);
    const uint64_t changes = (bits ^ (bits << 1 | before)) & ((uint64_t{1} << rest) - 1);
    before = bits >> ((rest - 1) & 63);
    if (changes != 0) writer.add(static_cast<uint32_t>(begin), changes);
    begin = column_end;
  }
  to = writer;
}

// How masks are read and the work is split.
struct Plan {
  Plan(const Dense& dense, int num_threads);

  int64_t h, w;  // of a mask; one long column where no gaps part its columns
  int64_t row_stride, column_stride;
  bool by_rows;
  int64_t strips = 1;  // of each mask
  int64_t strip_size;  // in columns, or in positions if not by rows
  int threads;
};

Plan::Plan(const Dense& dense, int num_threads)
    : h(dense.h), w(dense.w), row_stride(dense.row_stride), column_stride(dense.column_stride) {
  if (h == 1) row_stride = column_stride;
  // Unsigned: an axis of one element may have any stride.
  const bool no_gaps = static_cast<uint64_t>(column_stride) ==
                       static_cast<uint64_t>(h) * static_cast<uint64_t>(row_stride);
  if (h == 1 || w == 1 || no_gaps) {
    h *= w;
    w = 1;
  }
  const int64_t pixels = h * w;
  // So many masks need all threads whatever their size is.
  const int64_t bytes = std::min(dense.num_masks, int64_t{1} << 20) * pixels * dense.item_size;
  threads = useful_threads(std::min(num_threads, kMaxThreads), kMaxThreads, bytes);

  const int64_t group_bytes = ChangeBitmap::bytes_for_64_columns(h);
  by_rows = pixels > 0 && w > 1 && std::abs(column_stride) < std::abs(row_stride) &&
            group_bytes <= kScratchBytes;
  if (by_rows) {
    threads = static_cast<int>(std::min<int64_t>(threads, kScratchBytes / group_bytes));
  }
  // Two strips for each thread, if there are not enough masks.
  const int64_t wanted = threads == 1 ? 1 : (2 * threads + dense.num_masks - 1) / dense.num_masks;
  if (by_rows) {
    const int64_t fitting = kScratchBytes / threads / group_bytes;
    const int64_t groups = (w + 63) / 64;
    const int64_t shared = std::max((groups + wanted - 1) / wanted, kMinStripColumns / 64);
    strip_size = 64 * std::min({fitting, shared, groups});
    strips = (w + strip_size - 1) / strip_size;
  } else {
    strip_size = std::max((pixels + wanted - 1) / wanted, kMinStripPixels);
    strips = std::max<int64_t>(1, (pixels + strip_size - 1) / strip_size);
  }
  threads = static_cast<int>(std::min<int64_t>(threads, strips * dense.num_masks));
}

template <class T>
void encode_as(const Dense& dense, const Plan& plan, Encoded::State& state) {
  const auto value_bits = static_cast<T>(dense.value_bits);
  const int64_t step = plan.by_rows ? plan.column_stride : plan.row_stride;
  const bool contiguous = step == static_cast<int64_t>(sizeof(T));
  const int64_t size = plan.by_rows ? plan.w : plan.h * plan.w;
  std::vector<ChangeBitmap> bitmaps;
  if (plan.by_rows) {
    bitmaps.reserve(plan.threads);
    for (int i = 0; i < plan.threads; ++i) bitmaps.emplace_back(plan.h, plan.strip_size);
  }

  parallel_for(state.items(), plan.threads, [&](int64_t item, int thread) {
    const auto write = [&](int64_t mask, int64_t begin, int64_t end, BoundaryWriter& writer) {
      const Plane plane = {dense.data + mask * dense.mask_stride, plan.h, plan.w, plan.row_stride,
                           plan.column_stride};
      if (!plan.by_rows) {
        (contiguous ? walk_columns<T, true> : walk_columns<T, false>)(plane, begin, end, value_bits,
                                                                      writer);
        return;
      }
      ChangeBitmap& bitmap = bitmaps[thread];
      (contiguous ? find_changes<T, true> : find_changes<T, false>)(plane, begin, end - begin,
                                                                    value_bits, bitmap);
      bitmap.write(static_cast<uint32_t>(begin * plan.h), static_cast<uint32_t>(plan.h),
                   end - begin, writer);
    };

    if (plan.strips > 1) {
      CharStream& stream = state.streams[thread];
      state.owners[item] = static_cast<uint8_t>(thread);
      Strip& strip = state.strips[item];
      const size_t before = stream.written();
      const int64_t begin = item % plan.strips * plan.strip_size;
      BoundaryWriter writer(&stream, &strip);
      write(item / plan.strips, begin, std::min(begin + plan.strip_size, size), writer);
      writer.finish_strip();
      strip.num_chars = stream.written() - before;
      return;
    }
    state.write_item(item, thread, [&](int64_t mask, CharStream& stream) {
      BoundaryWriter writer(&stream);
      if (size > 0) write(mask, 0, size, writer);
      writer.finish_mask(static_cast<uint32_t>(plan.h * plan.w));
    });
  });
}

bool is_shape(const Dense& dense) {
  const auto most = static_cast<int64_t>(kMaxPixels);
  return dense.num_masks >= 0 && dense.h >= 0 && dense.w >= 0 && dense.h <= most &&
         dense.w <= most && (dense.h == 0 || dense.w <= most / dense.h);
}

}  // namespace

int64_t encode(const Dense& dense, int num_threads, Encoded* encoded) {
  if (!is_shape(dense)) return kBadShape;
  const Plan plan(dense, num_threads);
  encoded->state = std::make_unique<Encoded::State>(dense.num_masks, dense.h, dense.w, plan.strips,
                                                    plan.threads);
  Encoded::State& state = *encoded->state;
  switch (dense.item_size) {
    case 1:
      encode_as<uint8_t>(dense, plan, state);
      break;
    case 2:
      encode_as<uint16_t>(dense, plan, state);
      break;
    case 4:
      encode_as<uint32_t>(dense, plan, state);
      break;
    default:
      encode_as<uint64_t>(dense, plan, state);
  }
  state.finish();
  return kOk;
}

}  // namespace sa1b::cpu
