// StreamWriter against memcpy and memset, and the promise of ZeroPages and TouchedPages: zeros.
#include "cpu/stream_writer.h"
#include "cpu/zero_pages.h"
#include "reference.h"

namespace sa1b::test {
namespace {

// Both buffers begin with noise, so that a byte written beside the right place differs, too.
void stream_writer_writes_what_memcpy_does() {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const int64_t size = random.between(1, 2000);
    const auto actual = exactly<uint8_t>(size);
    for (int64_t i = 0; i < size; ++i) actual[i] = random.byte();
    std::vector<uint8_t> expected(actual.get(), actual.get() + size);
    int64_t at = random.below(size);
    cpu::StreamWriter writer(actual.get() + at);
    for (int64_t step = random.below(40); step > 0; --step) {
      if (random.one_in(3)) {
        at = random.one_in(4) ? at : random.below(size + 1);
        writer.seek(actual.get() + at);
      } else if (random.one_in(20)) {
        writer.finish();
        CHECK(memcmp(actual.get(), expected.data(), expected.size()) == 0);
      }
      const int64_t n = std::min(size - at, random.below(random.one_in(2) ? 30 : 400));
      const auto from = exactly<uint8_t>(n);
      for (int64_t i = 0; i < n; ++i) from[i] = random.byte();
      if (random.one_in(2)) {
        std::copy_n(from.get(), n, expected.begin() + at);
        writer.copy(from.get(), static_cast<size_t>(n));
      } else {
        std::fill_n(expected.begin() + at, n, uint8_t{0});
        writer.zero(static_cast<size_t>(n));
      }
      at += n;
    }
    writer.finish();
    CHECK(memcmp(actual.get(), expected.data(), expected.size()) == 0);
  }
}

void zero_pages_are_zero_and_writable() {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Random random(seed);
    const int64_t size = random.below(int64_t{1} << random.between(1, 26));
    cpu::ZeroPages pages(static_cast<size_t>(size));
    CHECK(pages.num_bytes() == static_cast<size_t>(size));
    cpu::TouchedPages touched(pages.data(), pages.num_bytes());
    for (int64_t hint = random.below(300); hint > 0 && size > 0; --hint) {  // in any order
      const int64_t offset = random.below(size);
      const int64_t longest = std::min(size - offset, int64_t{1} << random.below(20));
      touched.add(static_cast<size_t>(offset), static_cast<size_t>(random.between(1, longest)));
    }
    touched.prepare();
    uint8_t* const data = pages.data();
    const auto is_zero = [](uint8_t byte) { return byte == 0; };
    CHECK(std::all_of(data, data + size, is_zero));
    if (size == 0) continue;
    const int64_t written = random.below(size);
    data[written] = 1;
    CHECK(std::all_of(data, data + written, is_zero));
    CHECK(std::all_of(data + written + 1, data + size, is_zero));
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::stream_writer_writes_what_memcpy_does();
  sa1b::test::zero_pages_are_zero_and_writable();
}
