// Kernels whose threads meet, or fail to, each in one particular way.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// The other half waits for the lanes that wait here.
__global__ void half_barrier_kernel() {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncwarp();
}

__global__ void two_barriers_kernel() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}

// Threads for which index % 3 == phase leave early, the rest pass two barriers.
__global__ void early_exit_kernel(int* passed, int phase) {
  if (int(threadIdx.x % 3) == phase) return;
  __syncthreads();
  atomicAdd(passed, 1);
  __syncthreads();
  atomicAdd(passed, 1);
}

// All threads but one wait for it, and it exits.
__global__ void last_exit_kernel(int* passed, int last) {
  if (int(threadIdx.x) == last) return;
  __syncthreads();
  __syncwarp();
  atomicAdd(passed, 1);
}

// Each thread reads what its neighbour wrote before the barrier, over and over.
__global__ void rotate_kernel(int* values, int rounds) {
  SharedMemory shared;
  int* tile = shared.take<int>(blockDim.x);
  int value = int(threadIdx.x);
  for (int i = 0; i < rounds; ++i) {
    tile[threadIdx.x] = value;
    __syncthreads();
    value = tile[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
  }
  values[threadIdx.x] = value;
}

__global__ void block_votes_kernel(int* results) {
  const int count = __syncthreads_count(threadIdx.x % 3 == 0);
  const int all = __syncthreads_and(threadIdx.x < 1000);
  const int not_all = __syncthreads_and(threadIdx.x < 10);
  const int any = __syncthreads_or(threadIdx.x == 70);
  const int none = __syncthreads_or(threadIdx.x == 1000);
  int* mine = results + threadIdx.x * 5;
  mine[0] = count;
  mine[1] = all;
  mine[2] = not_all;
  mine[3] = any;
  mine[4] = none;
}

__global__ void absent_lanes_kernel() {
  if (threadIdx.x < 8)
    __syncwarp(0xffff);
  else
    __syncthreads();
}

__global__ void lacks_caller_kernel() { __syncwarp(0xff); }

__global__ void two_warp_calls_kernel() {
  if (threadIdx.x < 16)
    __syncwarp();
  else
    __shfl_sync(0xffffffff, 1, 0);
}

// The halves of the warp go separate ways and meet again.
__global__ void diverged_kernel(int* values) {
  const int lane = int(threadIdx.x);
  int value;
  if (lane < 16) {
    value = __shfl_xor_sync(0x0000ffff, lane, 1);
    value = __shfl_xor_sync(0x0000ffff, value, 2);
  } else {
    value = __shfl_xor_sync(0xffff0000, lane, 15);
  }
  __syncwarp();
  values[lane] = __shfl_xor_sync(0xffffffff, value, 16);
}

// A shuffle whose named partner lanes exit instead of arriving.
__global__ void exited_lanes_kernel(int* values) {
  const int lane = int(threadIdx.x);
  if (lane >= 24) return;
  values[lane] = __shfl_down_sync(0xffffffff, lane, 8);
}

__global__ void trap_kernel(unsigned bad_block) {
  __syncthreads();
  if (blockIdx.x == bad_block && threadIdx.x == 7) __trap();
  __syncthreads();
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
