// Kernels whose memory traffic is known.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// A block of 32 reads (32, stride) floats by rows or by columns, into shared memory and back.
__global__ void matrix_kernel(const float* input, float* output, int stride, bool columns) {
  SharedMemory shared;
  float* const tile = shared.take<float>(32 * stride);
  for (int i = 0; i < 32; ++i) {
    const int at = columns ? int(threadIdx.x) * stride + i : i * stride + int(threadIdx.x);
    tile[at] = ldg(input + at);
  }
  __syncthreads();
  output[threadIdx.x] = tile[threadIdx.x * stride];
}

template <int N>
__global__ void pack_report_kernel(const float* input, float* output) {
  SharedMemory shared;
  float* const tile = shared.take<float>(32 * N);
  store_pack<N>(tile + N * threadIdx.x, load_pack<N>(input + N * threadIdx.x));
  __syncthreads();
  output[threadIdx.x] = tile[0];
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
