#include "tilewright/core/huge_pages.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace tilewright {

const at::Tensor& prefer_huge_pages(const at::Tensor& fresh) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // glibc maps blocks from its greatest threshold on afresh every time (M_MMAP_THRESHOLD).
  constexpr uint64_t kLeast = uint64_t(32) << 20, kPage = 4096;
  if (!fresh.is_cpu() || fresh.nbytes() < kLeast) return fresh;
  const auto begin = reinterpret_cast<uintptr_t>(fresh.const_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + fresh.nbytes()) / kPage * kPage;
  // A wish: where it is refused, small pages serve.
  (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return fresh;
}

#ifdef __linux__

HugeBuffer::HugeBuffer(int64_t bytes) {
  constexpr uintptr_t kHuge = uintptr_t(1) << 21;
  bytes_ = bytes + int64_t(kHuge);
  mapped_ =
      mmap(nullptr, size_t(bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped_ == MAP_FAILED) {
    mapped_ = nullptr;
    throw std::bad_alloc();
  }
  const uintptr_t first = (reinterpret_cast<uintptr_t>(mapped_) + kHuge - 1) / kHuge * kHuge;
  data_ = reinterpret_cast<void*>(first);
#ifdef MADV_HUGEPAGE
  // Whole pages alone: a huge one at the end would be there in full however little of it is used.
  const size_t whole = size_t(bytes) / kHuge * kHuge;
  if (whole > 0) (void)madvise(data_, whole, MADV_HUGEPAGE);
#endif
}

HugeBuffer::~HugeBuffer() {
  if (mapped_ != nullptr) munmap(mapped_, size_t(bytes_));
}

#else

HugeBuffer::HugeBuffer(int64_t bytes) : bytes_(bytes) {
  mapped_ = data_ = std::calloc(size_t(bytes), 1);
  if (data_ == nullptr) throw std::bad_alloc();
}

HugeBuffer::~HugeBuffer() { std::free(mapped_); }

#endif

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept { *this = std::move(other); }

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace tilewright
