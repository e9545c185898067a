// The blocks of a launch, one after another, and which of a block's threads runs.
//
// A thread that has not started needs no stack: it takes over the fiber of one that has exited. So
// there are never more fibers than threads that wait, and one more; later launches use them again.
// To find races, though, each thread of a block has a fiber of its own. After a Bug, not all that
// is reported is a race: the threads that it left behind never ended.
#include "cuda_on_cpu/run_blocks.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_on_cpu.h"
#include "cuda_on_cpu/fiber.h"
#include "cuda_on_cpu/sanitizers.h"

namespace sa1b::emulator {
namespace {

constexpr unsigned kLanes = 32;
constexpr int kBallot = -1;  // in place of a source lane: take the votes of all

std::string text(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) noexcept : state_(seed) {}
  uint64_t bits() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
  }
  size_t below(size_t n) { return (bits() >> 32) * n >> 32; }  // n < 2**32

 private:
  uint64_t state_;
};

// What a thread waits in.
struct Call {
  const char* name;
  Line line;
  unsigned mask;  // of lanes; 0: the whole block

  bool operator!=(const Call& other) const {
    return line.number != other.line.number || mask != other.mask || differ(name, other.name) ||
           differ(line.file, other.line.file);
  }
  static bool differ(const char* a, const char* b) { return a != b && strcmp(a, b) != 0; }
  std::string text() const {
    std::string result = std::string(name) + " at " + line.file + ":" + std::to_string(line.number);
    if (mask) {
      char hexadecimal[16];
      std::snprintf(hexadecimal, sizeof(hexadecimal), "%#x", mask);
      result += std::string(" with mask ") + hexadecimal;
    }
    return result;
  }
};

struct Thread {
  uint3 index;
  Fiber* fiber;  // null: not started
  Call call;     // what it waits in; of a thread that runs, the last
};

struct Warp {
  unsigned alive;    // lanes that exist and have not exited
  unsigned waiting;  // lanes in a call that names lanes
  uint64_t brought[kLanes], taken[kLanes];
  int source[kLanes];  // whose value a lane takes
};

// The memory of a shared variable, allocated to the byte so that AddressSanitizer sees its end.
struct SharedMemory {
  std::unique_ptr<char[]> bytes;
  size_t num_bytes = 0;
  uint64_t block = 0;  // the block that it was last filled for
};

// What a host thread needs to run kernels.
class Machine {
 public:
  void set_seed(uint64_t seed) {
    seed_ = seed;
    random_ = Random(seed);
  }
  void run(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamic_bytes,
           size_t max_shared_bytes);
  bool runs() const { return kernel_.run != nullptr; }

  unsigned meet_block(const char* name, Line line, bool predicate);
  uint64_t meet_warp(const char* name, Line line, unsigned mask, uint64_t value, int source);
  unsigned lane() const { return static_cast<unsigned>(number(*current_) % kLanes); }
  void* shared(const char* name, size_t index, size_t num_bytes);
  void sync_warp(Line line, unsigned mask);
  void fence();
  void* dynamic_shared() { return fill(dynamic_, dynamic_bytes_); }

 private:
  void run_block();
  void run_threads();
  void exit_thread();
  Thread* take_ready();
  void make_current(Thread& thread);
  void wait();
  void finish_warp_call(Warp& warp, Thread* lanes, const Call& call);
  void* fill(SharedMemory& memory, size_t num_bytes);
  Fiber* new_fiber();
  Fiber* idle_fiber();
  size_t number(const Thread& thread) const { return &thread - threads_.data(); }
  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void fail_deadlock() const;

  uint64_t seed_ = 0;
  Random random_{0};

  // Of a launch.
  Kernel kernel_ = {};
  size_t dynamic_bytes_ = 0, max_shared_bytes_ = 0;

  // Of a block.
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Thread*> ready_;  // in no order
  Thread* current_ = nullptr;
  const Thread* exited_ = nullptr;  // one of those that have
  size_t num_exited_ = 0;
  const Thread* at_barrier_ = nullptr;  // one of those that are
  size_t num_at_barrier_ = 0;
  unsigned num_true_ = 0, num_true_before_ = 0;  // at this barrier, at the last
  std::exception_ptr error_;
  size_t shared_bytes_ = 0;

  uint64_t block_ = 0;       // counts all blocks
  size_t num_barriers_ = 0;  // and all barriers
  // Addresses for `release` and `acquire`. A thread may reach the next barrier before another has
  // left this one: they take turns.
  char started_ = 0, ended_ = 0, barriers_[2] = {}, filled_ = 0, fence_ = 0;

  std::vector<SharedMemory> variables_;  // by SharedVariable::index_
  SharedMemory dynamic_;

  Fiber host_;
  Fiber* running_ = &host_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
};

thread_local Machine machine;

void Machine::run(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamic_bytes,
                  size_t max_shared_bytes) {
  const size_t num_blocks = size_t{grid.x} * grid.y * grid.z;
  std::vector<size_t> order(num_blocks);
  for (size_t i = 0; i < num_blocks; ++i) {
    const size_t j = random_.below(i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  kernel_ = kernel;
  dynamic_bytes_ = dynamic_bytes;
  max_shared_bytes_ = max_shared_bytes;
  place.threads = block;
  place.blocks = grid;
  for (const size_t i : order) {
    place.block = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                   static_cast<unsigned>(i / grid.x / grid.y)};
    run_block();
    if (error_) break;
  }
  kernel_ = {};
  current_ = nullptr;
  if (error_) {
    // Threads that wait will never go on.
    idle_fibers_.clear();
    fibers_.clear();
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void Machine::run_block() {
  const dim3& size = place.threads;
  threads_.clear();
  for (unsigned z = 0; z < size.z; ++z) {
    for (unsigned y = 0; y < size.y; ++y) {
      for (unsigned x = 0; x < size.x; ++x) threads_.push_back({{x, y, z}, nullptr, {}});
    }
  }
  warps_.assign((threads_.size() + kLanes - 1) / kLanes, {});
  ready_.clear();
  for (Thread& thread : threads_) {
    warps_[number(thread) / kLanes].alive |= 1u << number(thread) % kLanes;
    ready_.push_back(&thread);
  }
  exited_ = at_barrier_ = nullptr;
  num_exited_ = num_at_barrier_ = num_true_ = 0;
  ++block_;
  shared_bytes_ = 0;
  if (kFindsRaces) {
    while (fibers_.size() < threads_.size()) new_fiber();
    idle_fibers_.clear();
    for (const auto& fiber : fibers_) idle_fibers_.push_back(fiber.get());
  }
  release(&started_);
  make_current(*take_ready());
  Fiber::switch_to(host_, *(running_ = current_->fiber = idle_fiber()));
  running_ = &host_;
  acquire(&ended_);
}

// What every fiber does: threads from their start to their end, until a thread is to go on that
// waited on another fiber.
void Machine::run_threads() {
  for (;;) {
    Fiber& self = *running_;
    Thread* next = nullptr;
    try {
      acquire(&started_);
      kernel_.run(kernel_.arguments);
      exit_thread();
      next = take_ready();
    } catch (...) {
      error_ = std::current_exception();
    }
    release(&ended_);
    if (next) make_current(*next);
    if (!kFindsRaces) {
      if (next && !next->fiber) {
        next->fiber = &self;
        continue;
      }
      idle_fibers_.push_back(&self);
    }
    if (next && !next->fiber) next->fiber = idle_fiber();
    running_ = next ? next->fiber : &host_;
    Fiber::switch_to(self, *running_);
  }
}

void Machine::exit_thread() {
  if (at_barrier_) {
    fail("exits, while thread " + text(at_barrier_->index) + " waits in " +
         at_barrier_->call.text());
  }
  Warp& warp = warps_[number(*current_) / kLanes];
  const Thread* const lanes = current_ - lane();
  for (unsigned waiting = warp.waiting; waiting; waiting &= waiting - 1) {
    const Thread& other = lanes[__builtin_ctz(waiting)];
    if (other.call.mask >> lane() & 1) {
      fail("exits, while thread " + text(other.index) + " waits for it in " + other.call.text());
    }
  }
  warp.alive &= ~(1u << lane());
  current_->call = {};
  exited_ = current_;
  ++num_exited_;
}

// Null when all have exited.
Thread* Machine::take_ready() {
  if (ready_.empty()) {
    if (num_exited_ == threads_.size()) return nullptr;
    fail_deadlock();
  }
  std::swap(ready_[random_.below(ready_.size())], ready_.back());
  Thread* const thread = ready_.back();
  ready_.pop_back();
  return thread;
}

void Machine::make_current(Thread& thread) {
  current_ = &thread;
  place.thread = thread.index;
}

// Lets others run until the running thread is made ready and drawn.
void Machine::wait() {
  Thread* const next = take_ready();
  if (next == current_) return;
  Fiber& self = *current_->fiber;
  make_current(*next);
  if (!next->fiber) next->fiber = idle_fiber();
  running_ = next->fiber;
  Fiber::switch_to(self, *running_);
}

Fiber* Machine::new_fiber() {
  fibers_.push_back(std::make_unique<Fiber>([] { machine.run_threads(); }));
  return fibers_.back().get();
}

Fiber* Machine::idle_fiber() {
  if (idle_fibers_.empty()) return new_fiber();
  Fiber* const fiber = idle_fibers_.back();
  idle_fibers_.pop_back();
  return fiber;
}

unsigned Machine::meet_block(const char* name, Line line, bool predicate) {
  const Call& call = current_->call = {name, line, 0};
  if (exited_) {
    fail("calls " + call.text() + ", but thread " + text(exited_->index) + " has exited");
  }
  if (at_barrier_ && at_barrier_->call != call) {
    fail("calls " + call.text() + ", but thread " + text(at_barrier_->index) + " waits in " +
         at_barrier_->call.text());
  }
  char& barrier = barriers_[num_barriers_ % 2];
  release(&barrier);
  at_barrier_ = current_;
  num_true_ += predicate;
  if (++num_at_barrier_ == threads_.size()) {
    at_barrier_ = nullptr;
    num_at_barrier_ = 0;
    ++num_barriers_;
    num_true_before_ = std::exchange(num_true_, 0);
    for (Thread& thread : threads_) ready_.push_back(&thread);
  }
  wait();
  acquire(&barrier);
  return num_true_before_;
}

uint64_t Machine::meet_warp(const char* name, Line line, unsigned mask, uint64_t value,
                            int source) {
  const unsigned self = lane();
  Warp& warp = warps_[number(*current_) / kLanes];
  Thread* const lanes = current_ - self;
  const Call& call = current_->call = {name, line, mask};
  if (!(mask >> self & 1)) {
    fail("calls " + call.text() + ", which does not name its own lane, " + std::to_string(self));
  }
  if (const unsigned missing = mask & ~warp.alive) {
    const int absent = __builtin_ctz(missing);
    fail("calls " + call.text() + ", which names lane " + std::to_string(absent) + ", which " +
         (lanes + absent < threads_.data() + threads_.size() ? "has exited" : "does not exist"));
  }
  if (source != kBallot && !(mask >> source & 1)) {
    fail("reads in " + call.text() + " lane " + std::to_string(source) +
         ", which the mask does not name");
  }
  warp.waiting |= 1u << self;
  warp.brought[self] = value;
  warp.source[self] = source;
  if ((warp.waiting & mask) == mask) finish_warp_call(warp, lanes, call);
  wait();
  return warp.taken[self];
}

void Machine::sync_warp(Line line, unsigned mask) {
  uint64_t& barrier = warps_[number(*current_) / kLanes].taken[mask ? __builtin_ctz(mask) : 0];
  release(&barrier);
  meet_warp("__syncwarp", line, mask, 0, kBallot);
  acquire(&barrier);
}

void Machine::fence() {
  acquire(&fence_);
  release(&fence_);
}

// Lets the lanes go on if all that the call names are in this very call.
void Machine::finish_warp_call(Warp& warp, Thread* lanes, const Call& call) {
  unsigned votes = 0;
  for (unsigned i = 0; i < kLanes; ++i) {
    if (!(call.mask >> i & 1)) continue;
    if (lanes[i].call != call) return;
    votes |= (warp.brought[i] ? 1u : 0u) << i;
  }
  for (unsigned i = 0; i < kLanes; ++i) {
    if (!(call.mask >> i & 1)) continue;
    warp.taken[i] = warp.source[i] == kBallot ? votes : warp.brought[warp.source[i]];
    ready_.push_back(&lanes[i]);
  }
  warp.waiting &= ~call.mask;
}

void* Machine::shared(const char* name, size_t index, size_t num_bytes) {
  acquire(&filled_);
  if (index >= variables_.size()) variables_.resize(index + 1);
  SharedMemory& memory = variables_[index];
  if (memory.block != block_) {
    shared_bytes_ += num_bytes;
    if (shared_bytes_ > kMaxStaticSharedBytes ||
        shared_bytes_ + dynamic_bytes_ > max_shared_bytes_) {
      fail(std::string("has no room for ") + name + ": " + std::to_string(shared_bytes_) +
           " bytes of static and " + std::to_string(dynamic_bytes_) +
           " bytes of dynamic shared memory");
    }
  }
  return fill(memory, num_bytes);
}

// The memory; full of random bits when a block first asks for it.
void* Machine::fill(SharedMemory& memory, size_t num_bytes) {
  acquire(&filled_);
  if (memory.block != block_) {
    memory.block = block_;
    if (!memory.bytes || memory.num_bytes != num_bytes) {
      memory.bytes.reset(new char[num_bytes]);
      memory.num_bytes = num_bytes;
    }
    for (size_t i = 0; i < num_bytes; i += sizeof(uint64_t)) {
      const uint64_t bits = random_.bits();
      memcpy(&memory.bytes[i], &bits, std::min(sizeof(bits), num_bytes - i));
    }
    release(&filled_);
  }
  return memory.bytes.get();
}

void Machine::fail(const std::string& what) const {
  throw Bug(std::string(kernel_.name) + ", block " + text(place.block) + ": thread " +
            text(place.thread) + " " + what + " (seed " + std::to_string(seed_) + ")");
}

// Says who waits in what, each call once.
void Machine::fail_deadlock() const {
  std::string what = "was the last to run, now nobody can:";
  std::vector<const Call*> calls;
  for (const Thread& thread : threads_) {
    const auto same = [&](const Call* call) { return !(*call != thread.call); };
    if (!thread.call.name || std::any_of(calls.begin(), calls.end(), same)) continue;
    calls.push_back(&thread.call);
    what += " thread " + text(thread.index) + " waits in " + thread.call.text() + ";";
  }
  fail(what);
}

Machine& checked_machine() {
  if (!machine.runs()) throw Bug("a function of kernels was called outside of one");
  return machine;
}

}  // namespace

void set_seed(uint64_t seed) { machine.set_seed(seed); }

void run_blocks(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamic_bytes,
                size_t max_shared_bytes) {
  if (machine.runs()) throw Bug(std::string(kernel.name) + " is launched by a kernel");
  machine.run(kernel, grid, block, dynamic_bytes, max_shared_bytes);
}

unsigned meet_block(const char* call, Line line, bool predicate) {
  return checked_machine().meet_block(call, line, predicate);
}

uint64_t meet_warp(const char* call, Line line, unsigned mask, uint64_t value, int source) {
  return checked_machine().meet_warp(call, line, mask, value, source);
}

unsigned meet_warp_ballot(const char* call, Line line, unsigned mask, bool predicate) {
  return static_cast<unsigned>(checked_machine().meet_warp(call, line, mask, predicate, kBallot));
}

void sync_warp(Line line, unsigned mask) { checked_machine().sync_warp(line, mask); }

void fence() { checked_machine().fence(); }

int lane() { return static_cast<int>(checked_machine().lane()); }

SharedVariable::SharedVariable(const char* name, size_t num_bytes)
    : name_(name), num_bytes_(num_bytes) {
  static std::atomic<size_t> num_variables{0};
  index_ = num_variables++;
}

void* SharedVariable::memory_of_this_block() const {
  return checked_machine().shared(name_, index_, num_bytes_);
}

void* dynamic_shared() { return checked_machine().dynamic_shared(); }

}  // namespace sa1b::emulator
