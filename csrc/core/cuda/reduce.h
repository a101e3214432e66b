// Sums, maxima and the like over a warp or a block, in an order that depends on thread indices
// alone: the result has the same bits in every run.
#pragma once
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct Sum {
  template <class T>
  TILEWRIGHT_HD T operator()(T a, T b) const {
    return a + b;
  }
};
// For floats, NaN wins: a NaN anywhere shows in the result.
struct Max {
  template <class T>
  TILEWRIGHT_HD T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <class T>
  TILEWRIGHT_HD T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

inline constexpr int kLanes = 32;

// Over groups of `width` neighbouring lanes (a power of 2); every lane gets its group's result. The
// whole warp takes part.
template <int width = kLanes, class T, class Op>
TILEWRIGHT_DEVICE T warp_reduce(T value, Op op) {
#pragma unroll
  for (int distance = width / 2; distance > 0; distance /= 2) {
    value = op(value, __shfl_xor_sync(0xffffffff, value, distance));
  }
  return value;
}

// Over a block of whole warps along x; every thread gets the result. `scratch` holds 32 values in
// shared memory and may be used again right after.
template <class T, class Op>
TILEWRIGHT_DEVICE T block_reduce(T value, Op op, T identity, T* scratch) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const int warps = blockDim.x / kLanes;
  value = warp_reduce(value, op);
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = warp_reduce(lane < warps ? scratch[lane] : identity, op);
  __syncthreads();
  return value;
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
