// A stack of its own to run on, and the switch between two of them: what the emulator makes a CUDA
// thread of. For Linux on x86-64 and aarch64.
#pragma once

#include <cstddef>

namespace sa1b::emulator {

// Knows where it was left. Must not move, and stays in the host thread that made it.
class Fiber {
 public:
  // The stack that the host thread runs on already.
  Fiber() noexcept;
  // A new stack: `entry` starts when it is first switched to and must never return or throw.
  explicit Fiber(void (*entry)());
  // The stack is dropped as it is: what lives on it is not destroyed.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves `from`, which must be running, and goes on where `to` was left.
  static void switch_to(Fiber& from, Fiber& to);

 private:
  static void start();
  void arrive();

  void* stack_pointer_ = nullptr;  // where it was left
  void (*entry_)() = nullptr;
  char* mapping_ =
      nullptr;  // a page that nobody may touch, below the stack; null: the host's stack
  // What the sanitizers want to know.
  [[maybe_unused]] const void* stack_bottom_ = nullptr;
  [[maybe_unused]] size_t stack_bytes_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] void* tsan_fiber_ = nullptr;
};

}  // namespace sa1b::emulator
