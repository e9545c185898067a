// Masks on their way into strings: what everything that makes strings shares.
//
// Each thread writes characters into a stream of its own; `Encoded::write` puts them in order.
// Work is split into items: some whole masks each, or one strip of a mask. A strip does not know
// the counts before it, so it leaves its first three boundaries to those who join the strips: any
// later character depends on four boundaries of the strip alone.
#pragma once

#include <deque>
#include <new>
#include <vector>

#include "../launch.h"
#include "bits.h"
#include "char_stream.h"
#include "parallel.h"

namespace sa1b::cpu {

constexpr int kMaxThreads = 64;         // bounds what each of them needs
constexpr int64_t kMaxItems = 1 << 16;  // of whole masks

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

struct Encoded::State {
  // `strips` of each mask if more than one, else whole masks.
  State(int64_t masks, int64_t height, int64_t width, int64_t strips_of_each, int threads)
      : num_masks(masks),
        h(height),
        w(width),
        strips_per_mask(strips_of_each),
        masks_per_item(strips_of_each > 1 ? 1 : std::max<int64_t>(1, masks / kMaxItems)),
        streams(threads),
        owners(strips_of_each > 1 ? masks * strips_of_each
                                  : (masks + masks_per_item - 1) / masks_per_item),
        strips(strips_of_each > 1 ? masks * strips_of_each : 0) {}

  // Whole masks whose sizes are given one by one.
  State(std::vector<int64_t> sizes_of_masks, const Images& of, int threads)
      : State(static_cast<int64_t>(sizes_of_masks.size() / 2), 0, 0, 1, threads) {
    sizes = std::move(sizes_of_masks);
    images = of;
  }

  int64_t items() const { return static_cast<int64_t>(owners.size()); }

  // Writes the masks of an item, whole: write_mask(mask, stream) for each. Without memory what
  // was written is lost, and `finish` says so.
  template <class WriteMask>
  void write_item(int64_t item, int thread, WriteMask write_mask) {
    CharStream& stream = streams[thread];
    owners[item] = static_cast<uint8_t>(thread);
    const int64_t first = item * masks_per_item;
    const int64_t last = std::min(first + masks_per_item, num_masks);
    for (int64_t mask = first; mask < last; ++mask) {
      uint64_t length;
      stream.make_room(sizeof(length));
      uint8_t* const at = stream.at();
      stream.set_at(at + sizeof(length));
      const size_t before = stream.written();
      try {
        write_mask(mask, stream);
      } catch (const std::bad_alloc&) {
        stream.fail();
      }
      length = stream.written() - before;
      memcpy(at, &length, sizeof(length));
    }
  }

  // The same for all items, from all threads.
  template <class WriteMask>
  void write_masks(WriteMask write_mask) {
    parallel_for(items(), static_cast<int>(streams.size()), [&](int64_t item, int thread) {
      write_item(item, thread,
                 [&](int64_t mask, CharStream& stream) { write_mask(mask, stream, thread); });
    });
    finish();
  }

  // To be called when all is written. Throws std::bad_alloc if that took too much memory.
  void finish();

  int64_t num_masks;
  int64_t h, w;                // of every mask,
  std::vector<int64_t> sizes;  // or [num_masks][2] of each
  Images images;
  int64_t strips_per_mask, masks_per_item;
  std::deque<CharStream> streams;  // [threads] characters; of whole masks, each after its length
  std::vector<uint8_t> owners;     // [items] the stream that each item is in
  std::vector<Strip> strips;       // [num_masks * strips_per_mask]; none if masks are whole
  size_t num_chars = 0;            // of all strings

 private:
  void join_strips();
};

}  // namespace sa1b::cpu
