// Attention's kernels for float32; a file per type, so that they compile beside each other.
#include "tilewright/attention/attention_fma_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template void launch_attention_forward(const AttentionParams<float>&, bool);
template void launch_attention_backward(const AttentionParams<float>&, bool);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
