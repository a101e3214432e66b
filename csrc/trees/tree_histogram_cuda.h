// The steps on the host that tree_histogram and grow_tree share on CUDA.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/trees/tree_histogram_kernel.cuh"
#include "tilewright/trees/tree_words_kernel.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

struct TreeWords {
  at::Tensor words;   // (N,) int64, or pairs (N, 2)
  at::Tensor scales;  // TreeScales
};
// Of tree_values(), under the caller's guard.
TreeWords tree_words_of(const at::Tensor& gradients, const at::Tensor& hessians, bool pairs);

// A launch of tree_histogram_kernel: fills in the tiles and groups.
void count_histograms(TreeHistogramParams params, bool wide, bool pairs);

// The codes of a contiguous table.
inline const void* codes_data(const at::Tensor& codes) {
  return codes.scalar_type() == at::kByte ? static_cast<const void*>(const_data<uint8_t>(codes))
                                          : const_data<int16_t>(codes);
}

inline TreeScales* scales_data(const at::Tensor& scales) {
  return reinterpret_cast<TreeScales*>(mutable_data<double>(scales));
}
inline TreeCount* counts_data(const at::Tensor& sums) {
  return reinterpret_cast<TreeCount*>(mutable_data<int64_t>(sums));
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
