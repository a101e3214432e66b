// Tensors to the lists that launches take.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "tilewright/amp/tensor_list.cuh"
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Calls body(list, blocks) for the tensors of T, some at a time, where each block works on `piece`
// elements.
template <class T, class Body>
void for_lists_of(at::TensorList tensors, int64_t piece, bool written, const Body& body) {
  constexpr int64_t kMostBlocks = 0x7fffffff;
  TensorList list{};
  const auto flush = [&] {
    if (list.tensors > 0) body(list, list.first_block[list.tensors]);
    list.tensors = 0;
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    if (tensor.numel() == 0 || tensor.scalar_type() != c10::CppTypeToScalarType<T>::value) continue;
    const int64_t blocks = ceil_div(tensor.numel(), piece);
    const bool full = list.first_block[list.tensors] + blocks > kMostBlocks;
    if (list.tensors == kListTensors || full) flush();
    list.data[list.tensors] = data_of<T>(tensor, written);
    list.numel[list.tensors] = tensor.numel();
    list.place[list.tensors] = int64_t(i);
    list.first_block[list.tensors + 1] = list.first_block[list.tensors] + int(blocks);
    ++list.tensors;
  }
  flush();
}

// Calls body(TypeTag<T>(), list, blocks) for tensors of every floating type T. written: whether
// kernels write to them.
template <class Body>
void for_tensor_lists(at::TensorList tensors, int64_t piece, bool written, const Body& body) {
  const auto of = [&](auto tag) {
    for_lists_of<typename decltype(tag)::type>(
        tensors, piece, written,
        [&](const TensorList& list, int blocks) { body(tag, list, blocks); });
  };
  of(TypeTag<float>());
  of(TypeTag<c10::BFloat16>());
  of(TypeTag<c10::Half>());
  of(TypeTag<double>());
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
