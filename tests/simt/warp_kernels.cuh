// Kernels that apply each warp primitive once per lane and store what came out.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// results (4, 32): index, up, down, xor.
template <class T>
__global__ void shuffle_kernel(const T* values, T* results, int operand, int width) {
  const int lane = threadIdx.x;
  const T value = values[lane];
  results[lane] = __shfl_sync(0xffffffff, value, operand, width);
  results[32 + lane] = __shfl_up_sync(0xffffffff, value, operand, width);
  results[64 + lane] = __shfl_down_sync(0xffffffff, value, operand, width);
  results[96 + lane] = __shfl_xor_sync(0xffffffff, value, operand, width);
}

// results (6, 32), for the lanes of `mask`.
__global__ void votes_kernel(unsigned mask, const int* values, unsigned* results) {
  const int lane = threadIdx.x, value = values[lane];
  if (!(mask >> lane & 1)) return;
  results[lane] = __ballot_sync(mask, value > 2);
  results[32 + lane] = unsigned(__any_sync(mask, value > 5));
  results[64 + lane] = unsigned(__all_sync(mask, value > -1));
  results[96 + lane] = __match_any_sync(mask, value);
  results[128 + lane] = __match_any_sync(mask, static_cast<long long>(value) << 40);
  results[160 + lane] = __activemask() >> lane & 1;
}

// results (9, 32)
__global__ void reduce_kernel(unsigned mask, const int* values, int* results) {
  const int lane = threadIdx.x, value = values[lane];
  const unsigned bits = unsigned(value);
  if (!(mask >> lane & 1)) return;
  results[lane] = __reduce_add_sync(mask, value);
  results[32 + lane] = __reduce_min_sync(mask, value);
  results[64 + lane] = __reduce_max_sync(mask, value);
  results[96 + lane] = int(__reduce_add_sync(mask, bits));
  results[128 + lane] = int(__reduce_min_sync(mask, bits));
  results[160 + lane] = int(__reduce_max_sync(mask, bits));
  results[192 + lane] = int(__reduce_and_sync(mask, bits));
  results[224 + lane] = int(__reduce_or_sync(mask, bits));
  results[256 + lane] = int(__reduce_xor_sync(mask, bits));
}

// results (3, threads): sum, maximum, minimum of the block, then (threads,) sums of 8 lanes.
template <class T>
__global__ void block_reduce_kernel(const T* values, T* results) {
  SharedMemory shared;
  T* scratch = shared.take<T>(kLanes);
  const T value = values[threadIdx.x];
  const T sum = block_reduce(value, Sum(), T(0), scratch);
  const T largest = block_reduce(value, Max(), values[0], scratch);
  const T smallest = block_reduce(value, Min(), values[0], scratch);
  results[threadIdx.x] = sum;
  results[blockDim.x + threadIdx.x] = largest;
  results[2 * blockDim.x + threadIdx.x] = smallest;
  results[3 * blockDim.x + threadIdx.x] = warp_reduce<8>(value, Sum());
}

// results (12, 32) of the integer intrinsics, and floats (8, 32).
__global__ void intrinsics_kernel(const int* values, int* results, float* floats) {
  const int lane = threadIdx.x, value = values[lane];
  const int all[] = {
      __popc(value),      __popcll(value),  __ffs(value),       __ffsll(value),
      __clz(value),       __clzll(value),   int(__brev(value)), int(__umulhi(value, 77)),
      __mulhi(value, 77), min(value, lane), max(value, lane),   __float2int_rn(value * 0.5f)};
  for (int i = 0; i < 12; ++i) results[32 * i + lane] = all[i];
  const float x = float(lane + 1) / 8;
  const float some[] = {__expf(x),          __logf(x), rsqrtf(x),          __fdividef(1.f, x),
                        __fmaf_rn(x, x, x), exp2f(x),  __saturatef(x - 1), fmaxf(x, NAN)};
  for (int i = 0; i < 8; ++i) floats[32 * i + lane] = some[i];
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
