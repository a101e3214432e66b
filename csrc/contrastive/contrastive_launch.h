// The launches of contrastive_lse's kernels, which a file per type instantiates.
#pragma once
#include "tilewright/contrastive/contrastive_params.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Whether the tensor cores' kernels take rows of T: they read them in packs of 16 bytes.
template <class T>
constexpr bool contrastive_takes_mma(int64_t depth) {
  return sizeof(T) == 2 && depth <= 256;
}

// Blocks of a pass over so many lines, and steps that they walk through, without splits.
struct ContrastiveGrid {
  int64_t blocks, steps;
};
template <class T>
ContrastiveGrid contrastive_forward_grid(const ContrastiveParams<T>& p);
template <class T>
ContrastiveGrid contrastive_grad_grid(const ContrastiveParams<T>& p);

template <class T>
void launch_contrastive_forward(const ContrastiveParams<T>& p);
template <class T>
void launch_contrastive_grad(const ContrastiveParams<T>& p);

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
