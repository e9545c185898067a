// Compressed strings: are they exactly what they claim (validate), and to and from plain counts.
// One pass over the characters each, a few cycles a character.
#include "../launch.h"

namespace sa1b::cpu {
namespace {

bool is_valid(const Mask& mask) {
  const uint64_t pixels = mask.pixels();
  uint64_t sum = 0;
  int64_t older = 0, newer = 0;
  bool first = true;
  for (const uint8_t* at = mask.begin; at != mask.end;) {
    uint32_t c = uint32_t{*at++} - kCharBase;
    int64_t value;
    if (c < kMore) {
      value = static_cast<int64_t>(c ^ kSign) - kSign;
    } else {
      if (c > 63) return false;
      value = c & kPayload;
      int chars = 1;
      do {
        if (at == mask.end || chars == kMaxCharsPerCount) return false;
        c = uint32_t{*at++} - kCharBase;
        if (c > 63) return false;
        value |= static_cast<int64_t>(c & kPayload) << (kPayloadBits * chars++);
      } while (c & kMore);
      if (c & kSign) value -= int64_t{1} << (kPayloadBits * chars);
    }
    const int64_t count = value + older;
    // Below zero or past 32 bits: both have high bits set.
    if (static_cast<uint64_t>(count) >> 32) return false;
    sum += static_cast<uint64_t>(count);
    if (sum > pixels) return false;
    older = newer;
    newer = first ? 0 : count;
    first = false;
  }
  return sum == pixels;
}

}  // namespace

int64_t validate(const Batch& batch) {
  if (!batch.header_fits()) return kBadHeader;
  Mask mask;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    if (!batch.mask(i, &mask)) return kBadHeader;
    if (!is_valid(mask)) return i;
  }
  return kOk;
}

void compress(const uint32_t* counts, const int64_t* count_offsets, int64_t num_masks,
              uint8_t* chars, int64_t* char_offsets) {
  uint8_t* out = chars;
  char_offsets[0] = 0;
  for (int64_t i = 0; i < num_masks; ++i) {
    CountWriter writer(out);
    for (int64_t k = count_offsets[i]; k < count_offsets[i + 1]; ++k) writer.add(counts[k]);
    out = writer.at();
    char_offsets[i + 1] = out - chars;
  }
}

int64_t decompress(const Batch& batch, uint32_t* counts, int64_t* count_offsets) {
  if (!batch.header_fits()) return kBadHeader;
  int64_t total = 0;
  Mask mask;
  count_offsets[0] = 0;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    if (!batch.mask(i, &mask)) return kBadHeader;
    CountReader reader(mask);
    while (reader.next(&counts[total])) ++total;
    count_offsets[i + 1] = total;
  }
  return kOk;
}

}  // namespace sa1b::cpu
