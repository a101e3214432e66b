// RoIPool's checks, allocations and shape function: what does not depend on the device.
#include "tilewright/detection/roi_pool_shapes.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

constexpr const char* kOp = "roi_pool";
constexpr const char* kBackward = "_roi_pool_backward";

void check_arguments(const char* op, const RoiPoolArgs& args) {
  check_pooled_size(op, args.pooled_height, args.pooled_width);
  check_spatial_scale(op, args.spatial_scale);
}

}  // namespace

void check_roi_pool(const RoiPoolArgs& args, const at::Tensor& input, const at::Tensor& rois) {
  check_arguments(kOp, args);
  check_shape(kOp, "input", input, "(N, C, H, W)", 4);
  check_floating(kOp, "input", input);
  check_rois(kOp, input, rois);
}

void check_roi_pool_backward(const RoiPoolArgs& args, const at::Tensor& grad,
                             const at::Tensor& rois, const at::Tensor& argmax,
                             const c10::SymInt& channels) {
  check_arguments(kBackward, args);
  check_pooled_grad(kBackward, grad, rois, channels, args.pooled_height, args.pooled_width);
  TILEWRIGHT_CHECK(kBackward, argmax.scalar_type() == at::kInt, "argmax must be int32, got ",
                   argmax.scalar_type());
  TILEWRIGHT_CHECK(kBackward, argmax.sym_sizes() == grad.sym_sizes(),
                   "argmax must have the shape of grad, ", shape_of(grad), ", got ",
                   shape_of(argmax));
  check_same_device(kBackward, "grad", grad, "argmax", argmax);
}

void check_pixel_index(const char* op, int64_t height, int64_t width) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TILEWRIGHT_CHECK(op, width == 0 || height <= kMost / width,
                   "input must have fewer than 2^31 pixels per channel, since argmax is int32, "
                   "got ",
                   height, " x ", width);
}

std::tuple<at::Tensor, at::Tensor> roi_pool_outputs(const RoiPoolArgs& args,
                                                    const at::Tensor& input,
                                                    const at::Tensor& rois) {
  const std::vector<c10::SymInt> sizes{rois.sym_size(0), input.sym_size(1), args.pooled_height,
                                       args.pooled_width};
  const auto layout = input.suggest_memory_format();
  return {at::empty_symint(sizes, input.options(), layout),
          at::empty_symint(sizes, input.options().dtype(at::kInt), layout)};
}

namespace {

std::tuple<at::Tensor, at::Tensor> roi_pool_meta(const at::Tensor& input, const at::Tensor& rois,
                                                 double spatial_scale, int64_t pooled_height,
                                                 int64_t pooled_width) {
  const RoiPoolArgs args{spatial_scale, pooled_height, pooled_width};
  check_roi_pool(args, input, rois);
  return roi_pool_outputs(args, input, rois);
}

at::Tensor roi_pool_backward_meta(const at::Tensor& grad, const at::Tensor& rois,
                                  const at::Tensor& argmax, double spatial_scale,
                                  int64_t pooled_height, int64_t pooled_width, c10::SymInt batch,
                                  c10::SymInt channels, c10::SymInt height, c10::SymInt width) {
  check_roi_pool_backward({spatial_scale, pooled_height, pooled_width}, grad, rois, argmax,
                          channels);
  return empty_grad_input(grad, batch, channels, height, width);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("roi_pool", &roi_pool_meta);
  m.impl("_roi_pool_backward", &roi_pool_backward_meta);
}

}  // namespace tilewright
