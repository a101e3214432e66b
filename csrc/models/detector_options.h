// The settings that two-stage detectors share, under torchvision's names and with its defaults.
#pragma once
#include <torch/arg.h>

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// What the parts of a detector read. A model's own options are a ChainedOptions of it.
struct TILEWRIGHT_API DetectorOptions {
  // `model` names the detector in messages. num_classes counts the background, which is class 0.
  DetectorOptions(const char* model, int64_t num_classes)
      : num_classes_(num_classes), model_(model) {}

  const char* model() const { return model_; }

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
  // The fourth stage keeps the stride of the third, 16, and its 3x3 convolutions have dilation 2.
  TORCH_ARG(bool, dilate_last_stage) = false;
  // How many of the last stages have deformable convolutions (arXiv:1703.06211) in place of the 3x3
  // of a bottleneck, or the second of a basic block. Modulated: with masks (arXiv:1811.11168).
  TORCH_ARG(int64_t, deformable_stages) = 0;
  TORCH_ARG(bool, modulated_deformation) = false;

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

 private:
  const char* model_;
};

// X(name) for each of them but num_classes.
#define TILEWRIGHT_DETECTOR_OPTIONS(X) \
  X(min_size)                          \
  X(max_size)                          \
  X(image_mean)                        \
  X(image_std)                         \
  X(resnet_depth)                      \
  X(frozen_batch_norm)                 \
  X(batch_norm_eps)                    \
  X(trainable_backbone_layers)         \
  X(dilate_last_stage)                 \
  X(deformable_stages)                 \
  X(modulated_deformation)             \
  X(anchor_sizes)                      \
  X(aspect_ratios)                     \
  X(rpn_pre_nms_top_n_train)           \
  X(rpn_pre_nms_top_n_test)            \
  X(rpn_post_nms_top_n_train)          \
  X(rpn_post_nms_top_n_test)           \
  X(rpn_nms_thresh)                    \
  X(rpn_fg_iou_thresh)                 \
  X(rpn_bg_iou_thresh)                 \
  X(rpn_batch_size_per_image)          \
  X(rpn_positive_fraction)             \
  X(rpn_score_thresh)                  \
  X(box_score_thresh)                  \
  X(box_nms_thresh)                    \
  X(box_detections_per_img)            \
  X(box_fg_iou_thresh)                 \
  X(box_bg_iou_thresh)                 \
  X(box_batch_size_per_image)          \
  X(box_positive_fraction)             \
  X(bbox_reg_weights)

// DetectorOptions whose setters return the options of the model, so that calls chain.
template <class Model>
struct ChainedOptions : DetectorOptions {
  using DetectorOptions::DetectorOptions;

#define TILEWRIGHT_CHAINED_OPTION(name)                                                \
  const auto& name() const { return DetectorOptions::name(); }                         \
  auto& name() { return DetectorOptions::name(); }                                     \
  Model& name(std::decay_t<decltype(std::declval<DetectorOptions&>().name())> value) { \
    DetectorOptions::name(std::move(value));                                           \
    return static_cast<Model&>(*this);                                                 \
  }
  TILEWRIGHT_CHAINED_OPTION(num_classes)
  TILEWRIGHT_DETECTOR_OPTIONS(TILEWRIGHT_CHAINED_OPTION)
#undef TILEWRIGHT_CHAINED_OPTION
};

// Calls visit(name, value) for each of them but num_classes.
template <class Visit>
void for_each_option(DetectorOptions& options, Visit&& visit) {
#define TILEWRIGHT_VISIT_OPTION(name) visit(#name, options.name());
  TILEWRIGHT_DETECTOR_OPTIONS(TILEWRIGHT_VISIT_OPTION)
#undef TILEWRIGHT_VISIT_OPTION
}
#undef TILEWRIGHT_DETECTOR_OPTIONS

// For the parts of models' check_options: throw, naming the model and the option.
TILEWRIGHT_API void check_shared_options(const DetectorOptions& options);
// Beside a backbone of the caller's: what is of the default one would have no effect.
TILEWRIGHT_API void check_own_backbone(const DetectorOptions& options);
TILEWRIGHT_API void check_positive(const DetectorOptions& options, const char* name, int64_t value);

}  // namespace tilewright
