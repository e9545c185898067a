// compress, validate and decompress: round trips, and every way for a string to be malformed.
#include <string>

#include "reference.h"

namespace sa1b::test {
namespace {

int64_t validate(const std::vector<Rle>& rles) { return cpu::validate(BatchBlock(rles).batch()); }

int64_t validate(int64_t h, int64_t w, const std::string& chars) {
  return validate({{h, w, Chars(chars.begin(), chars.end())}});
}

void round_trips() {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Random random(seed);
    const int64_t num_masks = random.below(6);
    std::vector<Rle> rles;
    std::vector<Counts> all;
    Counts flat;
    std::vector<int64_t> offsets = {0};
    for (int64_t i = 0; i < num_masks; ++i) {
      const int64_t h = random.below(2 << random.below(15)),
                    w = random.below(2 << random.below(15));
      all.push_back(random_counts(random, h * w));
      rles.push_back({h, w, {}});
      flat.insert(flat.end(), all.back().begin(), all.back().end());
      offsets.push_back(static_cast<int64_t>(flat.size()));
    }
    const auto chars = exactly<uint8_t>(kMaxCharsPerCount * offsets.back());
    const auto char_offsets = exactly<int64_t>(num_masks + 1);
    cpu::compress(flat.data(), offsets.data(), num_masks, chars.get(), char_offsets.get());
    CHECK(char_offsets[0] == 0);
    for (int64_t i = 0; i < num_masks; ++i) {
      rles[i].chars.assign(chars.get() + char_offsets[i], chars.get() + char_offsets[i + 1]);
      CHECK(rles[i].chars == to_chars(all[i]));
    }
    CHECK(validate(rles) == kOk);
    CHECK(read_counts(BatchBlock(rles).batch()) == all);
  }
}

void largest_counts() {
  const uint32_t most = 0xffffffff;
  for (const Counts& counts :
       {Counts{most}, Counts{0, most}, Counts{0, 0, 0, most}, Counts{0, most, 0, 0, 0},
        Counts{0, most - 1, 0, 1}, Counts{1u << 31, (1u << 31) - 1}}) {
    const Rle rle = {most, 1, to_chars(counts)};
    CHECK(validate({rle}) == kOk);
    CHECK(read_counts(BatchBlock({rle}).batch())[0] == counts);
  }
}

void accepts_every_spelling() {
  CHECK(validate({}) == kOk);
  CHECK(validate(0, 0, "") == kOk);
  CHECK(validate(0, 5, "0") == kOk);
  CHECK(validate(2, 3, "6") == kOk);
  CHECK(validate(2, 3, "06") == kOk);
  CHECK(validate(2, 3, "0060J0") == kOk);
  for (int min_chars = 1; min_chars <= kMaxCharsPerCount; ++min_chars) {
    Chars chars;
    for (const int value : {4, 0, 1, 1, 0, 0}) append_value(value, &chars, min_chars);
    const Rle rle = {2, 4, chars};
    CHECK(validate({rle}) == kOk);
    CHECK((read_counts(BatchBlock({rle}).batch())[0] == Counts{4, 0, 1, 1, 1, 1}));
  }
}

void rejects_malformed_strings() {
  CHECK(validate(2, 3, "") == 0);          // no counts for six pixels
  CHECK(validate(2, 3, "5") == 0);         // sum too small
  CHECK(validate(2, 3, "7") == 0);         // sum too large
  CHECK(validate(0, 0, "1") == 0);         // pixels in a mask that has none
  CHECK(validate(2, 3, "61") == 0);        // one more after the last pixel
  CHECK(validate(2, 3, "6/") == 0);        // below the alphabet
  CHECK(validate(2, 3, "6p") == 0);        // above the alphabet
  CHECK(validate(2, 3, "Vp0") == 0);       // the same inside a value
  CHECK(validate(2, 3, "6P") == 0);        // ends inside a value
  CHECK(validate(2, 3, "VPPPPPP0") == 0);  // eight characters for a six
  CHECK(validate(2, 3, "O7") == 0);        // -1 and 7
  CHECK(validate(2, 3, "033N1") == 0);     // a difference that falls below zero
  CHECK(validate(2, 3, std::string("6\0", 2)) == 0);
  CHECK(validate(2, 3, "6\xff") == 0);
  Chars beyond;  // 2**32 wraps to zero in 32 bits
  append_value(int64_t{1} << 32, &beyond);
  append_value(6, &beyond);
  CHECK(validate({{2, 3, beyond}}) == 0);
  Chars sum_wraps;  // as does a sum of 2**32 + 6
  for (const int64_t value : {int64_t{0xffffffff}, int64_t{7}}) append_value(value, &sum_wraps);
  CHECK(validate({{2, 3, sum_wraps}}) == 0);

  const Rle good = {2, 3, {'6'}}, bad = {2, 3, {'5'}};
  CHECK(validate({good, good, bad, good, bad}) == 2);
}

void agrees_on_mutated_strings() {
  int valid = 0;
  for (uint64_t seed = 0; seed < 100000; ++seed) {
    Random random(seed);
    Rle rle = random_rle(random, random.between(1, 9), random.between(1, 9));
    for (int64_t change = random.below(3); change > 0; --change) {
      const auto at = rle.chars.begin() + random.below(static_cast<int64_t>(rle.chars.size()) + 1);
      const auto c =
          static_cast<uint8_t>(random.one_in(9) ? random.byte() : random.between(48, 111));
      if (random.one_in(2) || at == rle.chars.end()) {
        rle.chars.insert(at, c);
      } else {
        *at = c;
      }
    }
    const std::optional<Counts> counts = parse(rle.chars, static_cast<uint64_t>(rle.h * rle.w));
    CHECK(validate({rle}) == (counts ? kOk : 0));
    if (!counts) continue;
    CHECK(read_counts(BatchBlock({rle}).batch())[0] == *counts);
    ++valid;
  }
  CHECK(valid > 30000 && valid < 90000);  // both answers were tested
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::round_trips();
  sa1b::test::largest_counts();
  sa1b::test::accepts_every_spelling();
  sa1b::test::rejects_malformed_strings();
  sa1b::test::agrees_on_mutated_strings();
}
