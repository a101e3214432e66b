// Attention's kernels for bfloat16; a file per type, so that they compile beside each other.
#include "tilewright/attention/attention_mma_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template void launch_attention_forward(const AttentionParams<__nv_bfloat16>&, bool);
template void launch_attention_backward(const AttentionParams<__nv_bfloat16>&, bool);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
