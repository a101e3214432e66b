// What the shared options may be: one rule and one message for C++ modules and their twins.
#include "tilewright/models/detector_options.h"

#include <cmath>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

void check_share(const DetectorOptions& options, const char* name, double value) {
  TILEWRIGHT_CHECK(options.model(), value >= 0 && value <= 1, name, " must lie in [0, 1], got ",
                   value);
}

void check_positive(const DetectorOptions& options, const char* name, at::ArrayRef<double> values) {
  for (const double value : values) {
    const float used = static_cast<float>(value);
    TILEWRIGHT_CHECK(options.model(), std::isfinite(used) && used > 0, name,
                     " must hold positive numbers (of float32), got ", values);
  }
}

void check_thresholds(const DetectorOptions& options, const char* prefix, double foreground,
                      double background) {
  TILEWRIGHT_CHECK(options.model(), background >= 0 && background <= foreground && foreground <= 1,
                   prefix, "_bg_iou_thresh and ", prefix,
                   "_fg_iou_thresh must lie in [0, 1], the first not above the second, got ",
                   background, " and ", foreground);
}

void check_images(const DetectorOptions& options) {
  check_positive(options, "min_size", options.min_size());
  check_positive(options, "max_size", options.max_size());
  const at::ArrayRef<double> mean = options.image_mean(), deviation = options.image_std();
  TILEWRIGHT_CHECK(options.model(), !mean.empty() && mean.size() == deviation.size(),
                   "image_mean and image_std must hold a number for each channel, got ", mean,
                   " and ", deviation);
  for (const double value : mean) {
    TILEWRIGHT_CHECK(options.model(), std::isfinite(value), "image_mean must be finite, got ",
                     mean);
  }
  check_positive(options, "image_std", deviation);
}

void check_backbone(const DetectorOptions& options) {
  const double eps = options.batch_norm_eps();
  TILEWRIGHT_CHECK(options.model(), std::isfinite(eps) && eps >= 0,
                   "batch_norm_eps must not be negative, and finite, got ", eps);
  TILEWRIGHT_CHECK(options.model(),
                   !options.modulated_deformation() || options.deformable_stages() != 0,
                   "modulated_deformation needs deformable_stages, got 0");
}

void check_anchors(const DetectorOptions& options) {
  const auto& sizes = options.anchor_sizes();
  TILEWRIGHT_CHECK(options.model(), !sizes.empty(), "anchor_sizes must not be empty");
  for (const auto& level : sizes) {
    TILEWRIGHT_CHECK(options.model(), !level.empty() && level.size() == sizes[0].size(),
                     "anchor_sizes must have as many sizes at each level, got ", level.size(),
                     " beside ", sizes[0].size());
    check_positive(options, "anchor_sizes", level);
  }
  TILEWRIGHT_CHECK(options.model(), !options.aspect_ratios().empty(),
                   "aspect_ratios must not be empty");
  check_positive(options, "aspect_ratios", options.aspect_ratios());
}

void check_proposals(const DetectorOptions& options) {
  check_positive(options, "rpn_pre_nms_top_n_train", options.rpn_pre_nms_top_n_train());
  check_positive(options, "rpn_pre_nms_top_n_test", options.rpn_pre_nms_top_n_test());
  check_positive(options, "rpn_post_nms_top_n_train", options.rpn_post_nms_top_n_train());
  check_positive(options, "rpn_post_nms_top_n_test", options.rpn_post_nms_top_n_test());
  check_share(options, "rpn_nms_thresh", options.rpn_nms_thresh());
  check_thresholds(options, "rpn", options.rpn_fg_iou_thresh(), options.rpn_bg_iou_thresh());
  check_positive(options, "rpn_batch_size_per_image", options.rpn_batch_size_per_image());
  check_share(options, "rpn_positive_fraction", options.rpn_positive_fraction());
  TILEWRIGHT_CHECK(options.model(), !std::isnan(options.rpn_score_thresh()),
                   "rpn_score_thresh must be a number, got nan");
}

void check_box_head(const DetectorOptions& options) {
  TILEWRIGHT_CHECK(options.model(), !std::isnan(options.box_score_thresh()),
                   "box_score_thresh must be a number, got nan");
  check_share(options, "box_nms_thresh", options.box_nms_thresh());
  check_positive(options, "box_detections_per_img", options.box_detections_per_img());
  check_thresholds(options, "box", options.box_fg_iou_thresh(), options.box_bg_iou_thresh());
  check_positive(options, "box_batch_size_per_image", options.box_batch_size_per_image());
  check_share(options, "box_positive_fraction", options.box_positive_fraction());
  TILEWRIGHT_CHECK(options.model(), options.bbox_reg_weights().size() == 4,
                   "bbox_reg_weights must be four numbers, got ",
                   options.bbox_reg_weights().size());
  check_positive(options, "bbox_reg_weights", options.bbox_reg_weights());
}

}  // namespace

void check_positive(const DetectorOptions& options, const char* name, int64_t value) {
  TILEWRIGHT_CHECK(options.model(), value > 0, name, " must be positive, got ", value);
}

void check_own_backbone(const DetectorOptions& options) {
  TILEWRIGHT_CHECK(options.model(), options.deformable_stages() == 0,
                   "deformable_stages is the default backbone's, got ", options.deformable_stages(),
                   " beside a backbone");
}

void check_shared_options(const DetectorOptions& options) {
  TILEWRIGHT_CHECK(options.model(), options.num_classes() >= 2,
                   "num_classes counts the background and must be at least 2, got ",
                   options.num_classes());
  check_images(options);
  check_backbone(options);
  check_anchors(options);
  check_proposals(options);
  check_box_head(options);
}

}  // namespace tilewright
