// unscale_ on the device: a block works on a piece of one gradient.
#pragma once
#include <limits>

#include "tilewright/amp/tensor_list.cuh"
#include "tilewright/amp/unscale_math.h"
#include "tilewright/core/cuda/atomics.h"
#include "tilewright/core/cuda/reduce.h"
#include "tilewright/core/cuda/shared.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kUnscaleThreads = 256;

struct UnscaleParams {
  TensorList list;
  const float* inv_scale;
  float* found_inf;
  int64_t* first_bad;  // or null
  double* squares;     // (blocks,): of kNorm
  bool write;          // or gradients are only looked through
};

struct UnscaleParts {
  double* scratch;  // (32,)
  TILEWRIGHT_HD explicit UnscaleParts(SharedMemory& shared) : scratch(shared.take<double>(32)) {}
};

// No NaN and nothing that is infinite once it is stored.
template <class T>
TILEWRIGHT_DEVICE bool is_storable(accumulate_t<T> value) {
  accumulate_t<T> limit = std::numeric_limits<accumulate_t<T>>::infinity();
  if constexpr (std::is_same_v<T, __half>) limit = kOverflowOfHalf;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) limit = kOverflowOfBFloat16;
  return value < limit && value > -limit;
}

template <class T, bool kNorm>
__global__ void unscale_kernel(UnscaleParams p) {
  SharedMemory shared;
  const UnscaleParts parts(shared);
  const TensorPiece<T> piece(p.list, int(blockIdx.x), kUnscalePiece);
  T* const data = piece.data;
  const float inv = ldg(p.inv_scale);
  const bool write = p.write && inv != 1.0f;
  bool bad = false;
  double squares = 0;
  const auto one = [&](T value) {
    const accumulate_t<T> product = to_accumulate(value) * accumulate_t<T>(inv);
    bad |= !is_storable<T>(product);
    if constexpr (kNorm) squares += double(product) * double(product);
    return from_accumulate<T>(product);
  };
  piece.for_packs([&](int64_t i, bool packed) {
    constexpr int kPack = 16 / sizeof(T);
    if (packed) {
      Pack<T, kPack> pack = load_pack<kPack>(data + i);
#pragma unroll
      for (int k = 0; k < kPack; ++k) pack[k] = one(pack[k]);
      if (write) store_pack(data + i, pack);
    } else {
      const T value = one(data[i]);
      if (write) data[i] = value;
    }
  });
  if (__syncthreads_or(bad) && threadIdx.x == 0) {
    atomic_max_of_positive(p.found_inf, 1.0f);
    if (p.first_bad != nullptr) atomic_min(p.first_bad, p.list.place[piece.tensor]);
  }
  if constexpr (kNorm) {
    squares = block_reduce(squares, Sum(), 0.0, parts.scratch);
    if (threadIdx.x == 0) p.squares[blockIdx.x] = squares;
  }
}

// One block: the root of all blocks' squares.
template <class T>
struct NormParams {
  const double* squares;  // (count,)
  int64_t count;
  T* norm;
};
template <class T>
__global__ void norm_kernel(NormParams<T> p) {
  SharedMemory shared;
  const UnscaleParts parts(shared);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < p.count; i += blockDim.x) sum += ldg(p.squares + i);
  sum = block_reduce(sum, Sum(), 0.0, parts.scratch);
  if (threadIdx.x == 0) *p.norm = T(std::sqrt(sum));
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
