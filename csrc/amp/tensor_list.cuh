// Many tensors in one launch: their addresses travel as the kernel's own arguments, so that nothing
// is copied to the device beforehand and the launch can be captured in a CUDA graph.
#pragma once
#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

inline constexpr int kListTensors = 512;  // of a launch: 14 KB of the 32 KB that arguments may have

// Of one dtype. Neighbouring blocks work on neighbouring pieces of one tensor.
struct TensorList {
  void* data[kListTensors];
  int64_t numel[kListTensors];
  int64_t place[kListTensors];  // among all tensors of the operator
  int first_block[kListTensors + 1];
  int tensors;

  // The tensor whose blocks hold b.
  TILEWRIGHT_HD int tensor_of(int b) const {
    int low = 0, high = tensors;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_block[middle] <= b ? low : high) = middle;
    }
    return low;
  }
};

// What a block works on: elements [begin, end) of one tensor.
template <class T>
struct TensorPiece {
  TILEWRIGHT_DEVICE TensorPiece(const TensorList& list, int block, int64_t piece)
      : tensor(list.tensor_of(block)),
        data(static_cast<T*>(list.data[tensor])),
        begin((block - list.first_block[tensor]) * piece),
        end(min_of(list.numel[tensor], begin + piece)) {}

  // Calls body(i, true) for runs of neighbours that fill 16 bytes, where these lie at a multiple of
  // 16, and body(i, false) for the other elements. The threads of the block share them.
  template <class Body>
  TILEWRIGHT_DEVICE void for_packs(const Body& body) const {
    constexpr int kPack = 16 / sizeof(T);
    const bool aligned = reinterpret_cast<uintptr_t>(data + begin) % 16 == 0;
    const int64_t whole = aligned ? begin + (end - begin) / kPack * kPack : begin;
    for (int64_t i = begin + int64_t(threadIdx.x) * kPack; i < whole;
         i += int64_t(blockDim.x) * kPack) {
      body(i, true);
    }
    for (int64_t i = whole + threadIdx.x; i < end; i += blockDim.x) body(i, false);
  }

  int tensor;
  T* data;
  int64_t begin, end;
};

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
