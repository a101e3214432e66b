// Carves a block's shared memory into parts, with one description for both sides: the kernel that
// uses the parts and the host that must ask for their bytes. Kernels declare no __shared__
// variables of their own, so that the emulated device can keep gaps between the parts.
//
//   template <class T>
//   struct TileParts {
//     T* keys;     // (rows, kDim)
//     float* sum;  // (rows,)
//     TILEWRIGHT_HD TileParts(SharedMemory& shared, int rows)
//         : keys(shared.take<T>(rows * kDim)), sum(shared.take<float>(rows)) {}
//   };
//
//   kernel:  SharedMemory shared;  TileParts<T> parts(shared, params.rows);
//   host:    config.shared_bytes = shared_bytes<TileParts<T>>(rows);
//
// A kernel takes all its parts from one cursor; a second one would begin at the first byte again. A
// fresh block finds NaN in all of it on the emulated device, and anything on a GPU.
#pragma once
#include <cstddef>

#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

class SharedMemory {
 public:
  // In a kernel: begins at the first byte of the block's shared memory.
  __device__ __forceinline__ SharedMemory() : base_(block_base()), measures_(false) {}

  // On the host: adds up what is taken, and hands out no memory.
  static SharedMemory measure() { return SharedMemory(nullptr); }

  // The next part: room for n values of T, at a multiple of `alignment` bytes (a power of 2, 16 to
  // 128).
  template <class T>
  TILEWRIGHT_HD T* take(size_t n, size_t alignment = 16) {
    offset_ = (offset_ + alignment - 1) & ~(alignment - 1);
    const size_t begin = offset_;
    offset_ += n * sizeof(T);
    if (measures_) return nullptr;
    return static_cast<T*>(part(begin, n * sizeof(T), alignof(T)));
  }

  // What was taken so far, in bytes.
  TILEWRIGHT_HD size_t bytes() const { return (offset_ + 15) & ~size_t(15); }

 private:
  explicit SharedMemory(unsigned char* base) : base_(base), measures_(true) {}

#ifdef TILEWRIGHT_SIMT
  // The emulated device adds the gaps, so a part's offset and the sum are those of a GPU.
  static unsigned char* block_base() { return nullptr; }
  void* part(size_t offset, size_t bytes, size_t alignment) {
    return simt::shared_part(offset, bytes, alignment, parts_++);
  }
  int parts_ = 0;
#else
  static __device__ __forceinline__ unsigned char* block_base() {
    extern __shared__ __align__(128) unsigned char tilewright_shared_memory[];
    return tilewright_shared_memory;
  }
  TILEWRIGHT_HD void* part(size_t offset, size_t, size_t) { return base_ + offset; }
#endif

  unsigned char* base_;
  size_t offset_ = 0;
  bool measures_;
};

// The bytes that a kernel needs for the parts of `Parts`, built from a cursor and `arguments`.
template <class Parts, class... Arguments>
size_t shared_bytes(const Arguments&... arguments) {
  SharedMemory shared = SharedMemory::measure();
  Parts parts(shared, arguments...);
  static_cast<void>(parts);
  return shared.bytes();
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
