// Copies from global to shared memory that run beside the arithmetic (cp.async of sm_80).
//
//   copy_async<16>(tile + i, input + i, i < n);   // zeros where the condition fails
//   commit_copies();                              // closes a group
//   ...
//   wait_copies<1>();                             // all groups but the newest 1 have landed
//   __syncthreads();                              // and now those of the other threads too
//
// Between the copy and its wait the destination holds nothing: on a GPU the old or the new bytes,
// on the emulated device NaN.
#pragma once
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

#ifdef TILEWRIGHT_SIMT

template <int kBytes>
void copy_async(void* shared, const void* global, bool valid = true,
                const simt::Where& where = simt::Where::current()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  simt::copy_async(shared, global, kBytes, valid ? kBytes : 0, where);
}
inline void commit_copies() { simt::commit_copies(); }
template <int kGroupsInFlight>
void wait_copies() {
  simt::wait_copies(kGroupsInFlight);
}

#else

// kBytes is 4, 8 or 16, and both addresses are multiples of it. Where `valid` is false, nothing is
// read (the address must still be one of the tensor's) and zeros are written.
template <int kBytes>
TILEWRIGHT_DEVICE void copy_async(void* shared, const void* global, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int source_bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    // Past L1: a tile is read once per block.
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(global),
                 "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
}

TILEWRIGHT_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kGroupsInFlight>
TILEWRIGHT_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsInFlight) : "memory");
}

#endif

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
