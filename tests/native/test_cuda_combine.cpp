// What the CUDA kernels, run on the CPU, make of groups of masks and of boundaries, against the
// CPU's own: byte for byte. All memory is of exact size.
#include <numeric>

#include "algebra.h"
#include "cuda.h"

namespace sa1b::test {
namespace {

std::vector<uint8_t> block_of(cpu::Encoded& encoded) {
  const auto block = exactly<uint8_t>(encoded.num_bytes());
  encoded.write(block.get());
  return {block.get(), block.get() + encoded.num_bytes()};
}

// Boundaries of N masks, and room for those of `num_positions`.
struct BoundaryMemory {
  BoundaryMemory(int64_t n, int64_t num_positions)
      : positions(exactly<uint32_t>(num_positions)),
        begins(exactly<int64_t>(n)),
        ends(exactly<int64_t>(n)),
        sizes(exactly<int64_t>(2 * n)),
        boundaries({positions.get(), begins.get(), ends.get(), sizes.get(), n, false, {}}) {}

  std::unique_ptr<uint32_t[]> positions;
  std::unique_ptr<int64_t[]> begins, ends, sizes;
  Boundaries boundaries;
};

// The block that is made of boundaries, in memory that was full of random bytes.
std::vector<uint8_t> compress(Random& random, const Boundaries& boundaries) {
  const int64_t n = boundaries.num_masks;
  const auto char_begins = exactly<int64_t>(n + 1);
  std::fill_n(char_begins.get(), n + 1, int64_t{-1});
  emulator::set_seed(random.bits());
  CHECK(cuda::compress_measure(boundaries, char_begins.get(), kStream) == cudaSuccess);
  CHECK(char_begins[0] == 0 && std::is_sorted(char_begins.get(), char_begins.get() + n + 1));
  const int64_t num_bytes = 8 * (3 * n + 1 + 3 * boundaries.images.num_images) + char_begins[n];
  const Aligned block = random_bytes(random, num_bytes);
  CHECK(cuda::compress_write(boundaries, char_begins.get(), block.get(), kStream) == cudaSuccess);
  return {block.get(), block.get() + num_bytes};
}

// Some masks of the first batch, and of the second ones N + j.
struct Groups {
  std::vector<int64_t> members, offsets = {0};

  void add(const std::vector<int64_t>& group) {
    members.insert(members.end(), group.begin(), group.end());
    offsets.push_back(static_cast<int64_t>(members.size()));
  }
};

// What a member may have at most.
int64_t num_chars(const Batch& a, const Batch& b, int64_t member) {
  const Batch& batch = member < a.num_masks ? a : b;
  const int64_t i = 2 * batch.num_masks + (member < a.num_masks ? member : member - a.num_masks);
  return batch.word(i + 1) - batch.word(i);
}

struct Combined {
  int64_t status;
  std::vector<uint8_t> block;
};

Combined run_combine(Random& random, const Batch& a, const Batch& b, Combine combine,
                     int64_t max_boundaries) {
  const auto members = exactly<int64_t>(combine.num_members);
  std::copy_n(combine.members, combine.num_members, members.get());
  const auto offsets = exactly<int64_t>(combine.num_groups + 1);
  std::copy_n(combine.group_offsets, combine.num_groups + 1, offsets.get());
  combine.members = members.get();
  combine.group_offsets = offsets.get();
  const Aligned workspace =
      random_bytes(random, cuda::combine_workspace(a, b, combine.num_members, max_boundaries));
  BoundaryMemory memory(combine.num_groups, max_boundaries);
  int64_t status = 7;
  emulator::set_seed(random.bits());
  CHECK(cuda::combine(a, b, combine, max_boundaries, workspace.get(), memory.boundaries, &status,
                      kStream) == cudaSuccess);
  memory.boundaries.inverted = combine.kind == Combine::kComplement;
  memory.boundaries.images = combine.images;
  return {status, compress(random, memory.boundaries)};
}

void check_combine(Random& random, const Batch& a, const Batch& b, const Groups& groups,
                   const Images& images = {}) {
  const auto num_members = static_cast<int64_t>(groups.members.size());
  int64_t most = random.below(3);
  for (const int64_t member : groups.members) most += num_chars(a, b, member);
  for (int kind = Combine::kUnion; kind <= Combine::kComplement; ++kind) {
    const Combine combine = {kind,
                             groups.members.data(),
                             num_members,
                             groups.offsets.data(),
                             static_cast<int64_t>(groups.offsets.size()) - 1,
                             images};
    cpu::Encoded encoded;
    CHECK(cpu::combine(a, b, combine, 1, &encoded) == kOk);
    const Combined combined = run_combine(random, a, b, combine, most);
    CHECK(combined.status == kOk);
    CHECK(combined.block == block_of(encoded));
  }
}

Groups random_groups(Random& random, int64_t num_masks, int64_t num_groups, int64_t largest) {
  Groups groups;
  for (; num_masks > 0 && num_groups > 0; --num_groups) {
    std::vector<int64_t> group(static_cast<size_t>(random.between(1, largest)));
    for (int64_t& member : group) member = random.below(num_masks);
    groups.add(group);
  }
  return groups;
}

void random_groups_of_masks() {
  for (uint64_t seed = 0; seed < 12; seed += kStep) {
    Random random(seed);
    const int64_t h = random.below(40), w = random.between(1, 40);
    const BatchBlock a(random_rles(random, random.below(6), h, w));
    const BatchBlock b(random_rles(random, random.between(1, 6), h, w));
    const int64_t num_a = a.batch().num_masks, num_b = b.batch().num_masks;
    const int64_t largest = random.one_in(2) ? 2 : random.between(1, 9);
    check_combine(random, a.batch(), b.batch(),
                  random_groups(random, num_a + num_b, random.below(9), largest));
    check_combine(random, b.batch(), b.batch(), random_groups(random, 2 * num_b, 2, 3));
  }
}

// Each group of its own size, in a block that knows its images.
void images() {
  for (uint64_t seed = 0; seed < 6; seed += kStep) {
    Random random(seed);
    std::vector<Rle> rles;
    std::vector<int64_t> table;
    Groups groups;
    for (int64_t image = random.below(40); image > 0; --image) {
      const int64_t n = random.below(4), h = random.below(20), w = random.below(20);
      table.insert(table.end(), {n > 0, h, w});
      std::vector<int64_t> group(static_cast<size_t>(n));
      std::iota(group.begin(), group.end(), static_cast<int64_t>(rles.size()));
      for (int64_t k = 0; k < n; ++k) rles.push_back(random_rle(random, h, w));
      if (n > 0) groups.add(group);
    }
    const BatchBlock block(rles);
    const auto exact_table = copied(table);
    check_combine(random, block.batch(), block.batch(), groups,
                  {exact_table.get(), static_cast<int64_t>(table.size() / 3)});
  }
}

// Boundaries at the same positions, in all orders; masks with none, and those of all pixels.
void equal_boundaries() {
  Random random(0);
  std::vector<Rle> rles;
  for (const Counts& counts : {Counts{12},
                               {0, 12},
                               {3, 4, 5},
                               {3, 4, 2, 3},
                               {0, 3, 4, 5},
                               {7, 5},
                               {11, 1},
                               {0, 1, 11},
                               {0, 0, 12},
                               {12, 0},
                               {3, 0, 0, 4, 5},
                               {0, 3, 0, 4, 5, 0},
                               {3, 2, 0, 2, 5}}) {
    rles.push_back({3, 4, to_chars(counts)});
  }
  const BatchBlock block(rles);
  const auto n = static_cast<int64_t>(rles.size());
  for (int64_t i = 0; i < n; i += 2 * kStep) {
    Groups groups;
    for (int64_t j = 0; j < n; ++j) {
      groups.add({i, j});
      groups.add({j, i, n + (i + j) % n});
    }
    check_combine(random, block.batch(), block.batch(), groups);
  }
}

// More boundaries than a block has threads, in one group and with many.
void long_lists() {
  Random random(3);
  std::vector<Rle> rles;
  for (const int64_t longest : {1, 2, 30, 200}) {
    Counts counts;
    for (int64_t left = 4000; left > 0; left -= counts.back()) {
      counts.push_back(static_cast<uint32_t>(std::min(left, random.between(1, longest))));
    }
    rles.push_back({40, 100, to_chars(counts)});
  }
  const BatchBlock block(rles);
  Groups groups;
  groups.add({0});
  groups.add({1, 0});
  groups.add({3, 2, 1});
  check_combine(random, block.batch(), block.batch(), groups);
  // More members than join at once, and more groups.
  const BatchBlock small(random_rles(random, 70, 5, 6));
  Groups all, each;
  std::vector<int64_t> masks(70);
  std::iota(masks.begin(), masks.end(), int64_t{0});
  all.add(masks);
  for (const int64_t mask : masks) each.add({mask});
  check_combine(random, small.batch(), small.batch(), all);
  check_combine(random, small.batch(), small.batch(), each);
}

void largest_masks() {
  Random random(4);
  const auto most = static_cast<uint32_t>(kMaxPixels);
  std::vector<Rle> rles;
  for (const Counts& counts :
       {Counts{0, most}, {most - 1, 1}, {1, most - 2, 1}, {most / 2, most - most / 2}, {most}}) {
    rles.push_back({1, kMaxPixels, to_chars(counts)});
  }
  const BatchBlock block(rles);
  Groups groups;
  for (int64_t i = 0; i < 5; ++i) groups.add({i, (i + 1) % 5});
  groups.add({0, 1, 2, 3, 4});
  check_combine(random, block.batch(), block.batch(), groups);
}

void sizes_that_differ() {
  Random random(5);
  const BatchBlock block(
      {random_rle(random, 6, 7), random_rle(random, 7, 6), random_rle(random, 6, 7)});
  for (const auto& members : {std::vector<int64_t>{0, 1}, {0, 2, 1}, {1, 0, 2}, {0, 2, 0, 2}}) {
    Groups groups;
    groups.add({1, 1});
    groups.add(members);
    const Combine combine = {
        Combine::kUnion, groups.members.data(), groups.offsets[2], groups.offsets.data(), 2, {}};
    const bool mixed = members.size() != 4;
    CHECK(run_combine(random, block.batch(), block.batch(), combine, 9000).status ==
          (mixed ? kMixedSizes : kOk));
  }
}

// Whatever the bytes are, and where there is not room for all: masks come out.
void hostile_bytes() {
  for (uint64_t seed = 0; seed < 20; seed += kStep) {
    Random random(seed);
    std::vector<Rle> rles;
    for (int64_t n = random.between(1, 6); n > 0; --n) {
      rles.push_back(random_rle(random, 20, random.one_in(9) ? 21 : 20));
      if (random.one_in(2)) continue;
      rles.back().chars.resize(static_cast<size_t>(random.below(300)));
      for (uint8_t& c : rles.back().chars) {
        c = random.one_in(2) ? random.byte() : static_cast<uint8_t>(random.between(48, 111));
      }
    }
    BatchBlock block(rles);
    const int64_t n = block.batch().num_masks;
    if (random.one_in(2)) {
      const int64_t words[] = {-1, 0, 3, 1 << 16, kMaxPixels, INT64_MAX, INT64_MIN, 200};
      block.set_word(random.below(3 * n + 1), words[random.below(8)]);
    }
    const BatchBlock other(random_rles(random, 3, 20, 20));
    const Groups groups = random_groups(random, n + 3, random.between(1, 5), 4);
    const Combine combine = {static_cast<int>(random.below(5)),
                             groups.members.data(),
                             static_cast<int64_t>(groups.members.size()),
                             groups.offsets.data(),
                             static_cast<int64_t>(groups.offsets.size()) - 1,
                             {}};
    const Combined combined =
        run_combine(random, block.batch(), other.batch(), combine, random.below(3000));
    const auto exact = copied(combined.block);
    const Batch result = {exact.get(), static_cast<int64_t>(combined.block.size()),
                          combine.num_groups};
    CHECK(combined.status == kOk || combined.status == kMixedSizes);
    CHECK(cpu::validate(result) == kOk);
  }
}

void what_is_refused() {
  Random random(6);
  const BatchBlock block(random_rles(random, 2, 6, 7));
  const Batch cut = {block.batch().data, 55, 2};
  const int64_t members[] = {0, 1}, offsets[] = {0, 2};
  const Combine combine = {Combine::kUnion, members, 2, offsets, 1, {}};
  BoundaryMemory memory(1, 100);
  int64_t status = 7;
  for (const auto& [a, b] : {std::pair{cut, block.batch()}, {block.batch(), cut}}) {
    CHECK(cuda::combine_workspace(a, b, 2, 100) == 0);
    CHECK(cuda::combine(a, b, combine, 100, nullptr, memory.boundaries, &status, kStream) ==
          kBadHeader);
  }
  const Aligned workspace =
      random_bytes(random, cuda::combine_workspace(block.batch(), block.batch(), 2, 100));
  const cuda::Stream elsewhere = {7, nullptr};
  CHECK(cuda::combine(block.batch(), block.batch(), combine, 100, workspace.get(),
                      memory.boundaries, &status, elsewhere) == cudaErrorInvalidDevice);
  int64_t char_begins[2] = {7, 7};
  uint8_t bytes[40] = {};
  CHECK(cuda::compress_measure(memory.boundaries, char_begins, elsewhere) ==
        cudaErrorInvalidDevice);
  CHECK(cuda::compress_write(memory.boundaries, char_begins, bytes, elsewhere) ==
        cudaErrorInvalidDevice);
  CHECK(status == 7 && char_begins[1] == 7 && bytes[0] == 0);
}

// Lists as long as a tile and around it, with and without the first pixel.
void strings_of_boundaries() {
  for (uint64_t seed = 0; seed < 6; seed += kStep) {
    Random random(seed);
    const int64_t lengths[] = {0, 1, 2, 3, 7, 8, 9, 2046, 2047, 2048, 2049, 4100};
    std::vector<Rle> expected;
    std::vector<std::vector<uint32_t>> lists;
    BoundaryMemory memory(12, 14'000);
    memory.boundaries.inverted = random.one_in(2);
    int64_t at = 0;
    for (int64_t i = 0; i < 12; ++i) {
      Counts counts;
      if (memory.boundaries.inverted) counts.push_back(0);
      uint32_t position = random.one_in(2) ? 0 : static_cast<uint32_t>(random.between(1, 99));
      memory.begins[i] = at;
      uint32_t last = 0;
      for (int64_t k = lengths[i]; k > 0; --k) {
        memory.positions[at++] = position;
        counts.push_back(position - last);
        last = position;
        position += static_cast<uint32_t>(random.between(1, random.one_in(9) ? 1 << 17 : 9));
      }
      memory.ends[i] = at;
      at += random.below(3);  // of no mask
      counts.push_back(position - last);
      // The only run of no length that a canonical string has is the first.
      if (memory.boundaries.inverted && counts.size() > 2 && counts[1] == 0) {
        counts.erase(counts.begin(), counts.begin() + 2);
      }
      if (position == 0) counts = {0};  // there is no pixel to invert
      memory.sizes[2 * i] = 1;
      memory.sizes[2 * i + 1] = position;
      expected.push_back({1, position, to_chars(counts)});
    }
    const BatchBlock block(expected);
    const std::vector<uint8_t> found = compress(random, memory.boundaries);
    CHECK(static_cast<int64_t>(found.size()) == block.batch().num_bytes);
    CHECK(same_bytes(found.data(), block.batch().data, block.batch().num_bytes));
  }
}

}  // namespace
}  // namespace sa1b::test

int main() {
  sa1b::test::random_groups_of_masks();
  sa1b::test::images();
  sa1b::test::equal_boundaries();
  sa1b::test::long_lists();
  sa1b::test::largest_masks();
  sa1b::test::sizes_that_differ();
  sa1b::test::hostile_bytes();
  sa1b::test::what_is_refused();
  sa1b::test::strings_of_boundaries();
}
