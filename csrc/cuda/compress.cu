// Boundaries to compressed strings.
//
// Split: a block for each mask, 8 boundaries for each thread at a time. What a count is written as
// depends on the three boundaries before, which every thread reads for itself. Once to measure the
// characters; then, when it is known where each string begins, to write them.
//
// Passes: boundaries twice, from L2. Bound: latency, a microsecond for each 2048 of one mask.
#include <algorithm>

#include "history.cuh"
#include "runs.cuh"
#include "scan.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kPerThread = 8;
constexpr uint32_t kTile = kThreads * kPerThread;

// Where the counts of one mask end: at its boundaries, and with the mask.
class CountEnds {
 public:
  __device__ CountEnds(const Boundaries& of, int64_t mask)
      : positions_(of.positions + of.begins[mask]),
        size_(of.ends[mask] - of.begins[mask] + 1),
        pixels_(static_cast<uint32_t>(of.sizes[2 * mask] * of.sizes[2 * mask + 1])) {
    if (!of.inverted || pixels_ == 0) return;
    // The first pixel is the only one that changes its colour against what is before it.
    if (size_ > 1 && positions_[0] == 0) {
      ++positions_;
      --size_;
    } else {
      leading_ = 1;
      ++size_;
    }
  }

  __device__ int64_t size() const { return size_; }
  __device__ uint32_t at(int64_t i) const {
    if (i == size_ - 1) return pixels_;
    return i < leading_ ? 0 : positions_[i - leading_];
  }
  __device__ History before(int64_t i) const {
    return {i > 0 ? at(i - 1) : kNoBoundary, i > 1 ? at(i - 2) : kNoBoundary,
            i > 2 ? at(i - 3) : kNoBoundary};
  }

 private:
  const uint32_t* positions_;
  int64_t size_;
  uint32_t pixels_;
  uint32_t leading_ = 0;  // ends before those in `positions_`
};

// Notes how many characters each string has.
__global__ void __launch_bounds__(kThreads)
    measure_strings_kernel(const Boundaries boundaries, int64_t* counts) {
  const auto add = [](int64_t a, int64_t b) { return a + b; };
  for (int64_t mask = blockIdx.x; mask < boundaries.num_masks; mask += gridDim.x) {
    const CountEnds ends(boundaries, mask);
    int64_t chars = 0;
    for (int64_t i = threadIdx.x; i < ends.size(); i += kThreads) {
      chars += num_chars_to(ends.at(i), ends.before(i));
    }
    int64_t chars_of_mask;
    block_exclusive_scan<kThreads>(chars, int64_t{0}, add, &chars_of_mask);
    if (threadIdx.x == 0) counts[mask] = chars_of_mask;
  }
}

// Turns the characters of each string into those before it. One block.
__global__ void __launch_bounds__(kJoinThreads) string_begins_kernel(int64_t* counts, int64_t n) {
  sum_up<kJoinThreads>(n, [=](int64_t i) { return counts[i]; }, INT64_MAX, counts);
}

// Writes a string; returns where it ends.
__device__ uint8_t* write_string(const CountEnds& ends, uint8_t* at) {
  const auto add = [](uint32_t a, uint32_t b) { return a + b; };
  for (int64_t tile = 0; tile < ends.size(); tile += kTile) {
    const int64_t first = min(tile + threadIdx.x * kPerThread, ends.size());
    const auto n = static_cast<uint32_t>(min(ends.size() - first, int64_t{kPerThread}));
    const History before = n > 0 ? ends.before(first) : History::none();
    uint32_t chars = 0;
    History history = before;
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t end = ends.at(first + i);
      chars += num_chars_to(end, history);
      history.add(end);
    }
    uint32_t chars_of_tile;
    chars = block_exclusive_scan<kThreads>(chars, 0u, add, &chars_of_tile);
    CountWriter counts = counts_after(before, at + chars);
    uint32_t last = before.last == kNoBoundary ? 0 : before.last;
    for (uint32_t i = 0; i < n; ++i) {
      const uint32_t end = ends.at(first + i);
      counts.add(end - last);
      last = end;
    }
    at += chars_of_tile;
  }
  return at;
}

__global__ void __launch_bounds__(kThreads)
    write_strings_kernel(const Boundaries boundaries, const int64_t* char_begins, uint8_t* block) {
  const int64_t num_masks = boundaries.num_masks, image_words = 3 * boundaries.images.num_images;
  auto* const sizes = reinterpret_cast<int64_t*>(block);
  int64_t* const offsets = sizes + 2 * num_masks;
  int64_t* const images = offsets + num_masks + 1;
  const int64_t header_bytes = 8 * (3 * num_masks + 1 + image_words);
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (thread == 0) offsets[0] = header_bytes;
  for (int64_t i = thread; i < image_words; i += int64_t{gridDim.x} * kThreads) {
    images[i] = boundaries.images.table[i];
  }
  for (int64_t mask = blockIdx.x; mask < num_masks; mask += gridDim.x) {
    const uint8_t* const end =
        write_string(CountEnds(boundaries, mask), block + header_bytes + char_begins[mask]);
    if (threadIdx.x != 0) continue;
    sizes[2 * mask] = boundaries.sizes[2 * mask];
    sizes[2 * mask + 1] = boundaries.sizes[2 * mask + 1];
    offsets[mask + 1] = end - block;
  }
}

// At least one: N = 0 has an offset, too.
dim3 mask_blocks(const Boundaries& boundaries) {
  return {std::max(blocks_for(boundaries.num_masks), 1u)};
}

}  // namespace

int compress_measure(const Boundaries& boundaries, int64_t* char_begins, const Stream& on) {
  cudaError_t error = cudaSetDevice(on.device);
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(measure_strings_kernel, mask_blocks(boundaries), kThreads, 0, handle(on),
                        boundaries, char_begins);
  }
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(string_begins_kernel, 1, kJoinThreads, 0, handle(on), char_begins,
                     boundaries.num_masks);
}

int compress_write(const Boundaries& boundaries, const int64_t* char_begins, uint8_t* block,
                   const Stream& on) {
  const cudaError_t error = cudaSetDevice(on.device);
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(write_strings_kernel, mask_blocks(boundaries), kThreads, 0, handle(on),
                     boundaries, char_begins, block);
}

}  // namespace sa1b::cuda
