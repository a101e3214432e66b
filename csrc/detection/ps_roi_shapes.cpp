// Checks, allocations and shape functions of ps_roi_align and ps_roi_pool: what does not depend on
// the device.
#include "tilewright/detection/ps_roi_shapes.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/detection/ps_roi_register.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

void check_arguments(const PsRoiArgs& args) {
  check_pooled_size(args.op, args.geometry.pooled_height, args.geometry.pooled_width);
  check_sampling_ratio(args.op, args.geometry.sampling_ratio);
  check_spatial_scale(args.op, args.spatial_scale);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TILEWRIGHT_CHECK(args.op, args.geometry.pooled_height <= kMost / args.geometry.pooled_width,
                   "there must be fewer than 2^31 bins, got ", args.geometry.pooled_height, " x ",
                   args.geometry.pooled_width);
}

void check_channels(const PsRoiArgs& args, const c10::SymInt& channels) {
  TILEWRIGHT_CHECK(args.op, channels % args.geometry.bins() == 0,
                   "input must have a multiple of pooled_height * pooled_width (",
                   args.geometry.pooled_height, " * ", args.geometry.pooled_width,
                   ") channels, got ", channels);
}

std::vector<c10::SymInt> output_sizes(const PsRoiArgs& args, const at::Tensor& input,
                                      const at::Tensor& rois) {
  return {rois.sym_size(0), input.sym_size(1) / args.geometry.bins(), args.geometry.pooled_height,
          args.geometry.pooled_width};
}

}  // namespace

void check_ps_roi(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& rois) {
  check_arguments(args);
  check_shape(args.op, "input", input, "(N, C, H, W)", 4);
  check_floating(args.op, "input", input);
  check_channels(args, input.sym_size(1));
  check_rois(args.op, input, rois);
}

void check_ps_roi_backward(const PsRoiArgs& args, const at::Tensor& grad, const at::Tensor& rois,
                           const c10::SymInt& channels) {
  check_arguments(args);
  check_channels(args, channels);
  check_pooled_grad(args.op, grad, rois, channels / args.geometry.bins(),
                    args.geometry.pooled_height, args.geometry.pooled_width);
}

at::Tensor ps_roi_output(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& rois) {
  return at::empty_symint(output_sizes(args, input, rois), input.options(),
                          input.suggest_memory_format());
}

at::Tensor channel_mapping(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& rois) {
  const auto sizes = output_sizes(args, input, rois);
  const auto options = input.options().dtype(at::kInt);
  at::Tensor mapping = at::empty_symint(sizes, options);
  if (mapping.is_meta()) return mapping;
  const int64_t channels = input.size(1);
  if (mapping.is_cpu()) {  // a few operators fewer: they would take longer than a few small boxes
    int32_t* to = mapping.mutable_data_ptr<int32_t>();
    for (int64_t k = 0; k < rois.size(0); ++k) {
      for (int64_t c = 0; c < channels; ++c) *to++ = int32_t(c);
    }
    return mapping;
  }
  mapping.copy_(at::arange(channels, options)
                    .view({channels / args.geometry.bins(), args.geometry.pooled_height,
                           args.geometry.pooled_width}));
  return mapping;
}

namespace {

at::Tensor pool_meta(const PsRoiArgs& args, const at::Tensor& input, const at::Tensor& rois) {
  check_ps_roi(args, input, rois);
  return ps_roi_output(args, input, rois);
}

at::Tensor pool_backward_meta(const PsRoiArgs& args, const at::Tensor& grad, const at::Tensor& rois,
                              const c10::SymInt& batch, const c10::SymInt& channels,
                              const c10::SymInt& height, const c10::SymInt& width) {
  check_ps_roi_backward(args, grad, rois, channels);
  return empty_grad_input(grad, batch, channels, height, width);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, Meta, m) { PsRoiKernels<pool_meta, pool_backward_meta>::add_to(m); }

}  // namespace tilewright
