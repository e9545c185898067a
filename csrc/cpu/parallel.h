// Threads of one call: started, joined, gone. Nothing lives on, so a fork finds nothing broken.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace sa1b::cpu {

// How many threads are worth starting for `items` pieces that touch `bytes` of memory in all.
// Starting one takes 30 to 80 us, in which another moves some megabytes.
inline int useful_threads(int wanted, int64_t items, int64_t bytes) {
  const int64_t worth = 1 + (bytes >> 23);
  return static_cast<int>(std::max<int64_t>(1, std::min({int64_t{wanted}, items, worth})));
}

// Calls work(item, thread) for every item in [0, items), from `num_threads` threads. `work` must
// not throw.
template <class Work>
void parallel_for(int64_t items, int num_threads, Work work) {
  std::atomic<int64_t> next{0};
  auto run = [&](int thread) {
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
      work(item, thread);
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(num_threads);
  for (int thread = 1; thread < num_threads; ++thread) {
    try {
      threads.emplace_back(run, thread);
    } catch (const std::exception&) {
      break;  // the system has no thread or memory left: those that run share the work
    }
  }
  run(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace sa1b::cpu
