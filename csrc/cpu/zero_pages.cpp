#include "zero_pages.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sa1b::cpu {
namespace {

constexpr size_t kHugePage = 2 << 20;

// Regions with fewer touched pages than this are split. Making 40 small pages costs half of making
// a large one, and freeing them costs most of the rest.
constexpr size_t kSparsePages = 40;

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

#if defined(__linux__)

ZeroPages::ZeroPages(size_t num_bytes) : num_bytes_(num_bytes) {
  if (num_bytes < kMappedBytes) {
    data_ = static_cast<uint8_t*>(calloc(std::max<size_t>(num_bytes, 1), 1));
    if (data_ == nullptr) throw std::bad_alloc();
    return;
  }
  // Map one region more than needed and give back what lies before and after the aligned part.
  const size_t needed = round_up(num_bytes, kHugePage);
  const size_t mapped = needed + kHugePage;
  void* const raw =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<uint8_t*>(raw);
  data_ = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<uintptr_t>(raw), kHugePage));
  const size_t before = static_cast<size_t>(data_ - begin);
  if (before > 0) munmap(begin, before);
  if (before < kHugePage) munmap(data_ + needed, kHugePage - before);
  madvise(data_, needed, MADV_HUGEPAGE);
}

ZeroPages::~ZeroPages() {
  if (num_bytes_ < kMappedBytes) {
    free(data_);
  } else {
    munmap(data_, round_up(num_bytes_, kHugePage));
  }
}

void TouchedPages::prepare() const {
  for (size_t i = 0; i < regions_.size(); ++i) {
    const Region& region = regions_[i];
    if (region.none() || region.count() >= kSparsePages) continue;
    uint8_t* const begin = data_ + i * kHugePage;
    // The read maps the shared page of zeros; dropping one small page of it splits the mapping.
    static_cast<void>(*static_cast<volatile uint8_t*>(begin));
    madvise(begin, kPage, MADV_DONTNEED);
#if defined(MADV_POPULATE_WRITE)
    for (size_t page = 0; page < kPagesInRegion; ++page) {
      if (!region[page]) continue;
      const size_t first = page;
      while (page < kPagesInRegion && region[page]) ++page;
      madvise(begin + first * kPage, (page - first) * kPage, MADV_POPULATE_WRITE);
    }
#endif
  }
}

#else

ZeroPages::ZeroPages(size_t num_bytes) : num_bytes_(num_bytes) {
  data_ = static_cast<uint8_t*>(calloc(std::max<size_t>(num_bytes, 1), 1));
  if (data_ == nullptr) throw std::bad_alloc();
}

ZeroPages::~ZeroPages() { free(data_); }

void TouchedPages::prepare() const {}

#endif

TouchedPages::TouchedPages(uint8_t* data, size_t num_bytes)
    : data_(data), regions_(num_bytes / (kPage * kPagesInRegion)) {}

void TouchedPages::add(size_t offset, size_t length) {
  if (length == 0) return;
  const size_t last = (offset + length - 1) / kPage;
  for (size_t page = offset / kPage; page <= last; ++page) {
    if (page / kPagesInRegion < regions_.size()) {
      regions_[page / kPagesInRegion].set(page % kPagesInRegion);
    }
  }
}

}  // namespace sa1b::cpu
