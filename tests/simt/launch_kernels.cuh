// Kernels that report how they were launched.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

__global__ void nothing_kernel() {}

template <class T>
__global__ void add_kernel(T* values, int64_t n, T addend) {
  for (int64_t i : grid_stride(n)) values[i] += addend;
}

struct ScaleParams {
  const float* input;
  float* output;
  int64_t numel;
  double factor;
};
template <class T, int kUnroll, bool kSquare>
__global__ void scale_kernel(const ScaleParams params) {
  for (int64_t i : grid_stride(params.numel / kUnroll)) {
    auto pack = load_pack<kUnroll>(params.input + i * kUnroll);
    for (int k = 0; k < kUnroll; ++k) {
      pack[k] = from_accumulate<T>(to_accumulate(pack[k]) * (kSquare ? pack[k] : 1)) *
                float(params.factor);
    }
    store_pack(params.output + i * kUnroll, pack);
  }
}

// counts[linear place in the whole grid] += 1; the extents are checked too.
__global__ void count_places_kernel(int* counts, int* wrong, uint3 grid, uint3 block) {
  if (gridDim.x != grid.x || gridDim.y != grid.y || gridDim.z != grid.z || blockDim.x != block.x ||
      blockDim.y != block.y || blockDim.z != block.z) {
    atomicAdd(wrong, 1);
  }
  const int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(counts + b * (blockDim.x * blockDim.y * blockDim.z) + t, 1);
}

// order[turn] = the place that ran in that turn.
__global__ void turn_kernel(int* turn, int* order) {
  order[atomicAdd(turn, 1)] = int(blockIdx.x * blockDim.x + threadIdx.x);
}

struct TwoParts {
  float* first;    // (n,)
  __half* second;  // (n,)
  TILEWRIGHT_HD TwoParts(SharedMemory& shared, int n)
      : first(shared.take<float>(n)), second(shared.take<__half>(n)) {}
};

// Counts the values that are not NaN before anything was written.
__global__ void fresh_shared_kernel(int n, int* not_nan) {
  SharedMemory shared;
  TwoParts parts(shared, n);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float a = parts.first[i], b = to_accumulate(parts.second[i]);
    if (a == a || b == b) atomicAdd(not_nan, 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    parts.first[i] = 1.f;
    parts.second[i] = from_accumulate<__half>(1.f);
  }
}

__global__ void part_places_kernel(int64_t* distance, int n) {
  SharedMemory shared;
  TwoParts parts(shared, n);
  *distance = reinterpret_cast<char*>(parts.second) - reinterpret_cast<char*>(parts.first);
}

__global__ void misaligned_kernel(const float* values, float* sum) {
  const auto pack = load_pack<4>(values);
  *sum = pack[0] + pack[3];
}

// Runs over its stack: `depth` frames that cannot be merged into one.
__device__ __attribute__((noinline)) int deep(int depth, volatile char* outer) {
  volatile char frame[1024];
  frame[depth % 1024] = outer[0];
  return depth == 0 ? frame[0] : deep(depth - 1, frame) + frame[depth % 1024];
}
__global__ void deep_kernel(int* result, int depth) {
  volatile char frame[4] = {};
  *result = deep(depth, frame);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
