// gradient_exponents on the device: a block counts a piece of one gradient in shared memory.
#pragma once
#include "tilewright/amp/gradient_exponents_math.h"
#include "tilewright/amp/tensor_list.cuh"
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kExponentsThreads = 256;
inline constexpr int64_t kExponentsPiece = 1 << 16;  // less than what 32 bits count

struct ExponentsParams {
  TensorList list;
  int64_t* counts;  // (256,)
};

struct ExponentsParts {
  int* counts;  // (256,)
  TILEWRIGHT_HD explicit ExponentsParts(SharedMemory& shared)
      : counts(shared.take<int>(kExponents)) {}
};

template <class T>
__global__ void exponents_kernel(ExponentsParams p) {
  SharedMemory shared;
  const ExponentsParts parts(shared);
  for (int e = int(threadIdx.x); e < kExponents; e += int(blockDim.x)) parts.counts[e] = 0;
  __syncthreads();
  const TensorPiece<T> piece(p.list, int(blockIdx.x), kExponentsPiece);
  piece.for_packs([&](int64_t i, bool packed) {
    constexpr int kPack = 16 / sizeof(T);
    if (packed) {
      const Pack<T, kPack> pack = load_pack<kPack>(piece.data + i);
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        atomic_add(parts.counts + exponent_of(to_accumulate(pack[k])), 1);
      }
    } else {
      atomic_add(parts.counts + exponent_of(to_accumulate(piece.data[i])), 1);
    }
  });
  __syncthreads();
  for (int e = int(threadIdx.x); e < kExponents; e += int(blockDim.x)) {
    const int count = parts.counts[e];
    if (count > 0) atomic_add(p.counts + e, int64_t(count));
  }
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
