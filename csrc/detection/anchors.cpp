// Anchor grids and the flattening of predictions: schemas, checks, tensor operations.
#include "tilewright/detection/anchors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

// Half the sides of one anchor, rounded as corners are: nearbyint rounds half to even.
struct HalfSides {
  float x, y;
};

// In float32 step by step, as torchvision computes them.
HalfSides half_sides(double size, double aspect_ratio) {
  const float height_ratio = std::sqrt(static_cast<float>(aspect_ratio));
  const float width_ratio = 1.0f / height_ratio;
  const float width = width_ratio * static_cast<float>(size);
  const float height = height_ratio * static_cast<float>(size);
  return {std::nearbyint(width / 2), std::nearbyint(height / 2)};
}

// Built from scalars because a constant filled through its data pointer cannot be traced.
at::Tensor base_anchors(at::ArrayRef<double> sizes, at::ArrayRef<double> aspect_ratios,
                        at::TensorOptions options) {
  const auto on_cpu = options.device(at::kCPU);
  std::vector<at::Tensor> corners;
  for (const double ratio : aspect_ratios) {
    for (const double size : sizes) {
      const auto half = half_sides(size, ratio);
      for (const float corner : {-half.x, -half.y, half.x, half.y}) {
        corners.push_back(at::scalar_tensor(corner, on_cpu));
      }
    }
  }
  return at::stack(corners).view({-1, 4}).to(options.device(), corners[0].scalar_type(),
                                             /*non_blocking=*/true);  // (A, 4)
}

at::Tensor level_anchors(const at::Tensor& feature, const at::Tensor& base,
                         const c10::SymInt& image_height, const c10::SymInt& image_width) {
  const auto height = feature.sym_size(-2), width = feature.sym_size(-1);
  const auto counting = feature.options().dtype(at::kLong);
  const auto shift_x = at::arange(at::Scalar(width), counting) * at::Scalar(image_width / width);
  const auto shift_y = at::arange(at::Scalar(height), counting) * at::Scalar(image_height / height);
  const auto x = shift_x.unsqueeze(0).expand_symint({height, width});  // (H, W)
  const auto y = shift_y.unsqueeze(1).expand_symint({height, width});  // (H, W)
  const auto shifts = at::stack({x, y, x, y}, -1).view_symint({-1, 1, 4});
  return (shifts + base).view({-1, 4});  // (H * W * A, 4)
}

at::Tensor anchors(at::TensorList features, at::ArrayRef<double> sizes,
                   at::ArrayRef<double> aspect_ratios, c10::SymInt image_height,
                   c10::SymInt image_width) {
  constexpr auto kOp = "grid_anchors";
  const size_t levels = features.size();
  TILEWRIGHT_CHECK(kOp, levels > 0, "features must hold one map per level, got an empty list");
  const auto check_list = [&](const char* name, at::ArrayRef<double> list) {
    TILEWRIGHT_CHECK(kOp, !list.empty() && list.size() % levels == 0, name,
                     " must hold the same count for each of the ", levels, " levels, got ",
                     list.size(), " numbers");
    for (const double value : list) {
      const float used = static_cast<float>(value);
      TILEWRIGHT_CHECK(kOp, used > 0 && std::isfinite(used), name,
                       " must be positive and finite in float32, got ", value);
    }
  };
  check_list("sizes", sizes);
  check_list("aspect_ratios", aspect_ratios);
  const size_t sizes_here = sizes.size() / levels, ratios_here = aspect_ratios.size() / levels;
  const auto type = features[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> all;
  for (size_t i = 0; i < levels; ++i) {
    const auto& feature = features[i];
    TILEWRIGHT_CHECK(kOp, feature.dim() >= 2, "features[", i, "] must have shape (..., H, W), got ",
                     shape_of(feature));
    TILEWRIGHT_CHECK(kOp,
                     feature.sym_size(-2) > 0 && feature.sym_size(-1) > 0 &&
                         feature.sym_size(-2) <= image_height &&
                         feature.sym_size(-1) <= image_width,
                     "features[", i, "] must be no larger than the image (", image_height, ", ",
                     image_width, ") and not empty, got ", shape_of(feature));
    const auto base = base_anchors(sizes.slice(i * sizes_here, sizes_here),
                                   aspect_ratios.slice(i * ratios_here, ratios_here),
                                   feature.options().dtype(type));
    all.push_back(level_anchors(feature, base, image_height, image_width));
  }
  return at::cat(all);
}

at::Tensor flatten_levels(at::TensorList levels, int64_t channels) {
  constexpr auto kOp = "flatten_predictions";
  TILEWRIGHT_CHECK(kOp, !levels.empty(), "levels must hold one map per level, got an empty list");
  TILEWRIGHT_CHECK(kOp, channels > 0, "channels must be positive, got ", channels);
  std::vector<at::Tensor> rows;
  for (size_t i = 0; i < levels.size(); ++i) {
    const auto& level = levels[i];
    TILEWRIGHT_CHECK(kOp, level.dim() == 4 && level.sym_size(1) % channels == 0, "levels[", i,
                     "] must have shape (B, A * ", channels, ", H, W), got ", shape_of(level));
    rows.push_back(level
                       .unflatten(1, {-1, channels})  // (B, A, channels, H, W)
                       .permute({0, 3, 4, 1, 2})
                       .flatten(1, 3));
  }
  return at::cat(rows, 1);
}

}  // namespace

at::Tensor grid_anchors(at::TensorList features, at::ArrayRef<double> sizes,
                        at::ArrayRef<double> aspect_ratios, c10::SymInt image_height,
                        c10::SymInt image_width) {
  static const auto op = operator_handle<decltype(grid_anchors)>("tilewright::grid_anchors");
  return op.call(features, sizes, aspect_ratios, std::move(image_height), std::move(image_width));
}

at::Tensor flatten_predictions(at::TensorList levels, int64_t channels) {
  static const auto op =
      operator_handle<decltype(flatten_predictions)>("tilewright::flatten_predictions");
  return op.call(levels, channels);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "grid_anchors(Tensor[] features, float[] sizes, float[] aspect_ratios, SymInt image_height, "
      "SymInt image_width) -> Tensor",
      tags);
  m.def("flatten_predictions(Tensor[] levels, int channels) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("grid_anchors", &tilewright::anchors);
  m.impl("flatten_predictions", &tilewright::flatten_levels);
}
