// CUDA's atomics by the host's, relaxed as on a GPU.
#include <bit>

#include "simt/checker.h"

using tilewright::simt::Access;
using tilewright::simt::observe;

#define OBSERVE(T) observe(address, sizeof(T), Access::kAtomic, __builtin_return_address(0))

namespace {

template <class T, class Bits, class Update>
T update(T* address, const Update& next) {
  Bits* const word = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    const T old = std::bit_cast<T>(old_bits);
    if (__atomic_compare_exchange_n(word, &old_bits, std::bit_cast<Bits>(next(old)), true,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return old;
    }
  }
}

}  // namespace

#define FETCH(name, operation, T)                       \
  T name(T* address, T value) {                         \
    OBSERVE(T);                                         \
    return operation(address, value, __ATOMIC_RELAXED); \
  }
#define FETCH_INTS(name, operation) \
  FETCH(name, operation, int)       \
  FETCH(name, operation, unsigned)  \
  FETCH(name, operation, unsigned long long)
FETCH_INTS(atomicAdd, __atomic_fetch_add)
FETCH_INTS(atomicExch, __atomic_exchange_n)
FETCH_INTS(atomicAnd, __atomic_fetch_and)
FETCH_INTS(atomicOr, __atomic_fetch_or)
FETCH_INTS(atomicXor, __atomic_fetch_xor)
FETCH(atomicSub, __atomic_fetch_sub, int)
FETCH(atomicSub, __atomic_fetch_sub, unsigned)

#define UPDATE(name, T, Bits, expression)                               \
  T name(T* address, T value) {                                         \
    OBSERVE(T);                                                         \
    return update<T, Bits>(address, [&](T old) { return expression; }); \
  }
UPDATE(atomicAdd, float, uint32_t, old + value)
UPDATE(atomicAdd, double, uint64_t, old + value)
UPDATE(atomicAdd, __half, uint16_t, __float2half_rn(__half2float(old) + __half2float(value)))
UPDATE(atomicAdd, __nv_bfloat16, uint16_t,
       __float2bfloat16_rn(__bfloat162float(old) + __bfloat162float(value)))
UPDATE(atomicExch, float, uint32_t, (static_cast<void>(old), value))

#define UPDATE_MINMAX(T, Bits)                          \
  UPDATE(atomicMin, T, Bits, value < old ? value : old) \
  UPDATE(atomicMax, T, Bits, old < value ? value : old)
UPDATE_MINMAX(int, uint32_t)
UPDATE_MINMAX(unsigned, uint32_t)
UPDATE_MINMAX(long long, uint64_t)
UPDATE_MINMAX(unsigned long long, uint64_t)

#define COMPARE_AND_SWAP(T)                                                         \
  T atomicCAS(T* address, T expected, T value) {                                    \
    OBSERVE(T);                                                                     \
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, \
                                __ATOMIC_RELAXED);                                  \
    return expected;                                                                \
  }
COMPARE_AND_SWAP(int)
COMPARE_AND_SWAP(unsigned)
COMPARE_AND_SWAP(unsigned short)
COMPARE_AND_SWAP(unsigned long long)
