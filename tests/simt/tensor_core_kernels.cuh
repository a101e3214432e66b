// One warp around one tensor core instruction: fragments in, fragments out.
#pragma once
#include "tilewright/core/cuda/device.h"
#include "tilewright/core/cuda/mma.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// a (32, 4), b (32, 2), d (32, 4): the registers of every lane.
template <class T>
__global__ void mma_16_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = threadIdx.x;
  const uint32_t mine_a[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
  const uint32_t mine_b[2] = {b[lane * 2], b[lane * 2 + 1]};
  float mine_d[4] = {d[lane * 4], d[lane * 4 + 1], d[lane * 4 + 2], d[lane * 4 + 3]};
  mma_m16n8k16<T>(mine_d, mine_a, mine_b);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = mine_d[i];
}

__global__ void mma_tf32_kernel(const float* a, const float* b, float* d, bool rounds) {
  const int lane = threadIdx.x;
  uint32_t mine_a[4], mine_b[2];
  for (int i = 0; i < 4; ++i) {
    const float value = a[lane * 4 + i];
    mine_a[i] = rounds ? to_tf32(value) : __float_as_uint(value);
  }
  for (int i = 0; i < 2; ++i) {
    const float value = b[lane * 2 + i];
    mine_b[i] = rounds ? to_tf32(value) : __float_as_uint(value);
  }
  float mine_d[4] = {d[lane * 4], d[lane * 4 + 1], d[lane * 4 + 2], d[lane * 4 + 3]};
  mma_m16n8k8_tf32(mine_d, mine_a, mine_b);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = mine_d[i];
}

__global__ void to_tf32_kernel(const float* values, uint32_t* bits) {
  bits[threadIdx.x] = to_tf32(values[threadIdx.x]);
}

struct MatrixParts {
  uint16_t* matrices;  // (N, 8, 8)
  TILEWRIGHT_HD MatrixParts(SharedMemory& shared) : matrices(shared.take<uint16_t>(4 * 64)) {}
};

// Fills N matrices with their linear places and loads them; registers (32, N).
template <int N, bool kTransposed>
__global__ void load_matrices_kernel(uint32_t* registers, int misplaced) {
  SharedMemory shared;
  MatrixParts parts(shared);
  const int lane = threadIdx.x;
  for (int i = lane; i < N * 64; i += 32) parts.matrices[i] = uint16_t(i);
  __syncwarp();
  uint32_t mine[N];
  const void* row = parts.matrices + (lane % (N * 8)) * 8 + misplaced;
  if constexpr (kTransposed) {
    load_matrices_transposed(mine, row);
  } else {
    load_matrices(mine, row);
  }
  for (int i = 0; i < N; ++i) registers[lane * N + i] = mine[i];
}

template <class T>
__global__ void pack_pair_kernel(const float* values, uint32_t* pairs) {
  pairs[threadIdx.x] = pack_pair<T>(values[2 * threadIdx.x], values[2 * threadIdx.x + 1]);
}

__global__ void lonely_mma_kernel() {
  if (threadIdx.x == 3) return;
  const uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  mma_m16n8k16<__half>(d, a, b);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
