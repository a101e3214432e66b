// What Faster R-CNN's options may be: one rule and one message for the C++ module and its twin.
#include "tilewright/models/faster_rcnn_options.h"

#include <cmath>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

void check_positive(const char* name, int64_t value) {
  TILEWRIGHT_CHECK(kFasterRCNN, value > 0, name, " must be positive, got ", value);
}

void check_share(const char* name, double value) {
  TILEWRIGHT_CHECK(kFasterRCNN, value >= 0 && value <= 1, name, " must lie in [0, 1], got ", value);
}

void check_positive(const char* name, at::ArrayRef<double> values) {
  for (const double value : values) {
    const float used = static_cast<float>(value);
    TILEWRIGHT_CHECK(kFasterRCNN, std::isfinite(used) && used > 0, name,
                     " must hold positive numbers (of float32), got ", values);
  }
}

void check_thresholds(const char* prefix, double foreground, double background) {
  TILEWRIGHT_CHECK(kFasterRCNN, background >= 0 && background <= foreground && foreground <= 1,
                   prefix, "_bg_iou_thresh and ", prefix,
                   "_fg_iou_thresh must lie in [0, 1], the first not above the second, got ",
                   background, " and ", foreground);
}

void check_images(const FasterRCNNOptions& options) {
  check_positive("min_size", options.min_size());
  check_positive("max_size", options.max_size());
  const at::ArrayRef<double> mean = options.image_mean(), deviation = options.image_std();
  TILEWRIGHT_CHECK(kFasterRCNN, !mean.empty() && mean.size() == deviation.size(),
                   "image_mean and image_std must hold a number for each channel, got ", mean,
                   " and ", deviation);
  for (const double value : mean) {
    TILEWRIGHT_CHECK(kFasterRCNN, std::isfinite(value), "image_mean must be finite, got ", mean);
  }
  check_positive("image_std", deviation);
}

void check_backbone(const FasterRCNNOptions& options) {
  const double eps = options.batch_norm_eps();
  TILEWRIGHT_CHECK(kFasterRCNN, std::isfinite(eps) && eps >= 0,
                   "batch_norm_eps must not be negative, and finite, got ", eps);
  const int64_t level = options.feature_level();
  TILEWRIGHT_CHECK(kFasterRCNN, level >= 0 && level <= 4,
                   "feature_level must be 0 (a pyramid) or a stage from 1 to 4, got ", level);
  check_positive("fpn_channels", options.fpn_channels());
}

void check_anchors(const FasterRCNNOptions& options) {
  const auto& sizes = options.anchor_sizes();
  TILEWRIGHT_CHECK(kFasterRCNN, !sizes.empty(), "anchor_sizes must not be empty");
  for (const auto& level : sizes) {
    TILEWRIGHT_CHECK(kFasterRCNN, !level.empty() && level.size() == sizes[0].size(),
                     "anchor_sizes must have as many sizes at each level, got ", level.size(),
                     " beside ", sizes[0].size());
    check_positive("anchor_sizes", level);
  }
  TILEWRIGHT_CHECK(kFasterRCNN, !options.aspect_ratios().empty(),
                   "aspect_ratios must not be empty");
  check_positive("aspect_ratios", options.aspect_ratios());
}

void check_proposals(const FasterRCNNOptions& options) {
  check_positive("rpn_pre_nms_top_n_train", options.rpn_pre_nms_top_n_train());
  check_positive("rpn_pre_nms_top_n_test", options.rpn_pre_nms_top_n_test());
  check_positive("rpn_post_nms_top_n_train", options.rpn_post_nms_top_n_train());
  check_positive("rpn_post_nms_top_n_test", options.rpn_post_nms_top_n_test());
  check_share("rpn_nms_thresh", options.rpn_nms_thresh());
  check_thresholds("rpn", options.rpn_fg_iou_thresh(), options.rpn_bg_iou_thresh());
  check_positive("rpn_batch_size_per_image", options.rpn_batch_size_per_image());
  check_share("rpn_positive_fraction", options.rpn_positive_fraction());
  TILEWRIGHT_CHECK(kFasterRCNN, !std::isnan(options.rpn_score_thresh()),
                   "rpn_score_thresh must be a number, got nan");
}

void check_box_head(const FasterRCNNOptions& options) {
  check_positive("representation_size", options.representation_size());
  TILEWRIGHT_CHECK(kFasterRCNN, !std::isnan(options.box_score_thresh()),
                   "box_score_thresh must be a number, got nan");
  check_share("box_nms_thresh", options.box_nms_thresh());
  check_positive("box_detections_per_img", options.box_detections_per_img());
  check_thresholds("box", options.box_fg_iou_thresh(), options.box_bg_iou_thresh());
  check_positive("box_batch_size_per_image", options.box_batch_size_per_image());
  check_share("box_positive_fraction", options.box_positive_fraction());
  TILEWRIGHT_CHECK(kFasterRCNN, options.bbox_reg_weights().size() == 4,
                   "bbox_reg_weights must be four numbers, got ",
                   options.bbox_reg_weights().size());
  check_positive("bbox_reg_weights", options.bbox_reg_weights());
}

}  // namespace

void check_options(const FasterRCNNOptions& options) {
  TILEWRIGHT_CHECK(kFasterRCNN, options.num_classes() >= 2,
                   "num_classes counts the background and must be at least 2, got ",
                   options.num_classes());
  check_images(options);
  check_backbone(options);
  check_anchors(options);
  check_proposals(options);
  check_box_head(options);
}

}  // namespace tilewright
