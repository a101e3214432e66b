// contrastive_lse's kernels for half; a file per type, so that they compile beside each other.
#include "tilewright/contrastive/contrastive_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template ContrastiveGrid contrastive_forward_grid(const ContrastiveParams<__half>&);
template ContrastiveGrid contrastive_grad_grid(const ContrastiveParams<__half>&);
template void launch_contrastive_forward(const ContrastiveParams<__half>&);
template void launch_contrastive_grad(const ContrastiveParams<__half>&);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
