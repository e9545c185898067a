// What reads the format: Cursor, nearest_source, CountReader, CountBlocks and for_each_run.
#include "cpu/count_blocks.h"
#include "reference.h"

namespace sa1b::test {
namespace {

void cursor_divides() {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    const uint64_t h = 1 + (random.bits() >> random.between(32, 63));
    const uint64_t longest_step = 1 + (random.bits() >> random.between(32, 63));
    Cursor cursor(static_cast<uint32_t>(std::min(h, kMaxPixels)));
    const uint64_t divisor = std::min(h, kMaxPixels);
    uint64_t position = 0;
    for (int step = 0; step < 100 && position <= kMaxPixels; ++step) {
      cursor.move_to(static_cast<uint32_t>(position));
      CHECK(cursor.x() == position / divisor);
      CHECK(cursor.y() == position % divisor);
      position += random.bits() % longest_step;
    }
  }
}

void check_axis(int64_t in, int64_t out, int64_t first, int64_t last) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  int64_t previous = 0;
  for (int64_t d = first; d < last; ++d) {
    const int64_t source =
        nearest_source(static_cast<uint32_t>(d), scale, static_cast<uint32_t>(in));
    CHECK(source == reference_source(d, in, out));
    CHECK(source >= previous && source < in);
    previous = source;
  }
}

void nearest_source_is_monotone() {
  for (int64_t in = 1; in <= 70; ++in) {
    for (int64_t out = 1; out <= 70; ++out) check_axis(in, out, 0, out);
  }
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    const int64_t in = 1 + (random.below(1 << 24) >> random.below(24));
    const int64_t out = 1 + (random.below(int64_t{1} << 31) >> random.below(31));
    const int64_t first = random.below(out);
    check_axis(in, out, first, std::min(out, first + 100));
    check_axis(in, out, std::max<int64_t>(0, out - 100), out);
  }
}

void runs_are_the_foreground() {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    const int64_t h = random.between(1, 40), w = random.between(1, 40);
    const Counts counts = random_counts(random, h * w);
    const BatchBlock block({{h, w, to_chars(counts)}});
    Mask mask;
    CHECK(block.batch().mask(0, &mask));
    CountReader reader(mask);
    uint32_t count;
    for (const uint32_t expected : counts) CHECK(reader.next(&count) && count == expected);
    CHECK(!reader.next(&count));

    std::vector<bool> foreground(static_cast<size_t>(h * w));
    uint32_t previous_end = 0;
    cpu::for_each_run(mask, [&](uint32_t start, uint32_t end) {
      CHECK(start >= previous_end && end > start && end <= h * w);
      previous_end = end;
      std::fill(foreground.begin() + start, foreground.begin() + end, true);
    });
    const Pixels pixels(h, counts);
    for (int64_t p = 0; p < h * w; ++p) CHECK(foreground[p] == pixels.at(p % h, p / h));
  }
}

// Long strings of any bytes, mostly values of one character, in groups of all lengths.
void blocks_are_what_the_reader_reads() {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const bool any_byte = random.one_in(4);
    const int64_t rare = random.between(1, 300);
    Rle rle = {1, 1, Chars(static_cast<size_t>(random.below(2000)))};
    for (uint8_t& c : rle.chars) {
      const bool last_of_value = !random.one_in(rare);
      c = any_byte && random.one_in(rare)
              ? random.byte()
              : static_cast<uint8_t>(random.between(48, last_of_value ? 79 : 111));
    }
    const BatchBlock block({rle});
    Mask mask;
    CHECK(block.batch().mask(0, &mask));
    CountReader reader(mask);
    cpu::CountBlocks blocks(mask);
    uint32_t expected;
    while (blocks.next_block()) {
      CHECK(blocks.begin() < blocks.end());
      for (const uint32_t count : blocks) CHECK(reader.next(&expected) && count == expected);
    }
    CHECK(!reader.next(&expected));
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::cursor_divides();
  sa1b::test::nearest_source_is_monotone();
  sa1b::test::runs_are_the_foreground();
  sa1b::test::blocks_are_what_the_reader_reads();
}
