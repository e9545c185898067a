// Splits maps of labels into the masks of all their labels.
//
// Pixels that differ from the one before, in column-major order, begin a run of another label. They
// are found 64 at a time, as encode.cpp does: comparing rows with the row above into a bitmap of
// changes, or walking columns where those are contiguous. Only where a run begins is a label looked
// at, and its mask looked up. The strings of all labels grow side by side, in pieces of 64 bytes,
// so that the map is read once however many labels it has.
//
// Work is split into maps. Bound: reading the map. Memory: the strings twice, 8 MB for all bitmaps.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <new>
#include <vector>

#include "../labels.h"
#include "change_bitmap.h"
#include "char_stream.h"
#include "parallel.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kScratchBytes = 8 << 20;  // for the bitmaps of all threads
constexpr int kMaxThreads = 64;

// A part of a string.
struct Piece {
  Piece* next;
  uint8_t used;
  uint8_t chars[55];
};
static_assert(sizeof(Piece) == 64);

// The string of one label, as long as it grows.
struct LabelString {
  int64_t label;
  CountWriter counts;
  Piece* first;
  Piece* piece;       // the last one
  uint32_t last = 0;  // where its last run ended
  size_t num_chars = 0;
};

// The strings of one map.
class LabelStrings {
 public:
  explicit LabelStrings(CharStream* stream) : stream_(stream), slots_(1 << kFirstSlotBits, kFree) {}

  // The number of a label's string.
  uint32_t find(int64_t label) {
    for (size_t slot = hash(label);; slot = (slot + 1) & (slots_.size() - 1)) {
      const uint32_t index = slots_[slot];
      if (index == kFree) return add(label, slot);
      if (strings_[index].label == label) return index;
    }
  }

  void add_run(uint32_t index, uint32_t start, uint32_t end) {
    LabelString& string = strings_[index];
    make_room(string, 2 * kMaxCharsPerCount);
    string.counts.add(start - string.last);
    string.counts.add(end - start);
    string.last = end;
  }

  // Ends all strings and gives them back in the order of their labels.
  std::vector<LabelString> finish(uint32_t pixels) {
    for (LabelString& string : strings_) {
      if (string.last < pixels) {
        make_room(string, kMaxCharsPerCount);
        string.counts.add(pixels - string.last);
      }
      close(string);
    }
    std::sort(strings_.begin(), strings_.end(),
              [](const LabelString& a, const LabelString& b) { return a.label < b.label; });
    return std::move(strings_);
  }

 private:
  static constexpr uint32_t kFree = ~0u;
  static constexpr int kFirstSlotBits = 8;

  size_t hash(int64_t label) const {
    // The highest bits of the product depend on all bits of the label.
    return (static_cast<uint64_t>(label) * 0x9e3779b97f4a7c15ull) >> (64 - slot_bits_);
  }

  uint32_t add(int64_t label, size_t slot) {
    const auto index = static_cast<uint32_t>(strings_.size());
    Piece* const piece = new_piece();
    strings_.push_back({label, CountWriter(piece->chars), piece, piece});
    slots_[slot] = index;
    if (2 * strings_.size() > slots_.size()) grow();
    return index;
  }

  void grow() {
    std::vector<uint32_t> old(2 * slots_.size(), kFree);
    old.swap(slots_);
    ++slot_bits_;
    for (const uint32_t index : old) {
      if (index == kFree) continue;
      size_t slot = hash(strings_[index].label);
      while (slots_[slot] != kFree) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = index;
    }
  }

  static size_t used_by(const LabelString& string) {
    return static_cast<size_t>(string.counts.at() - string.piece->chars);
  }

  static void close(LabelString& string) {
    string.piece->used = static_cast<uint8_t>(used_by(string));
    string.num_chars += string.piece->used;
  }

  void make_room(LabelString& string, size_t n) {
    if (sizeof(Piece::chars) - used_by(string) >= n) return;
    Piece* const piece = new_piece();
    close(string);
    string.piece->next = piece;
    string.piece = piece;
    string.counts.go_on_at(piece->chars);
  }

  Piece* new_piece() {
    stream_->make_room(sizeof(Piece));
    if (stream_->failed()) throw std::bad_alloc();
    auto* const piece = new (stream_->at()) Piece;
    piece->next = nullptr;
    stream_->set_at(stream_->at() + sizeof(Piece));
    return piece;
  }

  CharStream* stream_;  // owns the pieces, which never move
  std::vector<LabelString> strings_;
  std::vector<uint32_t> slots_;  // 2 ** slot_bits_ numbers of strings, or kFree
  int slot_bits_ = kFirstSlotBits;
};

// One map of the input.
template <class T>
struct Map {
  const uint8_t* data;
  int64_t h, w;
  int64_t row_stride, column_stride;

  const uint8_t* at(int64_t y, int64_t x) const {
    return data + y * row_stride + x * column_stride;
  }
  static T read(const uint8_t* at) {
    T value;
    memcpy(&value, at, sizeof(T));
    return value;
  }
};

// Which of `n` <= 64 elements, `step` bytes apart, differ from those at `other`, as bits.
template <class T, bool kContiguous>
uint64_t find_differences(const uint8_t* at, const uint8_t* other, int64_t step, uint32_t n) {
  if (kContiguous && n == 64) {  // most words differ nowhere
    T any = 0;
    for (int64_t i = 0; i < 64; ++i) {
      const auto offset = i * static_cast<int64_t>(sizeof(T));
      any = static_cast<T>(any | (Map<T>::read(at + offset) ^ Map<T>::read(other + offset)));
    }
    if (any == 0) return 0;
  }
  uint64_t bits = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint64_t differs = Map<T>::read(at + i * step) != Map<T>::read(other + i * step);
    bits |= differs << i;
  }
  return bits;
}

// Takes the positions where runs begin, in order, and hands their runs to the strings.
template <class T>
class RunWriter {
 public:
  RunWriter(const Map<T>& map, const LabelMaps& maps, LabelStrings* strings)
      : map_(&map), maps_(&maps), strings_(strings), cursor_(static_cast<uint32_t>(map.h)) {}

  // A run begins at `base` + i for every set bit i.
  void add(uint32_t base, uint64_t bits) {
    for (; bits != 0; bits &= bits - 1) {
      const uint32_t position = base + lowest_bit(bits);
      finish_run(position);
      cursor_.move_to(position);
      begin_run(Map<T>::read(map_->at(cursor_.y(), cursor_.x())));
    }
  }

  void finish_run(uint32_t end) {
    if (string_ != kNone) strings_->add_run(string_, start_, end);
    start_ = end;
  }

  bool failed() const { return failed_; }

 private:
  static constexpr uint32_t kNone = ~0u;

  void begin_run(T value) {
    auto label = static_cast<int64_t>(value);
    if (maps_->is_signed) {
      constexpr int kUnused = 64 - 8 * static_cast<int>(sizeof(T));  // bits, where its sign goes
      label = static_cast<int64_t>(static_cast<uint64_t>(value) << kUnused) >> kUnused;
    }
    failed_ = failed_ || (label < 0 && !maps_->is_signed);
    const bool is_background = maps_->has_background && label == maps_->background;
    string_ = is_background ? kNone : strings_->find(label);
  }

  const Map<T>* map_;
  const LabelMaps* maps_;
  LabelStrings* strings_;
  Cursor cursor_;
  uint32_t start_ = 0, string_ = kNone;  // of the run that is open
  bool failed_ = false;
};

// How maps are read.
struct Plan {
  Plan(const LabelMaps& maps, int num_threads)
      : h(maps.h), w(maps.w), row_stride(maps.row_stride), column_stride(maps.column_stride) {
    if (h == 1) row_stride = column_stride;
    // Unsigned: an axis of one element may have any stride.
    const bool no_gaps = static_cast<uint64_t>(column_stride) ==
                         static_cast<uint64_t>(h) * static_cast<uint64_t>(row_stride);
    if (h == 1 || w == 1 || no_gaps) {
      h *= w;
      w = 1;
    }
    const int64_t bytes = std::min(maps.num_maps, int64_t{1} << 20) * h * w * maps.item_size;
    threads = useful_threads(std::min(num_threads, kMaxThreads), maps.num_maps, bytes);
    const int64_t group_bytes = ChangeBitmap::bytes_for_64_columns(h);
    by_rows = h * w > 0 && w > 1 && std::abs(column_stride) < std::abs(row_stride) &&
              group_bytes <= kScratchBytes;
    if (!by_rows) return;
    threads = static_cast<int>(std::min<int64_t>(threads, kScratchBytes / group_bytes));
    strip_columns = 64 * std::min(kScratchBytes / threads / group_bytes, (w + 63) / 64);
  }

  int64_t h, w;  // of a map; one long column where no gaps part its columns
  int64_t row_stride, column_stride;
  bool by_rows;
  int64_t strip_columns = 0;  // that a bitmap holds
  int threads;
};

// Compares each row of columns [first, first + columns) with the one above.
template <class T, bool kContiguous>
void compare_rows(const Map<T>& map, int64_t first, int64_t columns, ChangeBitmap& bitmap) {
  for (int64_t y = 0; y < map.h; ++y) {
    for (int64_t x = 0; x < columns; x += 64) {
      const auto n = static_cast<uint32_t>(std::min<int64_t>(64, columns - x));
      const uint8_t* const at = map.at(y, first + x);
      uint64_t changes;
      if (y > 0) {
        changes = find_differences<T, kContiguous>(at, at - map.row_stride, map.column_stride, n);
      } else if (first + x > 0) {  // before row 0 comes the last row, one column to the left
        const uint8_t* const before = map.at(map.h - 1, first + x - 1);
        changes = find_differences<T, kContiguous>(at, before, map.column_stride, n);
      } else {  // the first pixel begins a run whatever it is
        const uint8_t* const before = map.at(map.h - 1, 0);
        changes = 1;
        if (n > 1) {
          changes |= find_differences<T, false>(map.at(0, 1), before, map.column_stride, n - 1)
                     << 1;
        }
      }
      if (changes != 0) bitmap.set(x / 64, y, changes);
    }
  }
}

template <class T, bool kContiguous>
void walk_columns(const Map<T>& map, RunWriter<T>& writer) {
  uint32_t position = 0;
  for (int64_t x = 0; x < map.w; ++x) {
    const bool begins =
        x == 0 || Map<T>::read(map.at(0, x)) != Map<T>::read(map.at(map.h - 1, x - 1));
    writer.add(position++, begins);
    for (int64_t y = 1; y < map.h;) {
      const auto n = static_cast<uint32_t>(std::min<int64_t>(64, map.h - y));
      const uint8_t* const at = map.at(y, x);
      writer.add(position,
                 find_differences<T, kContiguous>(at, at - map.row_stride, map.row_stride, n));
      position += n;
      y += n;
    }
  }
}

}  // namespace

struct SplitLabels::State {
  State(const LabelMaps& maps, int threads)
      : h(maps.h), w(maps.w), grouped(maps.grouped), streams(threads), strings(maps.num_maps) {}

  int64_t h, w;
  bool grouped;
  std::deque<CharStream> streams;                 // [threads] all pieces
  std::vector<std::vector<LabelString>> strings;  // [num_maps] those of its labels
  int64_t num_masks = 0;
  size_t num_chars = 0;
};

namespace {

template <class T>
bool split_as(const LabelMaps& maps, const Plan& plan, SplitLabels::State& state) {
  const int64_t step = plan.by_rows ? plan.column_stride : plan.row_stride;
  const bool contiguous = step == static_cast<int64_t>(sizeof(T));
  std::vector<ChangeBitmap> bitmaps;
  if (plan.by_rows) {
    bitmaps.reserve(plan.threads);
    for (int i = 0; i < plan.threads; ++i) bitmaps.emplace_back(plan.h, plan.strip_columns);
  }
  std::atomic<bool> no_memory{false}, bad_label{false};
  parallel_for(maps.num_maps, plan.threads, [&](int64_t i, int thread) {
    const Map<T> map = {maps.data + i * maps.map_stride, plan.h, plan.w, plan.row_stride,
                        plan.column_stride};
    const auto pixels = static_cast<uint32_t>(plan.h * plan.w);
    if (pixels == 0) return;
    try {
      LabelStrings strings(&state.streams[thread]);
      RunWriter<T> writer(map, maps, &strings);
      if (plan.by_rows) {
        ChangeBitmap& bitmap = bitmaps[thread];
        for (int64_t x = 0; x < plan.w; x += plan.strip_columns) {
          const int64_t columns = std::min(plan.strip_columns, plan.w - x);
          (contiguous ? compare_rows<T, true> : compare_rows<T, false>)(map, x, columns, bitmap);
          bitmap.write(static_cast<uint32_t>(x * plan.h), static_cast<uint32_t>(plan.h), columns,
                       writer);
        }
      } else {
        (contiguous ? walk_columns<T, true> : walk_columns<T, false>)(map, writer);
      }
      writer.finish_run(pixels);
      if (writer.failed()) bad_label = true;
      state.strings[i] = strings.finish(pixels);
    } catch (const std::bad_alloc&) {
      no_memory = true;
    }
  });
  if (no_memory) throw std::bad_alloc();
  return !bad_label;
}

bool is_shape(const LabelMaps& maps) {
  const auto most = static_cast<int64_t>(kMaxPixels);
  return maps.num_maps >= 0 && maps.h >= 0 && maps.w >= 0 && maps.h <= most && maps.w <= most &&
         (maps.h == 0 || maps.w <= most / maps.h);
}

}  // namespace

SplitLabels::SplitLabels() = default;
SplitLabels::~SplitLabels() = default;

int64_t SplitLabels::num_masks() const { return state->num_masks; }

int64_t SplitLabels::num_bytes() const {
  const auto num_maps = static_cast<int64_t>(state->strings.size());
  return 8 * (3 * state->num_masks + 1 + (state->grouped ? 3 * num_maps : 0)) +
         static_cast<int64_t>(state->num_chars);
}

void SplitLabels::write(uint8_t* block, int64_t* labels, int64_t* counts) {
  auto* sizes = reinterpret_cast<int64_t*>(block);
  int64_t* offsets = sizes + 2 * state->num_masks;
  int64_t* images = offsets + state->num_masks + 1;
  uint8_t* at = block + num_bytes() - state->num_chars;
  *offsets++ = at - block;
  for (const std::vector<LabelString>& strings : state->strings) {
    *counts++ = static_cast<int64_t>(strings.size());
    if (state->grouped) {
      *images++ = static_cast<int64_t>(strings.size());
      *images++ = state->h;
      *images++ = state->w;
    }
    for (const LabelString& string : strings) {
      *labels++ = string.label;
      *sizes++ = state->h;
      *sizes++ = state->w;
      for (const Piece* piece = string.first; piece != nullptr; piece = piece->next) {
        memcpy(at, piece->chars, piece->used);
        at += piece->used;
      }
      *offsets++ = at - block;
    }
  }
}

int64_t split_labels(const LabelMaps& maps, int num_threads, SplitLabels* split) {
  if (!is_shape(maps)) return kBadShape;
  const Plan plan(maps, num_threads);
  split->state = std::make_unique<SplitLabels::State>(maps, plan.threads);
  SplitLabels::State& state = *split->state;
  bool good;
  switch (maps.item_size) {
    case 1:
      good = split_as<uint8_t>(maps, plan, state);
      break;
    case 2:
      good = split_as<uint16_t>(maps, plan, state);
      break;
    case 4:
      good = split_as<uint32_t>(maps, plan, state);
      break;
    default:
      good = split_as<uint64_t>(maps, plan, state);
  }
  for (const std::vector<LabelString>& strings : state.strings) {
    state.num_masks += static_cast<int64_t>(strings.size());
    for (const LabelString& string : strings) state.num_chars += string.num_chars;
  }
  return good ? kOk : kBadLabel;
}

}  // namespace sa1b::cpu
