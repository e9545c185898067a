// Union, intersection and the like of groups of masks, from their runs: no pixel is made.
//
// A boundary of a member is one of the result if the result differs there from the pixel before,
// which follows from how many members hold the two pixels; a binary search in each member says
// whether it does. Of members with a boundary at one position the first one answers for it.
//
// Split: after `parse`, a thread for each boundary of a member, in steps:
//
//   1. members: one block finds where the boundaries of each member lie, and whether sizes differ.
//   2. boundaries: each member's own, in order whatever the bytes of its string are.
//   3. changes: which of them are of the result.
//   4. counts: how many of those come before each.
//   5. order: how many changes of the group come before one is a sum over its members: its place.
//
// Steps 2 and 4 are scans, a block for each member; 3 and 5 share a member's boundaries out among
// blocks.
//
// Passes: boundaries, and in steps 3 and 5 all members of the group for each of them, from L1 and
// L2. Bound: that, for groups of many masks; else latency, some microseconds a step.
#include <algorithm>

#include "../algebra.h"
#include "runs.cuh"
#include "scan.cuh"

namespace sa1b::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr int kBlocks = 4;  // on a multiprocessor, at least: threads have up to 64 registers
constexpr uint32_t kPerThread = 8;  // values that it scans at a time
// That many keep a GPU busy; fewer where grids are small, in tests.
constexpr int64_t kManyBlocks = std::min<int64_t>(1024, 2 * kMaxGrid);

// Positions that never fall. A mask begins with background; there is an even number of them.
struct Sorted {
  const uint32_t* positions;
  uint32_t n;

  // The index of the first one beyond a position.
  __device__ uint32_t beyond(uint32_t position) const {
    if (n == 0 || position < positions[0]) return 0;
    return position >= positions[n - 1] ? n : first_beyond(positions, n, position);
  }
  // The index of the first one that is not before a position.
  __device__ uint32_t from(uint32_t position) const {
    return position == 0 ? 0 : beyond(position - 1);
  }
};

struct Group {
  int64_t index;
  int64_t begin, end;  // its members
  uint32_t pixels;     // of a mask
};

// What is combined, and where everything is.
struct Plan {
  Plan(const Batch& first, const Batch& second, const Combine& combine, int64_t max_boundaries,
       const Boundaries& boundaries, Workspace memory);

  Combine groups;
  Runs a, b;
  int64_t num_a;
  int64_t capacity;  // of boundaries
  Boundaries result;

  int64_t* begins;       // [num_members + 1] boundaries before those of each member
  uint32_t* boundaries;  // [capacity] of all members
  uint32_t* before;      // [capacity + num_members] changes of a member before each of its
                         // boundaries, and all of them
  int64_t num_bytes;     // of the workspace

  __device__ const MaskRuns& mask_of(int64_t member) const {
    const int64_t i = groups.members[member];
    return i < num_a ? a.masks[i] : b.masks[i - num_a];
  }
  __device__ uint32_t end_of(int64_t member, int64_t i) const {
    const uint32_t* const ends = groups.members[member] < num_a ? a.ends : b.ends;
    return ends[mask_of(member).begin + i];
  }

  __device__ Sorted boundaries_of(int64_t member) const {
    const int64_t begin = begins[member];
    return {boundaries + begin, static_cast<uint32_t>(begins[member + 1] - begin)};
  }
  __device__ uint32_t* changes_before(int64_t member) const {
    return before + begins[member] + member;
  }

  __device__ int64_t group_index(int64_t member) const {
    int64_t low = 0, high = groups.num_groups;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (groups.group_offsets[middle] <= member ? low : high) = middle;
    }
    return low;
  }
  __device__ Group group_of(int64_t member) const {
    const int64_t i = group_index(member);
    return {i, groups.group_offsets[i], groups.group_offsets[i + 1],
            static_cast<uint32_t>(result.sizes[2 * i] * result.sizes[2 * i + 1])};
  }
};

Plan::Plan(const Batch& first, const Batch& second, const Combine& combine, int64_t max_boundaries,
           const Boundaries& boundaries_of_groups, Workspace memory)
    : groups(combine),
      num_a(first.num_masks),
      capacity(max_boundaries / 2 * 2),  // no member loses one of two
      result(boundaries_of_groups) {
  a = memory.take_runs(first);
  b = is_same(first, second) ? a : memory.take_runs(second);
  begins = memory.take<int64_t>(combine.num_members + 1);
  boundaries = memory.take<uint32_t>(capacity);
  before = memory.take<uint32_t>(capacity + combine.num_members);
  num_bytes = memory.num_bytes();
}

// --- 1. Members --------------------------------------------------------------------------------

__global__ void __launch_bounds__(kJoinThreads, 1)
    members_kernel(const Plan plan, int64_t* status) {
  // Of bytes that were not validated, the last background may lack its foreground: no run then.
  const auto num_boundaries = [&](int64_t member) {
    return int64_t{plan.mask_of(member).num_ends & ~1u};
  };
  sum_up<kJoinThreads>(plan.groups.num_members, num_boundaries, plan.capacity, plan.begins);
  bool mixed = false;
  for (int64_t member = threadIdx.x; member < plan.groups.num_members; member += kJoinThreads) {
    const int64_t group = plan.group_index(member);
    const int64_t first_member = plan.groups.group_offsets[group];
    const MaskRuns &first = plan.mask_of(first_member), &own = plan.mask_of(member);
    mixed = mixed || own.h != first.h || own.w != first.w;
    if (member == first_member) {
      plan.result.sizes[2 * group] = first.h;
      plan.result.sizes[2 * group + 1] = first.w;
    }
  }
  const bool any_mixed = __syncthreads_or(mixed) != 0;
  if (threadIdx.x == 0) *status = any_mixed ? kMixedSizes : kOk;
}

// Scans n values in a block: calls visit(i, op of all before, value i), and returns op of all.
template <class Value, class Op, class Visit>
__device__ __forceinline__ uint32_t scan_values(int64_t n, Value value, Op op, Visit visit) {
  uint32_t of_all = 0;
  for (int64_t tile = 0; tile < n; tile += kThreads * kPerThread) {
    const int64_t first = tile + threadIdx.x * kPerThread;
    uint32_t own[kPerThread], of_own = 0;
#pragma unroll
    for (uint32_t k = 0; k < kPerThread; ++k) {
      own[k] = first + k < n ? value(first + k) : 0;
      of_own = op(of_own, own[k]);
    }
    uint32_t of_tile;
    uint32_t before = op(of_all, block_exclusive_scan<kThreads>(of_own, 0u, op, &of_tile));
#pragma unroll
    for (uint32_t k = 0; k < kPerThread; ++k) {
      if (first + k < n) visit(first + k, before, own[k]);
      before = op(before, own[k]);
    }
    of_all = op(of_all, of_tile);
  }
  return of_all;
}

// --- 2. Boundaries -----------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads, kBlocks) boundaries_kernel(const Plan plan) {
  for (int64_t member = blockIdx.x; member < plan.groups.num_members; member += gridDim.x) {
    const int64_t begin = plan.begins[member];
    scan_values(
        plan.begins[member + 1] - begin, [&](int64_t i) { return plan.end_of(member, i); },
        [](uint32_t p, uint32_t q) { return max(p, q); },
        [&](int64_t i, uint32_t highest, uint32_t own) {
          plan.boundaries[begin + i] = max(highest, own);
        });
  }
}

// --- 3. Changes --------------------------------------------------------------------------------

// How many members of a group hold a pixel, and whether the first one does.
struct Holders {
  int64_t n = 0;
  bool first = false;

  __device__ void add(bool holds, bool is_first) {
    n += holds;
    first = first || (holds && is_first);
  }
  __device__ bool result(int kind, int64_t num_members) const {
    switch (kind) {
      case Combine::kIntersection:
        return n == num_members;
      case Combine::kXor:
        return n % 2 != 0;
      case Combine::kDifference:
        return first && n == 1;
      default:
        return n != 0;
    }
  }
};

// Whether boundary i of a member is one of the result that this member answers for.
__device__ bool is_change(const Plan& plan, const Group& group, int64_t member, const Sorted& own,
                          int64_t i) {
  const uint32_t position = own.positions[i];
  if (position >= group.pixels || (i > 0 && own.positions[i - 1] == position)) return false;
  Holders of_pixel, of_pixel_before;
  for (int64_t k = group.begin; k < group.end; ++k) {
    const Sorted sorted = plan.boundaries_of(k);
    const uint32_t beyond = sorted.beyond(position);
    const bool is_boundary = beyond > 0 && sorted.positions[beyond - 1] == position;
    if (is_boundary && k < member) return false;
    const uint32_t from = is_boundary ? sorted.from(position) : beyond;
    of_pixel.add(beyond % 2 != 0, k == group.begin);
    of_pixel_before.add(from % 2 != 0, k == group.begin);
  }
  const int64_t num_members = group.end - group.begin;
  return of_pixel.result(plan.groups.kind, num_members) !=
         of_pixel_before.result(plan.groups.kind, num_members);
}

__global__ void __launch_bounds__(kThreads, kBlocks) changes_kernel(const Plan plan) {
  const int64_t thread = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const int64_t num_threads = int64_t{gridDim.y} * kThreads;
  for (int64_t member = blockIdx.x; member < plan.groups.num_members; member += gridDim.x) {
    const Group group = plan.group_of(member);
    const Sorted own = plan.boundaries_of(member);
    uint32_t* const changes = plan.changes_before(member);
    for (int64_t i = thread; i < own.n; i += num_threads) {
      changes[i] = is_change(plan, group, member, own, i);
    }
  }
}

// --- 4. Counts ---------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads, kBlocks) counts_kernel(const Plan plan) {
  for (int64_t member = blockIdx.x; member < plan.groups.num_members; member += gridDim.x) {
    const uint32_t n = plan.boundaries_of(member).n;
    uint32_t* const changes_before = plan.changes_before(member);
    const uint32_t changes = scan_values(
        n, [&](int64_t i) { return changes_before[i]; },
        [](uint32_t p, uint32_t q) { return p + q; },
        [&](int64_t i, uint32_t before, uint32_t) { changes_before[i] = before; });
    if (threadIdx.x == 0) changes_before[n] = changes;
  }
}

// --- 5. Order ----------------------------------------------------------------------------------

__device__ int64_t num_changes_before(const Plan& plan, const Group& group, uint32_t position) {
  int64_t n = 0;
  for (int64_t k = group.begin; k < group.end; ++k) {
    n += plan.changes_before(k)[plan.boundaries_of(k).from(position)];
  }
  return n;
}

__global__ void __launch_bounds__(kThreads, kBlocks) order_kernel(const Plan plan) {
  const int64_t thread = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const int64_t num_threads = int64_t{gridDim.y} * kThreads;
  for (int64_t member = blockIdx.x; member < plan.groups.num_members; member += gridDim.x) {
    const Group group = plan.group_of(member);
    const int64_t begin = plan.begins[group.begin];
    if (member == group.begin && thread == 0) {
      plan.result.begins[group.index] = begin;
      plan.result.ends[group.index] = begin + num_changes_before(plan, group, group.pixels);
    }
    const Sorted own = plan.boundaries_of(member);
    const uint32_t* const changes_before = plan.changes_before(member);
    for (int64_t i = thread; i < own.n; i += num_threads) {
      if (changes_before[i] == changes_before[i + 1]) continue;
      const uint32_t position = own.positions[i];
      plan.result.positions[begin + num_changes_before(plan, group, position)] = position;
    }
  }
}

cudaError_t parse_both(const Batch& a, const Batch& b, const Plan& plan, cudaStream_t stream) {
  const cudaError_t error = parse(a, plan.a, {}, stream);
  if (error != cudaSuccess || is_same(a, b)) return error;
  return parse(b, plan.b, {}, stream);
}

}  // namespace

int64_t combine_workspace(const Batch& a, const Batch& b, int64_t num_members,
                          int64_t max_boundaries) {
  if (!a.header_fits() || !b.header_fits()) return 0;
  Combine combine = {};
  combine.num_members = num_members;
  return Plan(a, b, combine, max_boundaries, {}, Workspace(nullptr)).num_bytes;
}

int combine(const Batch& a, const Batch& b, const Combine& combine, int64_t max_boundaries,
            void* workspace, const Boundaries& boundaries, int64_t* status, const Stream& on) {
  if (!a.header_fits() || !b.header_fits()) return kBadHeader;
  const Plan plan(a, b, combine, max_boundaries, boundaries, Workspace(workspace));
  const cudaStream_t stream = handle(on);
  cudaError_t error = cudaSetDevice(on.device);
  if (error == cudaSuccess) error = parse_both(a, b, plan, stream);
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(members_kernel, 1, kJoinThreads, 0, stream, plan, status);
  }
  if (combine.num_members == 0) return error;
  const dim3 members(blocks_for(combine.num_members));
  const dim3 parts(members.x, static_cast<uint32_t>(1 + kManyBlocks / combine.num_members));
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(boundaries_kernel, members, kThreads, 0, stream, plan);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(changes_kernel, parts, kThreads, 0, stream, plan);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(counts_kernel, members, kThreads, 0, stream, plan);
  }
  if (error == cudaSuccess) {
    error = SA1B_LAUNCH(order_kernel, parts, kThreads, 0, stream, plan);
  }
  return error;
}

}  // namespace sa1b::cuda
