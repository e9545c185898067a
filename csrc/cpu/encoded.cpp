// Joins strips, and puts the strings of all threads into one block.
#include "encoded.h"

namespace sa1b::cpu {

void Encoded::State::finish() {
  for (CharStream& stream : streams) {
    if (stream.failed()) throw std::bad_alloc();
    stream.finish();
    if (strips.empty()) num_chars += stream.written();
  }
  if (strips.empty()) num_chars -= sizeof(uint64_t) * static_cast<size_t>(num_masks);
  join_strips();
}

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

Encoded::Encoded() = default;
Encoded::~Encoded() = default;

int64_t Encoded::num_bytes() const {
  return 8 * (3 * state->num_masks + 1 + 3 * state->images.num_images) +
         static_cast<int64_t>(state->num_chars);
}

void Encoded::write(uint8_t* block) {
  const int64_t n = state->num_masks;
  const Images& images = state->images;
  auto* const sizes = reinterpret_cast<int64_t*>(block);
  int64_t* const offsets = sizes + 2 * n;
  int64_t* const table = offsets + n + 1;
  if (images.num_images > 0) memcpy(table, images.table, 24 * images.num_images);
  uint8_t* at = reinterpret_cast<uint8_t*>(table + 3 * images.num_images);
  const auto finish_mask = [&](int64_t mask) {
    sizes[2 * mask] = state->sizes.empty() ? state->h : state->sizes[2 * mask];
    sizes[2 * mask + 1] = state->sizes.empty() ? state->w : state->sizes[2 * mask + 1];
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

}  // namespace sa1b::cpu
