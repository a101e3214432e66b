// CUDA's barriers and warp primitives under their own names. Each passes on where it was called:
// that is how the emulated device tells one barrier from another.
#pragma once
#include "simt/simt.h"

inline constexpr int warpSize = 32;

inline void __syncthreads(tilewright::simt::Where where = tilewright::simt::Where::current()) {
  tilewright::simt::sync_block("__syncthreads", false, where);
}
inline int __syncthreads_count(int predicate,
                               tilewright::simt::Where where = tilewright::simt::Where::current()) {
  return tilewright::simt::sync_block("__syncthreads_count", predicate != 0, where).count;
}
inline int __syncthreads_and(int predicate,
                             tilewright::simt::Where where = tilewright::simt::Where::current()) {
  const auto vote = tilewright::simt::sync_block("__syncthreads_and", predicate != 0, where);
  return vote.count == vote.threads;
}
inline int __syncthreads_or(int predicate,
                            tilewright::simt::Where where = tilewright::simt::Where::current()) {
  return tilewright::simt::sync_block("__syncthreads_or", predicate != 0, where).count != 0;
}
inline void __syncwarp(unsigned mask = 0xffffffff,
                       tilewright::simt::Where where = tilewright::simt::Where::current()) {
  tilewright::simt::sync_warp(mask, where);
}

#define TILEWRIGHT_SIMT_SHUFFLE(name, kind, Operand)                                        \
  template <class T>                                                                        \
  T name(unsigned mask, T value, Operand operand, int width = warpSize,                     \
         tilewright::simt::Where where = tilewright::simt::Where::current()) {              \
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);                       \
    tilewright::simt::shuffle(tilewright::simt::Shuffle::kind, mask, &value, sizeof(value), \
                              int(operand), width, where);                                  \
    return value;                                                                           \
  }
TILEWRIGHT_SIMT_SHUFFLE(__shfl_sync, kIndex, int)
TILEWRIGHT_SIMT_SHUFFLE(__shfl_up_sync, kUp, unsigned)
TILEWRIGHT_SIMT_SHUFFLE(__shfl_down_sync, kDown, unsigned)
TILEWRIGHT_SIMT_SHUFFLE(__shfl_xor_sync, kXor, int)
#undef TILEWRIGHT_SIMT_SHUFFLE

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              tilewright::simt::Where where = tilewright::simt::Where::current()) {
  return tilewright::simt::ballot("__ballot_sync", mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      tilewright::simt::Where where = tilewright::simt::Where::current()) {
  return tilewright::simt::ballot("__any_sync", mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      tilewright::simt::Where where = tilewright::simt::Where::current()) {
  return tilewright::simt::ballot("__all_sync", mask, predicate == 0, where) == 0;
}
// No two lanes are promised to run together, so this names only the caller: code that relies on
// more is wrong on a GPU too, only less often.
inline unsigned __activemask() { return 1u << tilewright::simt::lane_index(); }

template <class T>
unsigned __match_any_sync(unsigned mask, T value,
                          tilewright::simt::Where where = tilewright::simt::Where::current()) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  return tilewright::simt::match_any(mask, bits, where);
}

#define TILEWRIGHT_SIMT_REDUCE(name, kind, T)                                               \
  inline T name(unsigned mask, T value,                                                     \
                tilewright::simt::Where where = tilewright::simt::Where::current()) {       \
    return T(tilewright::simt::reduce(tilewright::simt::Reduce::kind, mask, value, where)); \
  }
TILEWRIGHT_SIMT_REDUCE(__reduce_add_sync, kAdd, int)
TILEWRIGHT_SIMT_REDUCE(__reduce_add_sync, kAdd, unsigned)
TILEWRIGHT_SIMT_REDUCE(__reduce_min_sync, kMin, int)
TILEWRIGHT_SIMT_REDUCE(__reduce_min_sync, kMin, unsigned)
TILEWRIGHT_SIMT_REDUCE(__reduce_max_sync, kMax, int)
TILEWRIGHT_SIMT_REDUCE(__reduce_max_sync, kMax, unsigned)
TILEWRIGHT_SIMT_REDUCE(__reduce_and_sync, kAnd, unsigned)
TILEWRIGHT_SIMT_REDUCE(__reduce_or_sync, kOr, unsigned)
TILEWRIGHT_SIMT_REDUCE(__reduce_xor_sync, kXor, unsigned)
#undef TILEWRIGHT_SIMT_REDUCE

inline void __threadfence() { tilewright::simt::fence(); }
inline void __threadfence_block() { tilewright::simt::fence(); }
inline void __threadfence_system() { tilewright::simt::fence(); }
[[noreturn]] inline void __trap(
    tilewright::simt::Where where = tilewright::simt::Where::current()) {
  tilewright::simt::trap(where);
}
template <class T>
[[gnu::always_inline]] inline T __ldg(const T* pointer) {
  return *pointer;
}
