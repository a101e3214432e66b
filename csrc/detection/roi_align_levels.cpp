// Checks, allocations and shape functions of RoIAlign: what does not depend on the device.
#include "tilewright/detection/roi_align_levels.h"

#include <ATen/ATen.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/huge_pages.h"
#include "tilewright/detection/roi_align_register.h"

namespace tilewright {
namespace {

// Everything that the numbers alone can tell; both directions.
void check_arguments(const RoiAlignArgs& args) {
  const char* op = args.op;
  check_pooled_size(op, args.pooled_height, args.pooled_width);
  check_sampling_ratio(op, args.sampling_ratio);
  TILEWRIGHT_CHECK(op, !args.scales.empty() && args.scales.size() <= size_t(kMaxPyramidLevels),
                   "expected 1 to ", kMaxPyramidLevels, " spatial scales, got ",
                   args.scales.size());
  for (double scale : args.scales) check_spatial_scale(op, scale);
  for (size_t i = 1; i < args.scales.size(); ++i) {
    TILEWRIGHT_CHECK(op, std::abs(args.scales[i] / args.scales[i - 1] - 0.5) < 1e-3,
                     "spatial_scales must halve from level to level, got ", args.scales[i - 1],
                     " before ", args.scales[i]);
  }
  TILEWRIGHT_CHECK(op, args.canonical_scale > 0, "canonical_scale must be positive, got ",
                   args.canonical_scale);
}

}  // namespace

PyramidRule RoiAlignArgs::pyramid() const {
  return {int64_t(scales.size()), int64_t(std::lround(-std::log2(scales[0]))), canonical_scale,
          canonical_level};
}

at::Tensor roi_levels(const at::Tensor& rois, const PyramidRule& rule) {
  const at::Tensor boxes = rois.to(rois.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const at::Tensor side =
      ((boxes.select(1, 3) - boxes.select(1, 1)) * (boxes.select(1, 4) - boxes.select(1, 2)))
          .sqrt();
  const at::Tensor level =
      (side.div(double(rule.canonical_scale)).log2() + double(rule.canonical_level) + 1e-6)
          .floor() -
      double(rule.first_level);
  return level.nan_to_num(0).clamp(0, double(rule.levels - 1)).to(at::kLong);
}

void check_roi_align(const RoiAlignArgs& args, at::TensorList features, const at::Tensor& rois) {
  const char* op = args.op;
  TILEWRIGHT_CHECK(op, !features.empty() && features.size() <= size_t(kMaxPyramidLevels),
                   "expected 1 to ", kMaxPyramidLevels, " feature maps, got ", features.size());
  TILEWRIGHT_CHECK(op, features.size() == args.scales.size(),
                   "expected one spatial scale per feature ", "map (", features.size(), "), got ",
                   args.scales.size());
  check_arguments(args);
  for (const at::Tensor& map : features) {
    check_shape(op, "input", map, "(N, C, H, W)", 4);
    check_floating(op, "input", map);
    TILEWRIGHT_CHECK(op, map.scalar_type() == features[0].scalar_type(),
                     "feature maps must have one dtype, got ", features[0].scalar_type(), " and ",
                     map.scalar_type());
    TILEWRIGHT_CHECK(
        op,
        map.sym_size(0) == features[0].sym_size(0) && map.sym_size(1) == features[0].sym_size(1),
        "feature maps must agree in batch and channels, got ", shape_of(features[0]), " and ",
        shape_of(map));
    check_same_device(op, "the first feature map", features[0], "every feature map", map);
  }
  check_rois(op, features[0], rois, args.rotated);
}

void check_roi_align_backward(const RoiAlignArgs& args, const at::Tensor& grad,
                              const at::Tensor& rois, const c10::SymInt& channels,
                              c10::SymIntArrayRef heights, c10::SymIntArrayRef widths) {
  check_arguments(args);
  TILEWRIGHT_CHECK(args.op, heights.size() == args.scales.size() && widths.size() == heights.size(),
                   "expected a height and a width per spatial scale (", args.scales.size(),
                   "), got ", heights.size(), " and ", widths.size());
  check_pooled_grad(args.op, grad, rois, channels, args.pooled_height, args.pooled_width,
                    args.rotated);
}

at::MemoryFormat roi_align_layout(at::TensorList features) {
  return features[0].suggest_memory_format();
}

at::Tensor roi_align_output(const RoiAlignArgs& args, at::TensorList features,
                            const at::Tensor& rois) {
  return prefer_huge_pages(at::empty_symint(
      {rois.sym_size(0), features[0].sym_size(1), args.pooled_height, args.pooled_width},
      features[0].options(), roi_align_layout(features)));
}

std::vector<at::Tensor> roi_align_grad_inputs(const at::Tensor& grad, const c10::SymInt& batch,
                                              const c10::SymInt& channels,
                                              c10::SymIntArrayRef heights,
                                              c10::SymIntArrayRef widths) {
  std::vector<at::Tensor> maps;
  for (size_t i = 0; i < heights.size(); ++i) {
    maps.push_back(empty_grad_input(grad, batch, channels, heights[i], widths[i]));
  }
  return maps;
}

namespace {

at::Tensor align_meta(const RoiAlignArgs& args, at::TensorList features, const at::Tensor& rois) {
  check_roi_align(args, features, rois);
  return roi_align_output(args, features, rois);
}

std::vector<at::Tensor> align_backward_meta(const RoiAlignArgs& args, const at::Tensor& grad,
                                            const at::Tensor& rois, const c10::SymInt& batch,
                                            const c10::SymInt& channels,
                                            c10::SymIntArrayRef heights,
                                            c10::SymIntArrayRef widths) {
  check_roi_align_backward(args, grad, rois, channels, heights, widths);
  return roi_align_grad_inputs(grad, batch, channels, heights, widths);
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  RoiAlignKernels<align_meta, align_backward_meta>::add_to(m);
}

}  // namespace tilewright
