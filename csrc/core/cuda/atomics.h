// Atomic addition for every type that gradients and counts have, int64_t included, and the least
// and the greatest of some. The order of additions differs from run to run, so float sums differ in
// the last bits: a backward that uses them has another path for deterministic().
#pragma once
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
TILEWRIGHT_DEVICE void atomic_add(T* address, T value) {
  atomicAdd(address, value);
}
// Two's complement: the unsigned sum has the same bits.
TILEWRIGHT_DEVICE void atomic_add(int64_t* address, int64_t value) {
  using Bits = unsigned long long;
  atomicAdd(reinterpret_cast<Bits*>(address), static_cast<Bits>(value));
}
TILEWRIGHT_DEVICE void atomic_min(int64_t* address, int64_t value) {
  atomicMin(reinterpret_cast<long long*>(address), static_cast<long long>(value));
}
// Of numbers that are not negative, and no NaN: their bits are ordered as they are.
TILEWRIGHT_DEVICE void atomic_max_of_positive(float* address, float value) {
  atomicMax(reinterpret_cast<int*>(address), __float_as_int(value));
}
TILEWRIGHT_DEVICE void atomic_max_of_positive(double* address, double value) {
  atomicMax(reinterpret_cast<long long*>(address), __double_as_longlong(value));
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
