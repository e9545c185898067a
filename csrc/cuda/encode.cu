// Encodes dense masks: finds the boundaries of runs in column-major order and writes their
// distances.
//
// The masks are read once, and that is the bound: what is written and read beside them is 1/8 of a
// byte for each pixel near a border. Four kernels, none of which waits for the host:
//
//   1. columns: a warp makes 32 rows of 32 or 128 columns into words of bits, one a column. A block
//      of 32 x 32 pixels that are all alike is only noted as such: most of a mask is.
//   2. measure: a block of threads takes the columns of a strip, 256 at a time, a thread for each.
//      It walks down the words of its column, once for the last boundaries in it and, after a scan,
//      once for the characters that its counts take.
//   3. join: one block scans the strips: a count's characters depend on the three boundaries before
//      it, so a strip does not know those of its first three. Then follows where each strip writes.
//   4. write: as measure, but each thread knows what it needs and writes its characters.
//
// A strip is as many columns as make some thousand strips in all, up to a whole mask. Masks whose
// pixels have one distance from each to the next are taken as columns of 1024 pixels, whatever
// their sides, so that all threads have work.
#include <algorithm>
#include <cstdint>

#include "runs.cuh"
#include "scan.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 256, kWarps = kThreads / kWarp;
constexpr uint32_t kMaxGridY = 65535;  // of any GPU
// Of those that read masks, on each multiprocessor: as many as keep memory busy.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr uint32_t kReadingBlocks = 4;  // there is no room for more
#else
constexpr uint32_t kReadingBlocks = 6;
#endif
// Smaller where grids are, in tests, so that there is more than one turn of every loop.
constexpr uint32_t kJoinThreads = kMaxGrid < 1024 ? 32 : 1024;
constexpr int64_t kWantedStrips = std::min<int64_t>(4096, 4 * kMaxGrid);
constexpr uint32_t kLinearRows = 1024;

// In place of a boundary. None lies there: they are below h*w < 2**32.
constexpr uint32_t kNone = ~0u;

// The latest three boundaries of those that came before a place, if there are as many.
struct History {
  uint32_t last, second, third;

  __device__ static History none() { return {kNone, kNone, kNone}; }
  __device__ uint32_t size() const {
    return (last != kNone) + (second != kNone) + (third != kNone);
  }
  __device__ void add(uint32_t boundary) {
    third = second;
    second = last;
    last = boundary;
  }

  // The last two counts as the format's differences take them: the first one is no base for any.
  __device__ uint32_t newer_count() const { return second == kNone ? 0 : last - second; }
  __device__ uint32_t older_count() const { return third == kNone ? 0 : second - third; }
  // The count that ends at `position`.
  __device__ uint32_t count_to(uint32_t position) const {
    return last == kNone ? position : position - last;
  }
};

// `later` follows on `earlier`.
__device__ __forceinline__ History concatenated(const History& earlier, const History& later) {
  const bool one = later.last != kNone, two = later.second != kNone, three = later.third != kNone;
  return {one ? later.last : earlier.last,
          two ? later.second : (one ? earlier.last : earlier.second),
          three ? later.third : (two ? earlier.last : (one ? earlier.second : earlier.third))};
}

// How many characters CountWriter writes for the count that ends at `position`.
__device__ __forceinline__ uint32_t num_chars_to(uint32_t position, const History& history) {
  const uint32_t count = history.count_to(position), base = history.older_count();
  // All bits of the difference that are not copies of its sign.
  const uint32_t bits = count >= base ? count - base : base - count - 1;
  return (32 - static_cast<uint32_t>(__clz(static_cast<int>(bits)))) / kPayloadBits + 1;
}

// 32 x 32 pixels.
enum Kind : uint8_t { kBackground, kForeground, kMixed };

// What comes before a column in its strip.
struct alignas(16) Column {
  History before;
  uint32_t chars;  // of all boundaries but the heads. Strings are no longer than h*w + 1.
};

// A strip on its own.
struct Strip {
  uint32_t heads[3];  // its first boundaries: their characters depend on the strips before
  History last;
  int64_t chars;  // of all boundaries but the heads
};

// A strip in its place.
struct Place {
  History before;
  uint32_t head_chars[4];  // of the first 0, 1, 2, 3 heads
  int64_t offset;          // where its characters start, from those of the first mask on
};

// How masks are read, how the work is split, and where in the workspace everything is.
struct Plan {
  Plan(const Dense& dense, void* workspace);

  const uint8_t* data;
  int64_t num_masks;
  int64_t mask_stride, row_stride, column_stride;
  uint64_t value_bits;
  uint32_t h, w;       // as the pixels are taken; w > 0
  uint32_t last_rows;  // of the last column
  uint32_t pixels;
  bool down;                // lanes read along columns, else along rows
  uint32_t bands, groups;   // blocks of 32 x 32 pixels
  int64_t strips_per_mask;  // each of `strip_columns` columns, a multiple of kThreads
  uint32_t strip_columns;

  uint32_t* words;    // [num_masks][bands][groups * 32] rows of a column, of kMixed blocks only
  uint8_t* kinds;     // [num_masks][groups][bands] Kind
  Column* columns;    // [num_masks][w]
  Strip* strips;      // [num_masks][strips_per_mask]
  Place* places;      // [num_masks][strips_per_mask]
  int64_t num_bytes;  // of the workspace

  __host__ __device__ int64_t num_strips() const { return num_masks * strips_per_mask; }
  __device__ uint32_t last_row(uint32_t x) const { return (x + 1 < w ? h : last_rows) - 1; }
};

uint32_t divided_up(int64_t n, int64_t size) {
  return static_cast<uint32_t>((n + size - 1) / size);
}

Plan::Plan(const Dense& dense, void* workspace)
    : data(dense.data),
      num_masks(dense.num_masks),
      mask_stride(dense.mask_stride),
      row_stride(dense.row_stride),
      column_stride(dense.column_stride),
      value_bits(dense.value_bits),
      h(static_cast<uint32_t>(dense.h)),
      w(static_cast<uint32_t>(dense.w)),
      pixels(static_cast<uint32_t>(dense.h * dense.w)) {
  const auto distance = [](int64_t stride) {
    return stride < 0 ? -static_cast<uint64_t>(stride) : static_cast<uint64_t>(stride);
  };
  down = distance(row_stride) < distance(column_stride);
  last_rows = h;
  // Unsigned: an axis of one element may have any stride.
  const bool no_gaps = static_cast<uint64_t>(column_stride) ==
                       static_cast<uint64_t>(row_stride) * static_cast<uint64_t>(h);
  if (pixels == 0) {
    h = last_rows = 0;
    w = 1;
  } else if (h == 1 || w == 1 || no_gaps) {
    if (h == 1) row_stride = column_stride;
    down = true;
    h = std::min(pixels, kLinearRows);
    w = divided_up(pixels, h);
    last_rows = pixels - (w - 1) * h;
    column_stride =
        static_cast<int64_t>(static_cast<uint64_t>(row_stride) * static_cast<uint64_t>(h));
  }
  bands = divided_up(h, 32);
  groups = divided_up(w, 32);

  const int64_t tiles = divided_up(w, kThreads);
  const int64_t wanted = kWantedStrips / std::max<int64_t>(num_masks, 1) + 1;
  const int64_t tiles_per_strip = divided_up(tiles, wanted);
  strip_columns = static_cast<uint32_t>(tiles_per_strip * kThreads);
  strips_per_mask = divided_up(tiles, tiles_per_strip);

  Workspace memory(workspace);
  words = memory.take<uint32_t>(num_masks * bands * groups * 32);
  kinds = memory.take<uint8_t>(num_masks * groups * bands);
  columns = memory.take<Column>(num_masks * w);
  strips = memory.take<Strip>(num_strips());
  places = memory.take<Place>(num_strips());
  num_bytes = memory.num_bytes();
}

// --- 1. Columns --------------------------------------------------------------------------------

enum class Read { kAcross, kAcrossBytes, kDown };

template <class T>
__device__ __forceinline__ bool is_foreground(const Plan& plan, const uint8_t* at) {
  return (__ldg(reinterpret_cast<const T*>(at)) & static_cast<T>(plan.value_bits)) != 0;
}

// The rows of a band as 32 bits, for the column of each lane. Rows below the last one repeat it, so
// that nothing changes there.
template <class T>
__device__ __forceinline__ uint32_t read_across(const Plan& plan, const uint8_t* mask,
                                                uint32_t band, uint32_t x) {
  uint32_t bits = 0;
  if (x >= plan.w) return bits;
  mask += x * plan.column_stride;
#pragma unroll
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t y = min(32 * band + i, plan.h - 1);
    bits |= uint32_t{is_foreground<T>(plan, mask + y * plan.row_stride)} << i;
  }
  return bits;
}

// The same, where pixels of a column are nearer to each other than those of a row.
template <class T>
__device__ __forceinline__ uint32_t read_down(const Plan& plan, const uint8_t* mask, uint32_t band,
                                              uint32_t group) {
  uint32_t bits = 0;
#pragma unroll
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t x = 32 * group + i;
    bool foreground = false;
    if (x < plan.w) {
      const uint32_t y = min(32 * band + lane_index(), plan.last_row(x));
      foreground = is_foreground<T>(plan, mask + x * plan.column_stride + y * plan.row_stride);
    }
    const uint32_t column = __ballot_sync(kAllLanes, foreground);
    if (lane_index() == i) bits = column;
  }
  return bits;
}

// Four bytes of each of eight rows: low and high word, to be shifted right by 8 * phase together.
struct EightRows {
  uint32_t low[8], high[8];
  uint32_t phase, phase_step;  // of the first row, and from row to row; modulo 4
};

// At any address, by aligned words, which may reach four bytes beyond on either side.
__device__ __forceinline__ void load_words(const uint8_t* at, int64_t row_stride, EightRows& rows) {
  rows.phase = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(at));
  rows.phase_step = static_cast<uint32_t>(row_stride);
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i, at += row_stride) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    const auto* words = reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3});
    rows.low[i] = __ldg(words);
    rows.high[i] = address % 4 == 0 ? 0 : __ldg(words + 1);
  }
}

// The same by bytes, of which `n` are there.
__device__ __forceinline__ void load_bytes(const uint8_t* at, int64_t row_stride, uint32_t n,
                                           EightRows& rows) {
  rows.phase = rows.phase_step = 0;
#pragma unroll
  for (uint32_t i = 0; i < 8; ++i, at += row_stride) {
    rows.low[i] = rows.high[i] = 0;
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      if (k < n) rows.low[i] |= uint32_t{__ldg(at + k)} << (8 * k);
    }
  }
}

// Four columns a lane, of bytes without gaps and at least 32 rows. Of eight rows at a time, bit 7
// of each byte moves down until the byte has a bit of each row; four such bytes are a column's
// word.
__device__ __forceinline__ void read_bytes_across(const Plan& plan, const uint8_t* mask,
                                                  uint32_t band, uint32_t x, uint32_t (&bits)[4]) {
  constexpr uint32_t kOnes = 0x01010101, kLow = 0x7f * kOnes, kHigh = 0x80 * kOnes;
  const uint32_t value_bits = static_cast<uint8_t>(plan.value_bits) * kOnes;
  // The last band begins early, so that its rows are there, and those above it are shifted out.
  const uint32_t y = min(32 * band, plan.h - 32), rows_above = 32 * band - y;
  const uint32_t inside = x < plan.w ? plan.w - x : 0;
  const bool far_from_ends = x >= 4 && inside >= 8;
  const uint8_t* at = mask + y * plan.row_stride + x;
  uint32_t eights[4];
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i, at += 8 * plan.row_stride) {
    EightRows rows;
    if (far_from_ends) {
      load_words(at, plan.row_stride, rows);
    } else {
      load_bytes(at, plan.row_stride, inside, rows);
    }
    uint32_t any = 0;
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) any |= rows.low[k] | rows.high[k];
    eights[i] = 0;
    if ((any & value_bits) == 0) continue;  // as most are
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) {
      const uint32_t shift = 8 * (rows.phase + k * rows.phase_step);  // modulo 32
      const uint32_t four = __funnelshift_r(rows.low[k], rows.high[k], shift) & value_bits;
      eights[i] = eights[i] >> 1 | ((((four & kLow) + kLow) | four) & kHigh);
    }
  }
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t select = i | (i + 4) << 4;  // byte i of each
    const uint32_t word = __byte_perm(__byte_perm(eights[0], eights[1], select),
                                      __byte_perm(eights[2], eights[3], select), 0x5410);
    bits[i] = static_cast<uint32_t>(static_cast<int32_t>(word) >> rows_above);
  }
}

// Notes what blocks are, and the words of those that need it, of `n` columns a lane.
template <uint32_t n>
__device__ __forceinline__ void store_columns(const Plan& plan, int64_t mask, uint32_t band,
                                              uint32_t x, const uint32_t (&bits)[n]) {
  uint32_t any = 0, all = ~0u;
#pragma unroll
  for (uint32_t i = 0; i < n; ++i) {
    if (x + i >= plan.w) continue;
    any |= bits[i];
    all &= bits[i];
  }
  const uint32_t lanes = n == 1 ? kAllLanes : 0xffu << (lane_index() & 24);  // of 32 columns
  const bool background = (__ballot_sync(kAllLanes, any != 0) & lanes) == 0;
  const bool foreground = (__ballot_sync(kAllLanes, all != ~0u) & lanes) == 0;
  if (x >= plan.w) return;
  const Kind kind = background ? kBackground : foreground ? kForeground : kMixed;
  if (x % 32 == 0) plan.kinds[(mask * plan.groups + x / 32) * plan.bands + band] = kind;
  if (kind != kMixed) return;
  uint32_t* const to = plan.words + (mask * plan.bands + band) * plan.groups * 32 + x;
  if constexpr (n == 4) {
    *reinterpret_cast<uint4*>(to) = make_uint4(bits[0], bits[1], bits[2], bits[3]);
  } else {
    *to = bits[0];
  }
}

template <class T, Read kRead>
__global__ void __launch_bounds__(kThreads, kReadingBlocks) columns_kernel(const Plan plan) {
  constexpr uint32_t kPerLane = kRead == Read::kAcrossBytes ? 4 : 1;
  const uint32_t stripes = (plan.w + 32 * kPerLane - 1) / (32 * kPerLane);
  const uint32_t items = stripes * plan.bands;
  for (int64_t i = blockIdx.y; i < plan.num_masks; i += gridDim.y) {
    const uint8_t* const mask = plan.data + i * plan.mask_stride;
    for (uint32_t item = blockIdx.x * kWarps + warp_index(); item < items;
         item += gridDim.x * kWarps) {
      // Neighbours in memory go to neighbouring warps.
      const uint32_t major = item / (kRead == Read::kDown ? plan.bands : stripes);
      const uint32_t minor = item - major * (kRead == Read::kDown ? plan.bands : stripes);
      const uint32_t band = kRead == Read::kDown ? minor : major;
      const uint32_t stripe = kRead == Read::kDown ? major : minor;
      const uint32_t x = (32 * stripe + lane_index()) * kPerLane;
      uint32_t bits[kPerLane];
      if constexpr (kRead == Read::kAcrossBytes) {
        read_bytes_across(plan, mask, band, x, bits);
      } else if constexpr (kRead == Read::kAcross) {
        bits[0] = read_across<T>(plan, mask, band, x);
      } else {
        bits[0] = read_down<T>(plan, mask, band, stripe);
      }
      store_columns(plan, i, band, x, bits);
    }
  }
}

// --- 2. Measure --------------------------------------------------------------------------------

// Calls visit(position) for each boundary in column x, from top to bottom; by whole warps, of which
// lanes beyond the mask have none.
template <class Visit>
__device__ __forceinline__ void for_each_boundary(const Plan& plan, int64_t mask, uint32_t x,
                                                  Visit visit) {
  const int64_t pitch = int64_t{32} * plan.groups;
  const uint32_t* const words = plan.words + mask * plan.bands * pitch;
  const uint8_t* const kinds = plan.kinds + mask * plan.groups * plan.bands;
  const bool inside = x < plan.w;
  // The pixel before: at first the last one of the column to the left.
  uint32_t before = 0;
  if (inside && x > 0 && plan.bands > 0) {
    const uint32_t bottom = plan.bands - 1, left = x - 1;
    const uint8_t kind = kinds[int64_t{left / 32} * plan.bands + bottom];
    before = kind == kMixed ? words[bottom * pitch + left] >> 31 : kind == kForeground;
  }
  const int64_t group = min(x / 32, plan.groups - 1);
  const uint32_t top = x * plan.h;
  for (uint32_t first = 0; first < plan.bands; first += 32) {
    const uint32_t n = min(32u, plan.bands - first);
    const uint8_t kind = lane_index() < n ? kinds[group * plan.bands + first + lane_index()] : 0;
    const uint32_t mixed = __ballot_sync(kAllLanes, kind == kMixed);
    const uint32_t full = __ballot_sync(kAllLanes, kind == kForeground);
    // Others than these are of one colour with the block above.
    uint32_t left = (mixed | mixed << 1 | (full ^ full << 1) | 1) & (~0u >> (32 - n));
    for (; left != 0; left &= left - 1) {
      const auto i = static_cast<uint32_t>(__ffs(static_cast<int>(left)) - 1);
      if (!inside) continue;
      uint32_t word = full >> i & 1 ? ~0u : 0;
      if (mixed >> i & 1) word = words[(first + i) * pitch + x];
      uint32_t changes = word ^ (word << 1 | before);
      before = word >> 31;
      for (; changes != 0; changes &= changes - 1) {
        const auto row = static_cast<uint32_t>(__ffs(static_cast<int>(changes)) - 1);
        visit(top + 32 * (first + i) + row);
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads) measure_kernel(const Plan plan) {
  SA1B_SHARED(uint32_t[3], heads);
  const auto concatenate = [](const History& a, const History& b) { return concatenated(a, b); };
  const auto add = [](uint32_t a, uint32_t b) { return a + b; };
  for (int64_t i = blockIdx.x; i < plan.num_strips(); i += gridDim.x) {
    const int64_t mask = i / plan.strips_per_mask;
    const auto begin = static_cast<uint32_t>(i % plan.strips_per_mask) * plan.strip_columns;
    const uint32_t end = min(plan.w, begin + plan.strip_columns);
    if (threadIdx.x < 3) heads[threadIdx.x] = kNone;
    __syncthreads();
    History tiles_before = History::none();
    int64_t chars_before = 0;
    for (uint32_t tile = begin; tile < end; tile += kThreads) {
      const uint32_t x = tile + threadIdx.x;
      History own = History::none();
      for_each_boundary(plan, mask, x, [&](uint32_t position) { own.add(position); });
      History of_tile;
      const History before =
          concatenated(tiles_before,
                       block_exclusive_scan<kThreads>(own, History::none(), concatenate, &of_tile));
      uint32_t chars = 0;
      if (__any_sync(kAllLanes, own.last != kNone)) {
        History history = before;
        for_each_boundary(plan, mask, x, [&](uint32_t position) {
          if (history.third != kNone) {
            chars += num_chars_to(position, history);
          } else {
            heads[history.size()] = position;
          }
          history.add(position);
        });
      }
      uint32_t chars_of_tile;
      chars = block_exclusive_scan<kThreads>(chars, 0u, add, &chars_of_tile);
      if (x < end) {
        plan.columns[mask * plan.w + x] = {before, static_cast<uint32_t>(chars_before) + chars};
      }
      tiles_before = concatenated(tiles_before, of_tile);
      chars_before += chars_of_tile;
    }
    if (threadIdx.x == 0) {
      plan.strips[i] = {{heads[0], heads[1], heads[2]}, tiles_before, chars_before};
    }
    __syncthreads();  // the next strip has heads of its own
  }
}

// --- 3. Join -----------------------------------------------------------------------------------

// A history that does not go on before the first strip of a mask.
struct Reach {
  History history;
  uint32_t from_start;
};

__global__ void __launch_bounds__(kJoinThreads) join_kernel(const Plan plan, int64_t* num_chars) {
  const auto concatenate = [](const Reach& a, const Reach& b) {
    return b.from_start ? b : Reach{concatenated(a.history, b.history), a.from_start};
  };
  const auto add = [](int64_t a, int64_t b) { return a + b; };
  const Reach nothing = {History::none(), 0};
  Reach all_before = nothing;
  int64_t chars_before = 0;
  for (int64_t first = 0; first < plan.num_strips(); first += kJoinThreads) {
    const int64_t i = first + threadIdx.x;
    const bool inside = i < plan.num_strips();
    Strip strip = {{kNone, kNone, kNone}, History::none(), 0};
    if (inside) strip = plan.strips[i];
    const auto number = static_cast<uint32_t>(i % plan.strips_per_mask);
    Reach of_all;
    const Reach before =
        concatenate(all_before, block_exclusive_scan<kJoinThreads>(Reach{strip.last, number == 0},
                                                                   nothing, concatenate, &of_all));
    all_before = concatenate(all_before, of_all);

    Place place = {number == 0 ? History::none() : before.history, {}, 0};
    uint32_t chars = 0;
    History history = place.before;
#pragma unroll
    for (uint32_t k = 0; k < 3; ++k) {
      if (strip.heads[k] != kNone) {
        chars += num_chars_to(strip.heads[k], history);
        history.add(strip.heads[k]);
      }
      place.head_chars[k + 1] = chars;
    }
    int64_t chars_of_strip = inside ? chars + strip.chars : 0;
    if (inside && number == plan.strips_per_mask - 1) {  // the last run ends with the mask
      chars_of_strip += num_chars_to(plan.pixels, concatenated(place.before, strip.last));
    }
    int64_t chars_of_all;
    place.offset = chars_before + block_exclusive_scan<kJoinThreads>(chars_of_strip, int64_t{0},
                                                                     add, &chars_of_all);
    chars_before += chars_of_all;
    if (inside) plan.places[i] = place;
  }
  if (threadIdx.x == 0) *num_chars = chars_before;
}

// --- 4. Write ----------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads)
    write_kernel(const Plan plan, int64_t h, int64_t w, uint8_t* block) {
  auto* const sizes = reinterpret_cast<int64_t*>(block);
  int64_t* const offsets = sizes + 2 * plan.num_masks;
  const int64_t header_bytes = 8 * (3 * plan.num_masks + 1);
  if (blockIdx.x == 0 && threadIdx.x == 0) offsets[0] = header_bytes;
  for (int64_t i = blockIdx.x; i < plan.num_strips(); i += gridDim.x) {
    const int64_t mask = i / plan.strips_per_mask;
    const auto begin = static_cast<uint32_t>(i % plan.strips_per_mask) * plan.strip_columns;
    const uint32_t end = min(plan.w, begin + plan.strip_columns);
    const Place& place = plan.places[i];
    for (uint32_t x = begin + threadIdx.x; x - threadIdx.x < end; x += kThreads) {
      Column column = {History::none(), 0};
      if (x < end) column = plan.columns[mask * plan.w + x];
      const History before = concatenated(place.before, column.before);
      uint32_t last = before.last == kNone ? 0 : before.last;
      CountWriter counts(block + header_bytes + place.offset +
                         place.head_chars[column.before.size()] + column.chars);
      if (before.last != kNone) counts.go_on_after(before.older_count(), before.newer_count());
      for_each_boundary(plan, mask, x, [&](uint32_t position) {
        counts.add(position - last);
        last = position;
      });
      if (x != plan.w - 1) continue;
      counts.add(plan.pixels - last);
      sizes[2 * mask] = h;
      sizes[2 * mask + 1] = w;
      offsets[mask + 1] = counts.at() - block;
    }
  }
}

template <class T, Read kRead>
cudaError_t launch_columns(const Plan& plan, cudaStream_t stream) {
  const int64_t columns = kRead == Read::kAcrossBytes ? 128 : 32;
  const int64_t blocks = divided_up(int64_t{divided_up(plan.w, columns)} * plan.bands, kWarps);
  const dim3 grid(blocks_for(blocks), std::min(blocks_for(plan.num_masks), kMaxGridY));
  return SA1B_LAUNCH((columns_kernel<T, kRead>), grid, kThreads, 0, stream, plan);
}

template <class T>
cudaError_t launch_columns_of(const Plan& plan, cudaStream_t stream) {
  if (plan.down) return launch_columns<T, Read::kDown>(plan, stream);
  if constexpr (sizeof(T) == 1) {
    if (plan.column_stride == 1 && plan.h >= 32) {
      return launch_columns<T, Read::kAcrossBytes>(plan, stream);
    }
  }
  return launch_columns<T, Read::kAcross>(plan, stream);
}

cudaError_t launch_columns_of(const Plan& plan, int item_size, cudaStream_t stream) {
  switch (item_size) {
    case 1:
      return launch_columns_of<uint8_t>(plan, stream);
    case 2:
      return launch_columns_of<uint16_t>(plan, stream);
    case 4:
      return launch_columns_of<uint32_t>(plan, stream);
    default:
      return launch_columns_of<uint64_t>(plan, stream);
  }
}

// At least one: N = 0 has an offset, too.
dim3 strip_blocks(const Plan& plan) { return {std::max(blocks_for(plan.num_strips()), 1u)}; }

}  // namespace

int64_t encode_workspace(const Dense& dense) { return Plan(dense, nullptr).num_bytes; }

int encode_measure(const Dense& dense, void* workspace, int64_t* num_chars, const Stream& on) {
  const Plan plan(dense, workspace);
  const cudaStream_t stream = handle(on);
  cudaError_t error = cudaSetDevice(on.device);
  if (error == cudaSuccess && plan.num_masks > 0 && plan.pixels > 0) {
    error = launch_columns_of(plan, dense.item_size, stream);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(measure_kernel, strip_blocks(plan), kThreads, 0, stream, plan);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(join_kernel, 1, kJoinThreads, 0, stream, plan, num_chars);
  }
  return error;
}

int encode_write(const Dense& dense, const void* workspace, uint8_t* block, const Stream& on) {
  const Plan plan(dense, const_cast<void*>(workspace));  // write_kernel only reads it
  const cudaError_t error = cudaSetDevice(on.device);
  if (error != cudaSuccess) return error;
  return SA1B_LAUNCH(write_kernel, strip_blocks(plan), kThreads, 0, handle(on), plan, dense.h,
                     dense.w, block);
}

}  // namespace sa1b::cuda
