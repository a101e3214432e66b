// contrastive_lse's kernels for float; a file per type, so that they compile beside each other.
#include "tilewright/contrastive/contrastive_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template ContrastiveGrid contrastive_forward_grid(const ContrastiveParams<float>&);
template ContrastiveGrid contrastive_grad_grid(const ContrastiveParams<float>&);
template void launch_contrastive_forward(const ContrastiveParams<float>&);
template void launch_contrastive_grad(const ContrastiveParams<float>&);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
