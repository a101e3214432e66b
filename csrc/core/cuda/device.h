// What every kernel includes: CUDA's keywords and primitives, served by nvcc or by the emulated
// device (tests/simt), the types that kernels compute in, and the loops that they are made of.
//
//   template <class T>
//   __global__ void scale_kernel(ScaleParams<T> params) {
//     for (int64_t i : grid_stride(params.numel)) {
//       params.output[i] = from_accumulate<T>(to_accumulate(ldg(params.input + i)) * 2);
//     }
//   }
#pragma once
#include <cstdint>

#include "tilewright/core/cuda/machine.h"
#include "tilewright/core/math.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#elif defined(TILEWRIGHT_SIMT)
#include "simt/simt.h"
#else
#error "device code is compiled by nvcc or for the emulated device (TILEWRIGHT_SIMT)"
#endif

// TILEWRIGHT_DEVICE: device code only, inlined, in headers.
#define TILEWRIGHT_DEVICE __device__ __forceinline__

namespace tilewright::inline TILEWRIGHT_MACHINE {

// The type that sums of T are kept in: float for the 16-bit types.
template <class T>
struct AccumulateType {
  using type = float;
};
template <>
struct AccumulateType<double> {
  using type = double;
};
template <class T>
using accumulate_t = typename AccumulateType<T>::type;

TILEWRIGHT_HD float to_accumulate(__half value) { return __half2float(value); }
TILEWRIGHT_HD float to_accumulate(__nv_bfloat16 value) { return __bfloat162float(value); }
TILEWRIGHT_HD float to_accumulate(float value) { return value; }
TILEWRIGHT_HD double to_accumulate(double value) { return value; }

// Rounds to nearest even.
template <class T>
TILEWRIGHT_HD T from_accumulate(accumulate_t<T> value) {
  return T(value);
}
template <>
TILEWRIGHT_HD __half from_accumulate<__half>(float value) {
  return __float2half_rn(value);
}
template <>
TILEWRIGHT_HD __nv_bfloat16 from_accumulate<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// A load through the read-only cache: the kernel must not write to that memory.
template <class T>
TILEWRIGHT_DEVICE T ldg(const T* pointer) {
  return __ldg(pointer);
}

// N neighbours that travel in one access; the address must be a multiple of its size (at most 16
// bytes).
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16 && (sizeof(T) * N & (sizeof(T) * N - 1)) == 0);
  T data[N];
  TILEWRIGHT_HD T& operator[](int i) { return data[i]; }
  TILEWRIGHT_HD const T& operator[](int i) const { return data[i]; }
};

// A misaligned address is an error on the emulated device, as it is on a GPU.
template <int N, class T>
TILEWRIGHT_DEVICE Pack<T, N> load_pack(const T* pointer) {
#ifdef TILEWRIGHT_SIMT
  Pack<T, N> value;
  simt::load_pack(&value, pointer, sizeof(value));
  return value;
#else
  return *reinterpret_cast<const Pack<T, N>*>(pointer);
#endif
}
template <int N, class T>
TILEWRIGHT_DEVICE void store_pack(T* pointer, const Pack<T, N>& value) {
#ifdef TILEWRIGHT_SIMT
  simt::store_pack(pointer, &value, sizeof(value));
#else
  *reinterpret_cast<Pack<T, N>*>(pointer) = value;
#endif
}

// for (int64_t i : grid_stride(n)): the threads of a 1-D grid share the indices [0, n), each taking
// every (number of threads)-th one.
class GridStride {
 public:
  class Iterator {
   public:
    TILEWRIGHT_DEVICE Iterator(int64_t index, int64_t step) : index_(index), step_(step) {}
    TILEWRIGHT_DEVICE int64_t operator*() const { return index_; }
    TILEWRIGHT_DEVICE Iterator& operator++() {
      index_ += step_;
      return *this;
    }
    TILEWRIGHT_DEVICE bool operator!=(const Iterator& end) const { return index_ < end.index_; }

   private:
    int64_t index_, step_;
  };

  explicit TILEWRIGHT_DEVICE GridStride(int64_t n) : n_(n) {}
  TILEWRIGHT_DEVICE Iterator begin() const {
    return {int64_t(blockIdx.x) * blockDim.x + threadIdx.x, int64_t(gridDim.x) * blockDim.x};
  }
  TILEWRIGHT_DEVICE Iterator end() const { return {n_, 0}; }

 private:
  int64_t n_;
};
TILEWRIGHT_DEVICE GridStride grid_stride(int64_t n) { return GridStride(n); }

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
