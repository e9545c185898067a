// Which sanitizer the emulator is built for.
//
// ThreadSanitizer takes fibers for threads, so it finds the races between the threads of a block,
// if it is told what orders them. To it the emulator is no part of the program: its files are
// compiled without -fsanitize=thread, but with SA1B_FIND_RACES.
#pragma once

#if defined(__has_feature)
#define SA1B_HAS_FEATURE(x) __has_feature(x)
#else
#define SA1B_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || SA1B_HAS_FEATURE(address_sanitizer)
#define SA1B_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SA1B_FIND_RACES
#include <sanitizer/tsan_interface.h>
#endif

namespace sa1b::emulator {

#ifdef SA1B_FIND_RACES
constexpr bool kFindsRaces = true;
#else
constexpr bool kFindsRaces = false;
#endif

// What a thread did before it called `release` comes before what another does after it called
// `acquire` with the same address.
inline void release([[maybe_unused]] void* address) {
#ifdef SA1B_FIND_RACES
  __tsan_release(address);
#endif
}
inline void acquire([[maybe_unused]] void* address) {
#ifdef SA1B_FIND_RACES
  __tsan_acquire(address);
#endif
}

}  // namespace sa1b::emulator
