// Attention's kernels for float16; a file per type, so that they compile beside each other.
#include "tilewright/attention/attention_mma_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template void launch_attention_forward(const AttentionParams<__half>&, bool);
template void launch_attention_backward(const AttentionParams<__half>&, bool);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
