// Fiber stacks from mmap: a thread that runs over its stack must meet a guard, not its neighbour.
#include <sys/mman.h>

#include <new>

#include "simt/simt_internal.h"

namespace tilewright::simt {
namespace {
constexpr int kStacksPerSlab = 32;
constexpr size_t kStride = StackPool::kGuardBytes + StackPool::kBytes;
}  // namespace

void StackPool::grow() {
  void* memory = mmap(nullptr, kStacksPerSlab * kStride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  char* slab = static_cast<char*>(memory);
  slabs_.push_back(slab);
  for (int i = kStacksPerSlab - 1; i >= 0; --i) {
    char* stack = slab + i * kStride;
    if (mprotect(stack, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
    // The tops differ modulo 4 KB; else the frames of all fibers compete for the same cache sets.
    char* top = stack + kStride - (i % 16) * 256;
    free_.push_back(top);
    all_.push_back(top);
  }
}

char* StackPool::take() {
  if (free_.empty()) grow();
  char* top = free_.back();
  free_.pop_back();
  return top;
}

StackPool::~StackPool() {
  for (char* slab : slabs_) munmap(slab, kStacksPerSlab * kStride);
}

}  // namespace tilewright::simt
