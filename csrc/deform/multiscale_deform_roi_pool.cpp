// Deformable RoI pooling over a feature pyramid: level by level.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "tilewright/core/data_at_hand.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/deform/deform_pool_args.h"
#include "tilewright/deform/deform_roi_pool.h"
#include "tilewright/detection/multiscale_roi_align.h"
#include "tilewright/detection/roi_align_levels.h"

namespace tilewright {
namespace {

using at::Tensor;

Tensor composed(at::TensorList features, const Tensor& rois, const std::optional<Tensor>& offset,
                at::ArrayRef<double> spatial_scales, int64_t pooled_height, int64_t pooled_width,
                int64_t sampling_ratio, double gamma, int64_t canonical_scale,
                int64_t canonical_level) {
  const RoiAlignArgs args{"multiscale_deform_roi_pool",
                          spatial_scales.vec(),
                          pooled_height,
                          pooled_width,
                          sampling_ratio,
                          /*aligned=*/true,
                          canonical_scale,
                          canonical_level};
  check_roi_align(args, features, rois);
  const std::array<int64_t, 2> bins{pooled_height, pooled_width};
  const DeformPoolArgs first{spatial_scales[0], bins, bins, 1, sampling_ratio, gamma, false};
  if (!offset.has_value()) {
    check_unmoved_pool(first, features[0], rois);
    check_images(args.op, features[0], rois);
    return multiscale_roi_align(features, rois, spatial_scales, pooled_height, pooled_width,
                                sampling_ratio, args.aligned, canonical_scale, canonical_level);
  }
  check_deform_pool(first, features[0], rois, *offset);
  check_images(args.op, features[0], rois);  // below boxes have other numbers
  const auto pool = [&](size_t level, const Tensor& boxes, const Tensor& moves) {
    return deform_roi_pool(features[level], boxes, moves, spatial_scales[level], pooled_height,
                           pooled_width, sampling_ratio, gamma);
  };
  if (features.size() == 1) return pool(0, rois, *offset);
  const Tensor levels = roi_levels(rois, args.pyramid());
  if (is_traced(rois)) {  // each level pools all boxes, those of others as boxes that are none
    Tensor sum;
    for (size_t level = 0; level < features.size(); ++level) {
      const Tensor others = levels.ne(int64_t(level)).unsqueeze(1);
      const Tensor boxes = at::cat(
          {rois.narrow(1, 0, 1), rois.narrow(1, 1, 4).masked_fill(others, std::nan(""))}, 1);
      const Tensor part = pool(level, boxes, *offset);
      sum = sum.defined() ? sum + part : part;
    }
    return sum;
  }
  std::vector<Tensor> places, parts;
  for (size_t level = 0; level < features.size(); ++level) {
    places.push_back(levels.eq(int64_t(level)).nonzero().squeeze(1));
    parts.push_back(
        pool(level, rois.index_select(0, places.back()), offset->index_select(0, places.back())));
  }
  return at::cat(parts).index_select(0, at::cat(places).argsort());
}

}  // namespace

Tensor multiscale_deform_roi_pool(at::TensorList features, const Tensor& rois,
                                  const std::optional<Tensor>& offset,
                                  at::ArrayRef<double> spatial_scales, int64_t pooled_height,
                                  int64_t pooled_width, int64_t sampling_ratio, double gamma,
                                  int64_t canonical_scale, int64_t canonical_level) {
  static const auto op = operator_handle<decltype(multiscale_deform_roi_pool)>(
      "tilewright::multiscale_deform_roi_pool");
  return op.call(features, rois, offset, spatial_scales, pooled_height, pooled_width,
                 sampling_ratio, gamma, canonical_scale, canonical_level);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "multiscale_deform_roi_pool(Tensor[] features, Tensor rois, Tensor? offset, "
      "float[] spatial_scales, int pooled_height, int pooled_width, int sampling_ratio=-1, "
      "float gamma=0.1, int canonical_scale=224, int canonical_level=4) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("multiscale_deform_roi_pool", &composed);
}

}  // namespace tilewright
