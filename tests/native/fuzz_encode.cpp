// Fuzzes encode: bytes become a shape, strides of any kind and elements; the masks must come back
// from decode, and their strings must be canonical.
#include "fuzz.h"

namespace sa1b::test {
namespace {

int64_t read_side(Input& input) {
  const int64_t side = input.byte();
  return side < 200 ? side % 70 : side - 100;  // rarely more than two words of bits
}

// Of either sign, zero included, and no multiple of anything.
int64_t read_stride(Input& input) {
  const int64_t stride = input.byte() - 128;
  return input.flag() ? stride * input.below(64) : stride / 16;
}

// Elements in memory that ends where they end, so that an access beside them is found.
struct Elements {
  std::unique_ptr<uint8_t[]> memory;
  Dense dense;

  bool foreground(int64_t mask, int64_t y, int64_t x) const {
    uint64_t element = 0;
    memcpy(&element,
           dense.data + mask * dense.mask_stride + y * dense.row_stride + x * dense.column_stride,
           static_cast<size_t>(dense.item_size));
    return (element & dense.value_bits) != 0;
  }
};

Elements read_elements(Input& input) {
  Elements e;
  Dense& d = e.dense;
  d.item_size = 1 << input.byte() % 4;
  d.value_bits = input.flag() ? input.word() : ~0ull;
  d.value_bits &= ~0ull >> (64 - 8 * d.item_size);
  d.num_masks = input.byte() % 4;
  d.h = read_side(input);
  d.w = read_side(input);
  int64_t* const strides[] = {&d.mask_stride, &d.row_stride, &d.column_stride};
  const int64_t sides[] = {d.num_masks, d.h, d.w};
  if (input.flag()) {
    for (int64_t* stride : strides) *stride = read_stride(input);
  } else {  // one behind the other, in one of six orders, perhaps with gaps
    const int order = static_cast<int>(input.byte() % 6), first = order % 3;
    const int axes[] = {first, (first + 1 + order / 3) % 3, (first + 2 - order / 3) % 3};
    int64_t size = d.item_size;
    for (const int axis : axes) {
      *strides[axis] = size;
      size = size * std::max<int64_t>(sides[axis], 1) + (input.flag() ? input.byte() % 70 : 0);
    }
  }
  int64_t low = 0, high = 0;
  const bool none = d.num_masks == 0 || d.h == 0 || d.w == 0;
  for (int axis = 0; axis < 3 && !none; ++axis) {
    const int64_t reach = *strides[axis] * (sides[axis] - 1);
    (reach < 0 ? low : high) += reach;
  }
  const int64_t num_bytes = none ? 0 : high - low + d.item_size;
  e.memory = exactly<uint8_t>(num_bytes);
  d.data = e.memory.get() - low;
  // Runs of equal bytes, short or long, and at the end of the input one pattern over and over.
  uint8_t value = 0;
  for (int64_t at = 0, left = 0; at < num_bytes; ++at, --left) {
    if (left == 0) {
      value = static_cast<uint8_t>(input.flag() ? input.byte() : 0);
      left = input.empty() ? 1 + at % 61 : 1 + (input.byte() << input.byte() % 8);
      if (input.empty()) value = static_cast<uint8_t>(at % 7 < 3 ? at : 0);
    }
    e.memory[at] = value;
  }
  return e;
}

}  // namespace

void run(Input& input) {
  const Elements e = read_elements(input);
  const Dense& dense = e.dense;
  const int num_threads = 1 + static_cast<int>(input.byte() % 3);
  cpu::Encoded encoded;
  CHECK(cpu::encode(dense, num_threads, &encoded) == kOk);
  const int64_t num_bytes = encoded.num_bytes();
  const auto block = exactly<uint8_t>(num_bytes);
  encoded.write(block.get());
  const Batch batch = {block.get(), num_bytes, dense.num_masks};
  CHECK(batch.header_fits());
  CHECK(batch.word(2 * dense.num_masks) == 8 * (3 * dense.num_masks + 1));
  CHECK(batch.word(3 * dense.num_masks) == num_bytes);
  CHECK(cpu::validate(batch) == kOk);

  const std::vector<Counts> counts = read_counts(batch);
  for (int64_t i = 0; i < dense.num_masks; ++i) {
    CHECK(batch.word(2 * i) == dense.h && batch.word(2 * i + 1) == dense.w);
    const Counts& runs = counts[i];
    CHECK(!runs.empty());
    CHECK(std::find(runs.begin() + 1, runs.end(), 0u) == runs.end());
    const uint8_t* const begin = block.get() + batch.word(2 * dense.num_masks + i);
    const uint8_t* const end = block.get() + batch.word(2 * dense.num_masks + i + 1);
    CHECK(to_chars(runs) == Chars(begin, end));  // as few characters as there can be
  }
  const auto out = exactly<uint8_t>(dense.num_masks * dense.h * dense.w);
  Decode d = {};
  d.num_planes = dense.num_masks;
  d.out_h = dense.h;
  d.out_w = dense.w;
  d.out = out.get();
  d.item_size = 1;
  d.one = 1;
  CHECK(cpu::decode(batch, d, 1) == kOk);
  const uint8_t* at = out.get();
  for (int64_t mask = 0; mask < dense.num_masks; ++mask) {
    for (int64_t y = 0; y < dense.h; ++y) {
      for (int64_t x = 0; x < dense.w; ++x) CHECK(*at++ == e.foreground(mask, y, x));
    }
  }
}

}  // namespace sa1b::test
