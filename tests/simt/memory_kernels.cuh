// Kernels for atomics and asynchronous copies.
#pragma once
#include "tilewright/core/cuda/async_copy.h"
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
__global__ void sum_kernel(T* sum, int rounds) {
  for (int i = 0; i < rounds; ++i) atomic_add(sum, from_accumulate<T>(1));
}
__global__ void sum_long_kernel(int64_t* sum) { atomic_add(sum, int64_t(-3) << 33); }

// One atomic of every kind and type; results (7) of T.
template <class T>
__global__ void integer_atomics_kernel(T* results) {
  const T place = T(blockIdx.x * blockDim.x + threadIdx.x);
  atomicMin(results + 0, place);
  atomicMax(results + 1, place);
  atomicAdd(results + 2, place);
  if constexpr (sizeof(T) == 8 || T(-1) > T(0)) {
    atomicAnd(results + 3, ~(T(1) << place % (8 * sizeof(T))));
    atomicOr(results + 4, T(1) << place % (8 * sizeof(T)));
    atomicXor(results + 5, place);
  }
  atomicExch(results + 6, place);
}
__global__ void long_minmax_kernel(long long* results) {
  const long long place = (long long)(blockIdx.x * blockDim.x + threadIdx.x) - 100;
  atomicMin(results + 0, place << 33);
  atomicMax(results + 1, place << 33);
}

// A counter without atomicAdd: compare and swap until it holds.
template <class T>
__global__ void compare_and_swap_kernel(T* counter) {
  T old = *counter, assumed;
  do {
    assumed = old;
    old = atomicCAS(counter, assumed, T(assumed + 1));
  } while (old != assumed);
}

__global__ void exchange_kernel(float* slot, float* sum, int* decreases) {
  const float given = float(threadIdx.x + 1);
  atomic_add(sum, given - atomicExch(slot, given));
  atomicSub(decreases, 1);
  __threadfence();
}

struct CopyParts {
  float* tile;  // (n,)
  TILEWRIGHT_HD CopyParts(SharedMemory& shared, int n) : tile(shared.take<float>(n)) {}
};

// output[i] = input[i] through shared memory, 0 from `valid` on.
template <int kBytes>
__global__ void copy_kernel(const float* input, float* output, int n, int valid) {
  SharedMemory shared;
  CopyParts parts(shared, n);
  constexpr int kStep = kBytes / 4;
  for (int i = threadIdx.x * kStep; i < n; i += blockDim.x * kStep) {
    copy_async<kBytes>(parts.tile + i, i < valid ? input + i : input, i < valid);
  }
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) output[i] = parts.tile[i];
}

// What thread 0 sees of four one-value groups: before any wait, and after the waits that leave 3,
// 1 and 0 groups in flight. seen (4, 4).
__global__ void copy_groups_kernel(const float* input, float* seen) {
  SharedMemory shared;
  CopyParts parts(shared, 4);
  for (int i = 0; i < 4; ++i) parts.tile[i] = -1.f;
  for (int i = 0; i < 4; ++i) {
    copy_async<4>(parts.tile + i, input + i);
    commit_copies();
  }
  for (int i = 0; i < 4; ++i) seen[i] = parts.tile[i];
  wait_copies<3>();
  for (int i = 0; i < 4; ++i) seen[4 + i] = parts.tile[i];
  wait_copies<1>();
  for (int i = 0; i < 4; ++i) seen[8 + i] = parts.tile[i];
  wait_copies<0>();
  for (int i = 0; i < 4; ++i) seen[12 + i] = parts.tile[i];
}

// Forgets to commit, so that its wait has no group to wait for.
__global__ void uncommitted_copy_kernel(const float* input, float* seen) {
  SharedMemory shared;
  CopyParts parts(shared, 1);
  copy_async<4>(parts.tile, input);
  wait_copies<0>();
  *seen = parts.tile[0];
}

__global__ void misaligned_copy_kernel(const float* input) {
  SharedMemory shared;
  CopyParts parts(shared, 8);
  copy_async<16>(parts.tile + 1, input);
}
__global__ void backward_copy_kernel(float* output) {
  SharedMemory shared;
  CopyParts parts(shared, 8);
  copy_async<16>(output, parts.tile);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
