// Compressed strings: are they exactly what they claim (validate), and to and from plain counts.
// One pass over the characters each, a few cycles a character.
#include <algorithm>

#include "../launch.h"
#include "count_blocks.h"

namespace sa1b::cpu {
namespace {

// Adds up groups of 16 counts as long as all are of one character and certainly in [0, 2**31);
// returns where they end.
#if SA1B_GROUPS_OF_16
const uint8_t* sum_groups(const uint8_t* at, const uint8_t* end, int64_t* older, int64_t* newer,
                          uint64_t* sum) {
  const __m128i zero = _mm_setzero_si128();
  __m128i base = group_base(static_cast<uint32_t>(*older), static_cast<uint32_t>(*newer));
  __m128i sums = zero;
  const uint8_t* const begin = at;
  for (; end - at >= 16; at += 16) {
    __m128i counts[4];
    if (!decode_group(at, base, counts)) break;
    __m128i any = base;
    for (const __m128i count : counts) any = _mm_or_si128(any, count);
    if (_mm_movemask_ps(_mm_castsi128_ps(any)) != 0) break;  // a sign bit
    for (const __m128i count : counts) {
      sums = _mm_add_epi64(sums, _mm_unpacklo_epi32(count, zero));
      sums = _mm_add_epi64(sums, _mm_unpackhi_epi32(count, zero));
    }
    base = next_group_base(counts);
  }
  if (at == begin) return at;
  uint32_t last[4];
  uint64_t halves[2];
  memcpy(last, &base, sizeof(last));
  memcpy(halves, &sums, sizeof(halves));
  *older = last[0];
  *newer = last[1];
  *sum += halves[0] + halves[1];
  return at;
}
#else
const uint8_t* sum_groups(const uint8_t* at, const uint8_t*, int64_t*, int64_t*, uint64_t*) {
  return at;
}
#endif

bool is_valid(const Mask& mask) {
  const uint64_t pixels = mask.pixels();
  uint64_t sum = 0;
  int64_t older = 0, newer = 0;
  bool first = true;
  const uint8_t* next_group = mask.begin;
  for (const uint8_t* at = mask.begin; at != mask.end;) {
    if (!first && at >= next_group) {
      at = sum_groups(at, mask.end, &older, &newer, &sum);
      if (at == mask.end) break;
      next_group = at + std::min<int64_t>(16, mask.end - at);
    }
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
