// Attention's kernels for float64; a file per type, so that they compile beside each other.
#include "tilewright/attention/attention_fma_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template void launch_attention_forward(const AttentionParams<double>&, bool);
template void launch_attention_backward(const AttentionParams<double>&, bool);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
