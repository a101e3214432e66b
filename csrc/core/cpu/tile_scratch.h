// A thread's tiles, carved out of one allocation.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Measure with take() on a scratch without memory, allocate(), then take() the same again.
class TileScratch {
 public:
  TileScratch() = default;
  TileScratch(const TileScratch&) = delete;
  TileScratch& operator=(const TileScratch&) = delete;
  ~TileScratch() { std::free(base_); }

  // At a multiple of 64 bytes; null while measuring.
  template <class T>
  T* take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * int64_t(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  void allocate() {
    base_ = static_cast<char*>(std::aligned_alloc(kAlignment, size_t(used_ + kAlignment)));
    if (base_ == nullptr) throw std::bad_alloc();
    used_ = 0;
  }

 private:
  static constexpr int64_t kAlignment = 64;
  char* base_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
