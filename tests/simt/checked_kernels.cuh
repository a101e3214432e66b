// Kernels with one planted mistake each, and their corrected twins (kFixed), for the checks.
#pragma once
#include "tilewright/core/cuda/async_copy.h"
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/mma.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Every thread adds 1 to its block's sum, or, where kAcross, to one sum of the launch.
template <bool kFixed>
__global__ void lost_update_kernel(int* sums, bool across) {
  int* sum = sums + (across ? 0 : blockIdx.x);
  if (kFixed) {
    atomic_add(sum, 1);
  } else {
    *sum += 1;
  }
}

struct RowParts {
  int* row;
  TILEWRIGHT_HD RowParts(SharedMemory& shared, int n) : row(shared.take<int>(n)) {}
};

// values[i] = values[i + 1 of the block] through shared memory.
template <bool kFixed>
__global__ void missing_barrier_kernel(int* values) {
  SharedMemory shared;
  const RowParts parts(shared, blockDim.x);
  parts.row[threadIdx.x] = values[threadIdx.x];
  if (kFixed) __syncthreads();
  values[threadIdx.x] = parts.row[(threadIdx.x + 1) % blockDim.x];
}

// The barrier at the loop's end is missing: a slow thread still reads what the next turn writes.
template <bool kFixed>
__global__ void missing_second_barrier_kernel(int* values, int turns) {
  SharedMemory shared;
  const RowParts parts(shared, blockDim.x);
  for (int turn = 0; turn < turns; ++turn) {
    parts.row[threadIdx.x] = values[threadIdx.x] + turn;
    __syncthreads();
    values[threadIdx.x] = parts.row[(threadIdx.x + 1) % blockDim.x];
    if (kFixed) __syncthreads();
  }
}

// As missing_barrier_kernel, within each warp.
template <bool kFixed>
__global__ void missing_syncwarp_kernel(int* values) {
  SharedMemory shared;
  const RowParts parts(shared, blockDim.x);
  const int first = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
  parts.row[threadIdx.x] = values[threadIdx.x];
  if (kFixed) {
    __syncwarp();
  } else {
    __shfl_sync(0xffffffff, lane, 0);  // meets, but orders no memory
  }
  values[threadIdx.x] = parts.row[first + (lane + 1) % 32];
}

// Both halves of a warp rotate their 16 values; a mask of the other half's lanes helps nobody.
template <bool kFixed>
__global__ void half_warps_kernel(int* values) {
  SharedMemory shared;
  const RowParts parts(shared, 32);
  const int lane = threadIdx.x, half = lane / 16;
  parts.row[lane] = values[lane];
  if (half == 0) {
    __syncwarp(0x0000ffff);
  } else {
    __syncwarp(0xffff0000);
  }
  const int from = kFixed ? half * 16 : (1 - half) * 16;
  values[lane] = parts.row[from + (lane + 1) % 16];
}

// Each block writes its element; the last thread of the launch's first block reads another's.
template <bool kFixed>
__global__ void across_blocks_kernel(int* values, int* result) {
  if (threadIdx.x == 0) values[blockIdx.x] = int(blockIdx.x);
  if (blockIdx.x == 0 && threadIdx.x == 0) *result = values[kFixed ? 0 : gridDim.x - 1];
}

// All blocks write the same value into one place: still a conflict.
__global__ void same_value_kernel(int* values) { values[0] = 7; }

struct PairParts {
  float* left;   // (n,)
  float* right;  // (n,)
  TILEWRIGHT_HD PairParts(SharedMemory& shared, int n)
      : left(shared.take<float>(n)), right(shared.take<float>(n)) {}
};

// Fills two parts of shared memory; the loop over the first runs `over` elements too far.
__global__ void part_overrun_kernel(float* values, int n, int over) {
  SharedMemory shared;
  const PairParts parts(shared, n);
  for (int i = threadIdx.x; i < n; i += blockDim.x) parts.right[i] = 1;
  __syncthreads();
  for (int i = threadIdx.x; i < n + over; i += blockDim.x) parts.left[i] = 2;
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] = parts.left[i] + parts.right[i];
}

template <bool kFixed>
__global__ void early_copy_kernel(const float* input, float* output) {
  SharedMemory shared;
  const PairParts parts(shared, blockDim.x * 4);
  copy_async<16>(parts.left + threadIdx.x * 4, input + threadIdx.x * 4);
  commit_copies();
  if (kFixed) wait_copies<0>();
  __syncthreads();
  if (!kFixed) wait_copies<0>();
  output[threadIdx.x] = parts.left[(threadIdx.x + 1) % blockDim.x * 4];
}

// Waits for its own copies only; those of other threads need a barrier too.
template <bool kFixed>
__global__ void copy_without_barrier_kernel(const float* input, float* output) {
  SharedMemory shared;
  const PairParts parts(shared, blockDim.x * 4);
  copy_async<16>(parts.left + threadIdx.x * 4, input + threadIdx.x * 4);
  commit_copies();
  wait_copies<0>();
  if (kFixed) __syncthreads();
  output[threadIdx.x] = parts.left[(threadIdx.x + 1) % blockDim.x * 4];
}

__global__ void shift_kernel(const float* input, float* output, int read_offset, int write_offset) {
  output[int(threadIdx.x) + write_offset] = input[int(threadIdx.x) + read_offset];
}
__global__ void pack_kernel(const float* input, float* output, int offset) {
  store_pack<4>(output + 4 * threadIdx.x, load_pack<4>(input + offset + 4 * threadIdx.x));
}
__global__ void write_input_kernel(const float* input, float* output) {
  const_cast<float*>(input)[threadIdx.x] = 1;
  output[threadIdx.x] = 2;
}
__global__ void copy_bytes_kernel(const char* input, char* output, size_t bytes) {
  if (threadIdx.x == 0) memcpy(output, input, bytes);
}
__global__ void fill_bytes_kernel(char* output, size_t bytes) {
  if (threadIdx.x == 0) memset(output, 1, bytes);
}

// sums[warp] = the sum over the block, by way of reduce.h, twice over the same scratch memory.
__global__ void block_sum_kernel(const float* input, float* sums) {
  SharedMemory shared;
  float* const scratch = shared.take<float>(32);
  const float sum = block_reduce(input[threadIdx.x], Sum{}, 0.f, scratch);
  const float twice = block_reduce(2 * input[threadIdx.x], Sum{}, 0.f, scratch);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum + twice;
}

// Tables and locals: memory that belongs to no tensor and may be read.
__global__ void constants_kernel(float* output, int n) {
  static constexpr float kTable[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  float local[16];
  for (int i = 0; i < 16; ++i) local[i] = kTable[(n + i) % 9];
  output[threadIdx.x] = local[(threadIdx.x + n) % 16];
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
