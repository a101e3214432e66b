// contrastive_lse's kernels for bfloat16; a file per type, so that they compile beside each other.
#include "tilewright/contrastive/contrastive_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template ContrastiveGrid contrastive_forward_grid(const ContrastiveParams<__nv_bfloat16>&);
template ContrastiveGrid contrastive_grad_grid(const ContrastiveParams<__nv_bfloat16>&);
template void launch_contrastive_forward(const ContrastiveParams<__nv_bfloat16>&);
template void launch_contrastive_grad(const ContrastiveParams<__nv_bfloat16>&);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
