#include "tilewright/core/huge_pages.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>

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

}  // namespace tilewright
