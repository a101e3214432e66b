// The launches of attention's kernels by type: what attention_<type>_cuda.cu instantiate and
// attention_cuda.cu calls. Torch-free, so that the kernels compile without it.
#pragma once
#include "tilewright/attention/attention_params.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {

template <class T>
void launch_attention_forward(const AttentionParams<T>& p, bool plain);
// All of it, from lse_log2 to the gradient of the bias.
template <class T>
void launch_attention_backward(const AttentionParams<T>& p, bool plain);

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
