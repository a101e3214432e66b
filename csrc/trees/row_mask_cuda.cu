// Draws of rows on CUDA.
#include <ATen/ops/empty.h>

#include "tilewright/core/cuda/host.h"
#include "tilewright/trees/row_mask.h"
#include "tilewright/trees/row_mask_kernel.cuh"

namespace tilewright {
namespace {

at::Tensor draw_row_mask_cuda(const at::Tensor& codes, double share, int64_t round, int64_t seed) {
  check_draw_row_mask(codes, share, round);
  const DeviceGuard guard(codes);
  const at::Tensor mask = at::empty({codes.size(0)}, codes.options().dtype(at::kBool));
  RowMaskParams params{};
  params.rows = mask.numel();
  params.share = share;
  params.round = uint32_t(round);
  params.seed = uint64_t(seed);
  params.drawn = mutable_data<bool>(mask);
  launch<row_mask_kernel>(linear_config(ceil_div(params.rows, 4)), params);
  return mask;
}

}  // namespace

TILEWRIGHT_DEVICE_IMPL(m) { m.impl("_draw_row_mask", &draw_row_mask_cuda); }

}  // namespace tilewright
