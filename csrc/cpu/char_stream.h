// Characters that one thread writes in order, of which nobody knows how many there will be.
//
// They go into chunks that never move, and a chunk is given back to the system as soon as it has
// been read: while a stream is copied to its final place, the two together take the memory of one.
// Chunks are therefore mapped where that is possible, for what malloc gets back it may keep. Only
// the first one is small and malloc's: few batches need more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sa1b::cpu {

class CharStream {
 public:
  static constexpr size_t kMaxRoom = 4096;

  CharStream() {
    chunks_.reserve(1);
    at_ = static_cast<uint8_t*>(malloc(kFirstChunk));
    if (at_ == nullptr) throw std::bad_alloc();
    chunks_.push_back({at_, kFirstChunk, 0});
  }
  ~CharStream() {
    for (; reading_ < chunks_.size(); ++reading_) release(reading_);
  }
  CharStream(const CharStream&) = delete;
  CharStream& operator=(const CharStream&) = delete;

  // Where to write next. Whoever has written says up to where.
  uint8_t* at() const { return at_; }
  const uint8_t* end() const { return chunks_.back().begin + chunks_.back().size; }
  void set_at(uint8_t* at) { at_ = at; }

  // Makes room for at least `n` <= kMaxRoom characters in one piece. Never throws: without memory,
  // what was written is lost, and failed() says so.
  void make_room(size_t n) {
    if (static_cast<size_t>(end() - at_) >= n) return;
    const auto used = static_cast<size_t>(at_ - chunks_.back().begin);
    if (add_chunk()) {
      chunks_[chunks_.size() - 2].used = used;
      closed_ += used;
    } else {
      failed_ = true;
    }
    at_ = chunks_.back().begin;
  }
  bool failed() const { return failed_; }
  void fail() { failed_ = true; }  // also for who has no memory for something else

  // How many characters have been written in all.
  size_t written() const { return closed_ + static_cast<size_t>(at_ - chunks_.back().begin); }

  // To be called between the last write and the first read.
  void finish() { chunks_.back().used = static_cast<size_t>(at_ - chunks_.back().begin); }

  // Takes the next `n` characters out; they must be there.
  void read(uint8_t* to, size_t n) {
    while (n > 0) {
      const Chunk& chunk = chunks_[reading_];
      const size_t size = std::min(n, chunk.used - read_);
      memcpy(to, chunk.begin + read_, size);
      to += size;
      n -= size;
      read_ += size;
      if (read_ == chunk.used) {
        release(reading_++);
        read_ = 0;
      }
    }
  }

 private:
  static constexpr size_t kFirstChunk = 16 << 10;
  static constexpr size_t kChunk = 1 << 20;

  struct Chunk {
    uint8_t* begin;
    size_t size, used;
  };

  bool add_chunk() {
    try {
      chunks_.reserve(chunks_.size() + 1);
    } catch (const std::bad_alloc&) {
      return false;
    }
#if defined(__linux__)
    void* const memory =
        mmap(nullptr, kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
#else
    void* const memory = malloc(kChunk);
    if (memory == nullptr) return false;
#endif
    chunks_.push_back({static_cast<uint8_t*>(memory), kChunk, 0});
    return true;
  }

  void release(size_t i) {
#if defined(__linux__)
    if (i > 0) {
      munmap(chunks_[i].begin, chunks_[i].size);
      return;
    }
#endif
    free(chunks_[i].begin);
  }

  std::vector<Chunk> chunks_;
  uint8_t* at_;
  size_t closed_ = 0;  // characters in all chunks but the last
  bool failed_ = false;
  size_t reading_ = 0, read_ = 0;  // the chunk to read from, and how much of it was read
};

}  // namespace sa1b::cpu
