// contrastive_lse's kernels for double; a file per type, so that they compile beside each other.
#include "tilewright/contrastive/contrastive_launch.cuh"

namespace tilewright::inline TILEWRIGHT_MACHINE {
template ContrastiveGrid contrastive_forward_grid(const ContrastiveParams<double>&);
template ContrastiveGrid contrastive_grad_grid(const ContrastiveParams<double>&);
template void launch_contrastive_forward(const ContrastiveParams<double>&);
template void launch_contrastive_grad(const ContrastiveParams<double>&);
}  // namespace tilewright::inline TILEWRIGHT_MACHINE
