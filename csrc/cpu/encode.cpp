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
// bitmap would exceed kScratchBytes. A strip does not know the counts before it, so it leaves its
// first three boundaries to those who join the strips: any later character depends on four
// boundaries of the strip alone.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <new>
#include <vector>

#include "../launch.h"
#include "change_bitmap.h"
#include "char_stream.h"
#include "foreground.h"
#include "parallel.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kScratchBytes = 8 << 20;  // for the bitmaps of all threads
constexpr int kMaxThreads = 64;             // bounds what each of them needs
constexpr int64_t kMaxItems = 1 << 16;      // of whole masks
constexpr int64_t kMinStripColumns = 256;   // reading narrower rows is slow
constexpr int64_t kMinStripPixels = 1 << 18;

constexpr uint32_t kHeads = 3;

// What a strip leaves behind beside its characters.
struct Strip {
  uint32_t heads[kHeads];  // its first boundaries: their characters depend on the strips before
  uint32_t num_heads;
  uint32_t last;          // its last boundary,
  uint32_t older, newer;  // and the two counts that end there, if it has three heads
  size_t num_chars;       // of all boundaries but the heads, in the stream of its thread

  // Written when strips are joined: what comes before those characters, and after the last strip's.
  uint8_t head_chars[kHeads * kMaxCharsPerCount], tail_chars[kMaxCharsPerCount];
  size_t num_head_chars, num_tail_chars;
};

// Turns boundaries, in order, into characters: of a whole mask, or of one strip of it.
class BoundaryWriter {
 public:
  explicit BoundaryWriter(CharStream* stream, Strip* strip = nullptr)
      : stream_(stream), strip_(strip), counts_(stream->at()), end_(stream->end()) {
    if (strip != nullptr) {
      strip->num_heads = 0;
      heads_left_ = kHeads;
    }
  }

  // Every set bit i is a boundary at `base` + i.
  SA1B_ALWAYS_INLINE void add(uint32_t base, uint64_t bits) {
    make_room(64 * kMaxCharsPerCount);
    for (; bits != 0; bits &= bits - 1) add_boundary(base + lowest_bit(bits));
  }

  // The last run of a mask ends with it; the last one of a strip may go on.
  void finish_mask(uint32_t pixels) {
    make_room(kMaxCharsPerCount);
    add_boundary(pixels);
    stream_->set_at(counts_.at());
  }
  void finish_strip() {
    strip_->last = last_;
    strip_->older = counts_.older();
    strip_->newer = counts_.newer();
    stream_->set_at(counts_.at());
  }

 private:
  SA1B_ALWAYS_INLINE void add_boundary(uint32_t position) {
    const uint32_t count = position - last_;
    last_ = position;
    if (heads_left_ == 0) {
      counts_.add(count);
    } else {
      --heads_left_;
      strip_->heads[strip_->num_heads++] = position;
      counts_.go_on_after(counts_.newer(), count);
    }
  }

  SA1B_ALWAYS_INLINE void make_room(size_t n) {
    if (static_cast<size_t>(end_ - counts_.at()) >= n) return;
    stream_->set_at(counts_.at());
    stream_->make_room(CharStream::kMaxRoom);
    counts_.go_on_at(stream_->at());
    end_ = stream_->end();
  }

  CharStream* stream_;
  Strip* strip_;
  CountWriter counts_;
  const uint8_t* end_;
  uint32_t last_ = 0, heads_left_ = 0;
};

// One mask of the input.
struct Plane {
  const uint8_t* data;
  int64_t h, w;
  int64_t row_stride, column_stride;

  const uint8_t* at(int64_t y, int64_t x) const {
    return data + y * row_stride + x * column_stride;
  }
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
  int64_t strips = 1;          // of each mask
  int64_t strip_size;          // in columns, or in positions if not by rows
  int64_t masks_per_item = 1;  // an item is one strip, or this many whole masks
  int64_t items;
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
  if (strips == 1) masks_per_item = std::max<int64_t>(1, dense.num_masks / kMaxItems);
  items = strips > 1 ? dense.num_masks * strips
                     : (dense.num_masks + masks_per_item - 1) / masks_per_item;
  threads = static_cast<int>(std::min<int64_t>(threads, items));
}

}  // namespace

struct Encoded::State {
  State(const Dense& dense, const Plan& plan)
      : num_masks(dense.num_masks),
        h(dense.h),
        w(dense.w),
        strips_per_mask(plan.strips),
        masks_per_item(plan.masks_per_item),
        streams(plan.threads),
        owners(plan.items),
        strips(plan.strips > 1 ? plan.items : 0) {}

  void join_strips();

  int64_t num_masks, h, w;
  int64_t strips_per_mask, masks_per_item;
  std::deque<CharStream> streams;  // [threads] characters; of whole masks, each after its length
  std::vector<uint8_t> owners;     // [items] the stream that each item is in
  std::vector<Strip> strips;       // [num_masks * strips_per_mask]; none if masks are whole
  size_t num_chars = 0;            // of all strings
};

// Gives strips the characters that depend on the strips before them.
void Encoded::State::join_strips() {
  const auto pixels = static_cast<uint32_t>(h * w);
  for (size_t begin = 0; begin < strips.size(); begin += strips_per_mask) {
    CountWriter counts(nullptr);
    uint32_t last = 0;
    for (size_t i = begin; i < begin + strips_per_mask; ++i) {
      Strip& strip = strips[i];
      counts.go_on_at(strip.head_chars);
      for (uint32_t head = 0; head < strip.num_heads; ++head) {
        counts.add(strip.heads[head] - last);
        last = strip.heads[head];
      }
      strip.num_head_chars = static_cast<size_t>(counts.at() - strip.head_chars);
      if (strip.num_heads == kHeads) {
        counts.go_on_after(strip.older, strip.newer);
        last = strip.last;
      }
      strip.num_tail_chars = 0;
      num_chars += strip.num_head_chars + strip.num_chars;
    }
    Strip& strip = strips[begin + strips_per_mask - 1];
    counts.go_on_at(strip.tail_chars);
    counts.add(pixels - last);
    strip.num_tail_chars = static_cast<size_t>(counts.at() - strip.tail_chars);
    num_chars += strip.num_tail_chars;
  }
}

namespace {

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

  parallel_for(plan.items, plan.threads, [&](int64_t item, int thread) {
    CharStream& stream = state.streams[thread];
    state.owners[item] = static_cast<uint8_t>(thread);

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
      Strip& strip = state.strips[item];
      const size_t before = stream.written();
      const int64_t begin = item % plan.strips * plan.strip_size;
      BoundaryWriter writer(&stream, &strip);
      write(item / plan.strips, begin, std::min(begin + plan.strip_size, size), writer);
      writer.finish_strip();
      strip.num_chars = stream.written() - before;
      return;
    }
    const int64_t first = item * plan.masks_per_item;
    const int64_t last = std::min(first + plan.masks_per_item, dense.num_masks);
    for (int64_t mask = first; mask < last; ++mask) {
      uint64_t length;
      stream.make_room(sizeof(length));
      uint8_t* const at = stream.at();
      stream.set_at(at + sizeof(length));
      const size_t before = stream.written();
      BoundaryWriter writer(&stream);
      if (size > 0) write(mask, 0, size, writer);
      writer.finish_mask(static_cast<uint32_t>(plan.h * plan.w));
      length = stream.written() - before;
      memcpy(at, &length, sizeof(length));
    }
  });
}

bool is_shape(const Dense& dense) {
  const auto most = static_cast<int64_t>(kMaxPixels);
  return dense.num_masks >= 0 && dense.h >= 0 && dense.w >= 0 && dense.h <= most &&
         dense.w <= most && (dense.h == 0 || dense.w <= most / dense.h);
}

}  // namespace

Encoded::Encoded() = default;
Encoded::~Encoded() = default;

int64_t Encoded::num_bytes() const {
  return 8 * (3 * state->num_masks + 1) + static_cast<int64_t>(state->num_chars);
}

void Encoded::write(uint8_t* block) {
  const int64_t n = state->num_masks;
  auto* const sizes = reinterpret_cast<int64_t*>(block);
  int64_t* const offsets = sizes + 2 * n;
  uint8_t* at = block + 8 * (3 * n + 1);
  const auto finish_mask = [&](int64_t mask) {
    sizes[2 * mask] = state->h;
    sizes[2 * mask + 1] = state->w;
    offsets[mask + 1] = at - block;
  };
  const auto put = [&](const uint8_t* chars, size_t num_chars) {
    memcpy(at, chars, num_chars);
    at += num_chars;
  };
  offsets[0] = at - block;
  for (size_t item = 0; item < state->owners.size(); ++item) {
    CharStream& stream = state->streams[state->owners[item]];
    const auto i = static_cast<int64_t>(item);
    if (state->strips_per_mask > 1) {
      const Strip& strip = state->strips[item];
      put(strip.head_chars, strip.num_head_chars);
      stream.read(at, strip.num_chars);
      at += strip.num_chars;
      put(strip.tail_chars, strip.num_tail_chars);
      if ((i + 1) % state->strips_per_mask == 0) finish_mask(i / state->strips_per_mask);
      continue;
    }
    const int64_t first = i * state->masks_per_item;
    for (int64_t mask = first; mask < std::min(first + state->masks_per_item, n); ++mask) {
      uint64_t length;
      stream.read(reinterpret_cast<uint8_t*>(&length), sizeof(length));
      stream.read(at, length);
      at += length;
      finish_mask(mask);
    }
  }
}

int64_t encode(const Dense& dense, int num_threads, Encoded* encoded) {
  if (!is_shape(dense)) return kBadShape;
  const Plan plan(dense, num_threads);
  encoded->state = std::make_unique<Encoded::State>(dense, plan);
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
  for (CharStream& stream : state.streams) {
    if (stream.failed()) throw std::bad_alloc();
    stream.finish();
    if (plan.strips == 1) state.num_chars += stream.written();
  }
  if (plan.strips == 1) state.num_chars -= sizeof(uint64_t) * static_cast<size_t>(state.num_masks);
  state.join_strips();
  return kOk;
}

}  // namespace sa1b::cpu
