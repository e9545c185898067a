// Switching is a few instructions of assembly: swapcontext makes two system calls each time, and
// longjmp makes AddressSanitizer forget the red zones of the stack that it leaves.
#include "cuda_on_cpu/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

#include "cuda_on_cpu/sanitizers.h"

// Pushes the registers that a call preserves, stores the stack pointer, and the same backwards.
extern "C" void sa1b_switch_stack(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl sa1b_switch_stack
.hidden sa1b_switch_stack
.type sa1b_switch_stack, @function
sa1b_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sa1b_switch_stack, .-sa1b_switch_stack
)");
constexpr size_t kReturnAddress = 6;  // its index among the words
constexpr size_t kFrameWords = 8;     // with the return address of the function started: none
#elif defined(__aarch64__)
asm(R"(
.text
.globl sa1b_switch_stack
.hidden sa1b_switch_stack
.type sa1b_switch_stack, %function
sa1b_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size sa1b_switch_stack, .-sa1b_switch_stack
)");
constexpr size_t kReturnAddress = 11;
constexpr size_t kFrameWords = 20;
#else
#error "the CUDA emulator knows how to switch stacks on x86-64 and aarch64 only"
#endif

namespace sa1b::emulator {
namespace {

// Kernels keep little on the stack, but a sanitizer makes every frame several times as large.
constexpr size_t kStackBytes = 256 << 10;

#ifdef SA1B_ASAN
thread_local Fiber* switched_from;
#endif
thread_local Fiber* running;

}  // namespace

Fiber::Fiber() noexcept {
#ifdef SA1B_FIND_RACES
  tsan_fiber_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(void (*entry)()) : entry_(entry) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* const mapping = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapping);
  stack_bottom_ = mapping_ + page;
  stack_bytes_ = kStackBytes;
  if (mprotect(mapping_, page, PROT_NONE) != 0) throw std::bad_alloc();
  char* const top = mapping_ + page + kStackBytes;
  void** const frame = reinterpret_cast<void**>(top) - kFrameWords;  // zeros until now
  frame[kReturnAddress] = reinterpret_cast<void*>(&Fiber::start);
  stack_pointer_ = static_cast<void*>(frame);
#ifdef SA1B_FIND_RACES
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  if (!mapping_) return;
#ifdef SA1B_FIND_RACES
  __tsan_destroy_fiber(tsan_fiber_);
#endif
#ifdef SA1B_ASAN
  __asan_unpoison_memory_region(stack_bottom_, stack_bytes_);
#endif
  munmap(mapping_, static_cast<size_t>(sysconf(_SC_PAGESIZE)) + kStackBytes);
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
  running = &to;
#ifdef SA1B_ASAN
  switched_from = &from;
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_bottom_, to.stack_bytes_);
#endif
#ifdef SA1B_FIND_RACES
  __tsan_switch_to_fiber(to.tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
  sa1b_switch_stack(&from.stack_pointer_, to.stack_pointer_);
  from.arrive();
}

void Fiber::arrive() {
#ifdef SA1B_ASAN
  // Where the host's stack lies is learnt when it is first left.
  __sanitizer_finish_switch_fiber(fake_stack_, &switched_from->stack_bottom_,
                                  &switched_from->stack_bytes_);
#endif
}

void Fiber::start() {
  running->arrive();
  running->entry_();
}

}  // namespace sa1b::emulator
