// A growable array for CPU kernels. std::vector does not serve there: its member functions are weak
// symbols that the linker shares between instruction sets.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#include "tilewright/core/cuda/machine.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

  void clear() { size_ = 0; }
  void push_back(const T& value) {
    const T copy = value;  // it may lie in this buffer
    if (size_ == capacity_) grow(size_ + 1);
    data_[size_++] = copy;
  }
  // New elements are not initialised.
  void resize(int64_t size) {
    if (size > capacity_) grow(size);
    size_ = size;
  }
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }
  void assign(int64_t size, const T& value) {
    resize(size);
    for (int64_t i = 0; i < size; ++i) data_[i] = value;
  }

 private:
  void grow(int64_t wanted) {
    constexpr int64_t kFirst = 64;  // small inputs should not pay for growing
    const int64_t doubled = capacity_ > 0 ? 2 * capacity_ : kFirst;
    const int64_t capacity = wanted > doubled ? wanted : doubled;
    void* data = std::realloc(static_cast<void*>(data_), size_t(capacity) * sizeof(T));
    if (data == nullptr) throw std::bad_alloc();
    data_ = static_cast<T*>(data);
    capacity_ = capacity;
  }

  T* data_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
