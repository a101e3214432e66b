// Every setting of Faster R-CNN, under torchvision's names and with its defaults.
#pragma once
#include <torch/arg.h>

#include <cstdint>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

inline constexpr const char* kFasterRCNN = "FasterRCNN";  // in messages

// Use it like other LibTorch options: FasterRCNNOptions(21).min_size(600).box_nms_thresh(0.4).
struct TILEWRIGHT_API FasterRCNNOptions {
  // num_classes counts the background, which is class 0.
  FasterRCNNOptions(int64_t num_classes) : num_classes_(num_classes) {}  // NOLINT(runtime/explicit)

  TORCH_ARG(int64_t, num_classes);

  // Images: normalised with image_mean and image_std, then resized so that the shorter side is
  // min_size, or less where the longer side would exceed max_size.
  TORCH_ARG(int64_t, min_size) = 800;
  TORCH_ARG(int64_t, max_size) = 1333;
  TORCH_ARG(std::vector<double>, image_mean) = {0.485, 0.456, 0.406};
  TORCH_ARG(std::vector<double>, image_std) = {0.229, 0.224, 0.225};

  // The default backbone: a ResNet of 18, 34, 50 or 101 layers.
  TORCH_ARG(int64_t, resnet_depth) = 18;
  // Batch norm with fixed weights and statistics (torchvision's FrozenBatchNorm2d). What is added
  // to the variance: 0 for torchvision's first COCO weights of a ResNet-50.
  TORCH_ARG(bool, frozen_batch_norm) = false;
  TORCH_ARG(double, batch_norm_eps) = 1e-5;
  // How many of its stem and four stages learn, counted from the last.
  TORCH_ARG(int64_t, trainable_backbone_layers) = 5;
  // 0: a feature pyramid of fpn_channels over all stages. 1 to 4: the map of this stage alone, of
  // stride 4, 8, 16 or 32; anchor_sizes is one list then.
  TORCH_ARG(int64_t, feature_level) = 0;
  TORCH_ARG(int64_t, fpn_channels) = 256;

  // Width of the box head.
  TORCH_ARG(int64_t, representation_size) = 1024;

  // Anchors: side lengths in pixels per level, and ratios height / width, the same at each level.
  TORCH_ARG(std::vector<std::vector<double>>, anchor_sizes) = {{32}, {64}, {128}, {256}, {512}};
  TORCH_ARG(std::vector<double>, aspect_ratios) = {0.5, 1.0, 2.0};

  // Region proposals: how many are kept before and after non-maximum suppression.
  TORCH_ARG(int64_t, rpn_pre_nms_top_n_train) = 2000;
  TORCH_ARG(int64_t, rpn_pre_nms_top_n_test) = 1000;
  TORCH_ARG(int64_t, rpn_post_nms_top_n_train) = 2000;
  TORCH_ARG(int64_t, rpn_post_nms_top_n_test) = 1000;
  TORCH_ARG(double, rpn_nms_thresh) = 0.7;
  // An anchor is positive from rpn_fg_iou_thresh on, negative below rpn_bg_iou_thresh.
  TORCH_ARG(double, rpn_fg_iou_thresh) = 0.7;
  TORCH_ARG(double, rpn_bg_iou_thresh) = 0.3;
  // Anchors per image that enter the losses, and the largest share of positives among them.
  TORCH_ARG(int64_t, rpn_batch_size_per_image) = 256;
  TORCH_ARG(double, rpn_positive_fraction) = 0.5;
  TORCH_ARG(double, rpn_score_thresh) = 0.0;

  // Detections: lowest score, overlap above which the worse of two is dropped, count per image.
  TORCH_ARG(double, box_score_thresh) = 0.05;
  TORCH_ARG(double, box_nms_thresh) = 0.5;
  TORCH_ARG(int64_t, box_detections_per_img) = 100;
  // The box head's training sample, as for the proposals.
  TORCH_ARG(double, box_fg_iou_thresh) = 0.5;
  TORCH_ARG(double, box_bg_iou_thresh) = 0.5;
  TORCH_ARG(int64_t, box_batch_size_per_image) = 512;
  TORCH_ARG(double, box_positive_fraction) = 0.25;
  // Weights of (dx, dy, dw, dh) in the box head's regression.
  TORCH_ARG(std::vector<double>, bbox_reg_weights) = {10.0, 10.0, 5.0, 5.0};
};

// Throws, naming the option, where a value cannot serve any backbone.
TILEWRIGHT_API void check_options(const FasterRCNNOptions& options);

}  // namespace tilewright
