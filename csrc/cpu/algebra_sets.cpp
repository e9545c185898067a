// Union, intersection and the like of groups of masks.
//
// One or two masks: their boundaries are merged in order. As long as one mask has no boundary,
// those of the other either all matter or none does, so runs of them are copied or skipped in tight
// loops.
//
// More masks: the positions are swept window by window, 16 KiB of bits that stay in the L1 cache.
// The runs of one mask after the other are drawn into the window, set, cleared or flipped; then the
// bits that differ from the one before, all in words in which a run begins or ends, are the
// boundaries of the result. Nobody has to choose the next of k boundaries, which no processor
// predicts, and noise costs no more than a bit a pixel. Windows without a run are skipped.
//
// Work is split into groups. Every string is read once.
#include <algorithm>

#include "../algebra.h"
#include "combiner.h"
#include "count_blocks.h"
#include "toggle_writer.h"

namespace sa1b::cpu {
namespace {

// The positions where a mask changes, in order; h*w after the last.
class Boundaries {
 public:
  explicit Boundaries(const Mask& mask) : blocks_(mask), pixels_(mask.pixels()) {}

  SA1B_ALWAYS_INLINE uint64_t next() {
    if (at_ == end_ && !read_block()) return pixels_;
    position_ = std::min(position_ + *at_++, pixels_);
    return position_;
  }

 private:
  bool read_block() {
    if (!blocks_.next_block()) return false;
    at_ = blocks_.begin();
    end_ = blocks_.end();
    // Of bytes that were not validated, the last background may lack its foreground: no run then.
    if ((end_ - at_) % 2 != 0) --end_;
    return at_ != end_;
  }

  CountBlocks blocks_;
  const uint32_t *at_ = nullptr, *end_ = nullptr;
  uint64_t position_ = 0, pixels_;
};

// Bit a + 2*b says whether a pixel belongs to the result that is inside (1) or outside (0) of both.
constexpr unsigned kTruth[] = {0b1110, 0b1000, 0b0110, 0b0010, 0b0001};

void merge_two(const Mask& a, const Mask& b, unsigned truth, CharStream& stream) {
  const uint64_t pixels = a.pixels();
  ToggleWriter out(stream);
  Boundaries first(a), second(b);
  uint64_t p = first.next(), q = second.next();
  bool in_a = false, in_b = false;
  if (truth & 1) out.toggle(0);
  // Up to `limit`, where the other mask changes, all boundaries matter or none does.
  const auto advance = [&](Boundaries& of, uint64_t& position, bool& inside, uint64_t limit,
                           bool matters) SA1B_ALWAYS_INLINE {
    if (matters) {
      for (; position < limit; position = of.next(), inside = !inside) out.toggle(position);
    } else {
      for (; position < limit; position = of.next()) inside = !inside;
    }
  };
  const auto is_in = [&](bool a_side, bool b_side) {
    return (truth >> (unsigned{a_side} + 2 * unsigned{b_side})) & 1;
  };
  while (p < pixels || q < pixels) {
    const bool first_matters = is_in(true, in_b) != is_in(false, in_b);
    if (q == pixels && !first_matters) break;
    advance(first, p, in_a, q, first_matters);
    const bool second_matters = is_in(in_a, true) != is_in(in_a, false);
    if (p == pixels && !second_matters) break;
    advance(second, q, in_b, std::min(p + 1, pixels), second_matters);
  }
  out.finish(pixels);
}

// One mask of a group while the window moves on.
struct Runs {
  explicit Runs(const Mask& mask) : reader(mask), pixels(mask.pixels()) { next(); }

  // The next run that is not empty; both positions are `pixels` after the last.
  void next() {
    do {
      uint32_t background, foreground;
      if (!reader.next(&background) || !reader.next(&foreground)) {
        start = end = pixels;
        return;
      }
      start = std::min(end + background, pixels);
      end = std::min(start + foreground, pixels);
    } while (start == end && start < pixels);
  }

  CountReader reader;
  uint64_t pixels;
  uint64_t start = 0, end = 0;
};

enum class Draw : uint8_t { kSet, kClear, kFlip };

class BitWindow {
 public:
  static constexpr uint32_t kWords = 2048;
  static constexpr uint32_t kBits = 64 * kWords;

  // Bits [from, to), at least one.
  template <Draw kHow>
  SA1B_ALWAYS_INLINE void draw(uint32_t from, uint32_t to) {
    const uint32_t first = from / 64, last = (to - 1) / 64;
    note_end(first);
    note_end(to / 64);
    if (kHow != Draw::kClear) {
      first_ = std::min(first_, first);
      end_ = std::max(end_, last + 1);
    }
    const uint64_t head = ~uint64_t{0} << (from % 64), tail = ~uint64_t{0} >> (63 - (to - 1) % 64);
    if (first == last) {
      draw_word<kHow>(first, head & tail);
      return;
    }
    draw_word<kHow>(first, head);
    for (uint32_t word = first + 1; word < last; ++word) draw_word<kHow>(word, ~uint64_t{0});
    draw_word<kHow>(last, tail);
  }

  // Where bits were drawn: outside of [begin(), end()) all are zero.
  uint32_t begin() const { return std::min(64 * first_, 64 * end_); }
  uint32_t end() const { return 64 * end_; }

  // Hands the toggles to `out` and clears the window, whose first bit is position `base`.
  void flush(uint64_t base, ToggleWriter& out) {
    for (uint32_t group = 0; group < kGroups; ++group) {
      for (uint64_t noted = ends_[group]; noted != 0; noted &= noted - 1) {
        const uint32_t word = 64 * group + lowest_bit(noted);
        const uint64_t bits = words_[word], before = word == 0 ? 0 : words_[word - 1] >> 63;
        for (uint64_t changes = bits ^ (bits << 1 | before); changes != 0; changes &= changes - 1) {
          out.toggle(base + uint64_t{64} * word + lowest_bit(changes));
        }
      }
      ends_[group] = 0;
    }
    if (words_[kWords - 1] >> 63) out.toggle(base + kBits);
    if (first_ < end_) std::fill(words_ + first_, words_ + end_, 0);
    first_ = kWords;
    end_ = 0;
  }

 private:
  template <Draw kHow>
  SA1B_ALWAYS_INLINE void draw_word(uint32_t word, uint64_t bits) {
    // The analyser does not see that no run reaches beyond the window.
    uint64_t& at = words_[word];  // NOLINT(clang-analyzer-security.ArrayBound)
    if (kHow == Draw::kSet) at |= bits;
    if (kHow == Draw::kClear) at &= ~bits;
    if (kHow == Draw::kFlip) at ^= bits;
  }

  // Bits change nowhere but in words that were noted. The one behind the last is not looked at.
  SA1B_ALWAYS_INLINE void note_end(uint32_t word) {
    ends_[word / 64] |= uint64_t{1} << (word % 64);
  }

  static constexpr uint32_t kGroups = kWords / 64;

  uint32_t first_ = kWords, end_ = 0;  // words that were drawn to
  uint64_t words_[kWords] = {};
  uint64_t ends_[kGroups + 1] = {};  // a bit for each word in which something begins or ends
};

// Draws the part of a mask that lies in the window from `base` on.
template <Draw kHow>
void draw_runs(Runs& runs, uint64_t base, uint64_t window_end, BitWindow& window) {
  for (; runs.start < window_end; runs.next()) {
    if (runs.end > base) {
      window.draw<kHow>(static_cast<uint32_t>(std::max(runs.start, base) - base),
                        static_cast<uint32_t>(std::min(runs.end, window_end) - base));
    }
    if (runs.end > window_end) return;  // goes on in the next window
  }
}

// Clears what lies in the window but not in the mask.
void clear_gaps(Runs& runs, uint64_t base, uint64_t window_end, BitWindow& window) {
  uint32_t gap = window.begin();
  const uint32_t end = window.end();
  const auto clear_up_to = [&](uint32_t to) {
    if (gap < to) window.draw<Draw::kClear>(gap, to);
  };
  for (; runs.start < window_end; runs.next()) {
    if (runs.end > base) {
      clear_up_to(
          static_cast<uint32_t>(std::min<uint64_t>(std::max(runs.start, base) - base, end)));
      gap = std::max(gap, static_cast<uint32_t>(std::min(runs.end, window_end) - base));
    }
    if (runs.end > window_end) break;
  }
  clear_up_to(end);
}

void combine_many(std::vector<Runs>& masks, int kind, BitWindow& window, CharStream& stream) {
  const uint64_t pixels = masks[0].pixels;
  ToggleWriter out(stream);
  if (kind == Combine::kComplement) out.toggle(0);
  // Where the first mask is empty, so are these.
  const bool first_alone = kind == Combine::kIntersection || kind == Combine::kDifference;
  for (uint64_t base = 0; base < pixels; base += BitWindow::kBits) {
    uint64_t next = masks[0].start;
    for (size_t i = 1; i < masks.size() && !first_alone; ++i) {
      next = std::min(next, masks[i].start);
    }
    if (next == pixels) break;
    base = std::max(base, next / BitWindow::kBits * BitWindow::kBits);
    const uint64_t window_end = std::min(base + BitWindow::kBits, pixels);
    draw_runs<Draw::kSet>(masks[0], base, window_end, window);
    for (size_t i = 1; i < masks.size(); ++i) {
      if (kind == Combine::kIntersection) {
        clear_gaps(masks[i], base, window_end, window);
      } else if (kind == Combine::kDifference) {
        draw_runs<Draw::kClear>(masks[i], base, window_end, window);
      } else if (kind == Combine::kXor) {
        draw_runs<Draw::kFlip>(masks[i], base, window_end, window);
      } else {
        draw_runs<Draw::kSet>(masks[i], base, window_end, window);
      }
    }
    window.flush(base, out);
  }
  out.finish(pixels);
}

// Reads the sizes of all groups; a status.
int64_t find_sizes(const Batch& a, const Batch& b, const Combine& c, std::vector<int64_t>* sizes) {
  if (c.kind < Combine::kUnion || c.kind > Combine::kComplement || c.num_groups < 0 ||
      c.group_offsets[0] != 0) {
    return kBadPlane;
  }
  sizes->resize(2 * c.num_groups);
  int64_t end = 0;
  for (int64_t group = 0; group < c.num_groups; ++group) {
    const int64_t begin = end;
    end = c.group_offsets[group + 1];
    if (end <= begin || end > c.num_members) return kBadPlane;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t i = c.members[k];
      if (i < 0 || i >= a.num_masks + b.num_masks) return kBadPlane;
      Mask mask;
      i < a.num_masks ? a.mask(i, &mask) : b.mask(i - a.num_masks, &mask);
      if (k == begin) {
        (*sizes)[2 * group] = mask.h;
        (*sizes)[2 * group + 1] = mask.w;
      } else if (mask.h != (*sizes)[2 * group] || mask.w != (*sizes)[2 * group + 1]) {
        return kMixedSizes;
      }
    }
  }
  return end == c.num_members ? kOk : kBadPlane;
}

}  // namespace

struct Combiner::Scratch {
  BitWindow window;
  std::vector<Runs> runs;
};

Combiner::Combiner() = default;
Combiner::~Combiner() = default;

void Combiner::write(const std::vector<Mask>& masks, int kind, CharStream& stream) {
  const Mask& first = masks[0];
  if (masks.size() == 1) {
    const Mask nothing = {nullptr, nullptr, first.h, first.w};
    return merge_two(first, nothing, kTruth[kind == Combine::kComplement ? kind : Combine::kUnion],
                     stream);
  }
  if (masks.size() == 2) return merge_two(first, masks[1], kTruth[kind], stream);
  if (!scratch_) scratch_ = std::make_unique<Scratch>();
  std::vector<Runs>& runs = scratch_->runs;
  runs.clear();
  runs.reserve(masks.size());
  for (const Mask& mask : masks) runs.emplace_back(mask);
  combine_many(runs, kind, scratch_->window, stream);
}

int64_t combine(const Batch& a, const Batch& b, const Combine& c, int num_threads,
                Encoded* encoded) {
  for (const Batch* batch : {&a, &b}) {
    if (check_header(*batch) != kOk) return kBadHeader;
  }
  std::vector<int64_t> sizes;
  const int64_t status = find_sizes(a, b, c, &sizes);
  if (status != kOk) return status;
  const int threads = algebra_threads(num_threads, c.num_groups, a.num_bytes + b.num_bytes);
  encoded->state = std::make_unique<Encoded::State>(std::move(sizes), c.images, threads);

  struct Group {
    std::vector<Mask> masks;
    Combiner combiner;
  };
  std::vector<Group> groups(threads);  // the one that each thread is at
  encoded->state->write_masks([&](int64_t group, CharStream& stream, int thread) {
    std::vector<Mask>& masks = groups[thread].masks;
    masks.resize(c.group_offsets[group + 1] - c.group_offsets[group]);
    for (size_t k = 0; k < masks.size(); ++k) {
      const int64_t i = c.members[c.group_offsets[group] + static_cast<int64_t>(k)];
      i < a.num_masks ? a.mask(i, &masks[k]) : b.mask(i - a.num_masks, &masks[k]);
    }
    groups[thread].combiner.write(masks, c.kind, stream);
  });
  return kOk;
}

}  // namespace sa1b::cpu
