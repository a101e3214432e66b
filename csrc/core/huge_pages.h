// Fewer page faults for large results.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tilewright {

// Asks Linux for pages of 2 MiB behind `fresh`, a tensor that was allocated just now and will be
// written whole: its first writes then fault once per 2 MiB instead of once per 4 KiB. Measured on
// two Zen 3 cores, filling 134 MB fresh took 18 ms in place of 57. Does nothing for tensors of less
// than 32 MiB, whose memory malloc keeps and reuses, off the CPU, and where the system has no such
// pages. Returns `fresh`.
const at::Tensor& prefer_huge_pages(const at::Tensor& fresh);

// Memory of a computation that reads it in no order, zeros at first: behind small pages each read
// would also miss the translation buffer. Of 2 MiB pages where the system has them.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  explicit HugeBuffer(int64_t bytes);
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  HugeBuffer(const HugeBuffer&) = delete;
  ~HugeBuffer();

  template <class T>
  T* as() {
    return static_cast<T*>(data_);
  }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }

 private:
  void *mapped_ = nullptr, *data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace tilewright
