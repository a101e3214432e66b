// The way of images through a detector of two stages.
#include "tilewright/models/two_stage_detector.h"

#include "tilewright/core/check.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/models/detection_inputs.h"

namespace tilewright {
namespace {

const std::shared_ptr<DetectionBackboneImpl>& given(
    const std::shared_ptr<DetectionBackboneImpl>& backbone, const DetectorOptions& options) {
  TILEWRIGHT_CHECK(options.model(), backbone != nullptr, "backbone must not be null");
  return backbone;
}

std::vector<ImageSize> sizes_of(const std::vector<torch::Tensor>& images) {
  std::vector<ImageSize> sizes;
  for (const auto& image : images) sizes.push_back({image.size(-2), image.size(-1)});
  return sizes;
}

// Targets in pixels of the resized images; raises for what cannot be trained on.
std::vector<DetectionTarget> carried_targets(
    const std::optional<std::vector<DetectionTarget>>& targets,
    const std::vector<torch::Tensor>& images, const std::vector<torch::Tensor>& resized,
    const DetectorOptions& options) {
  TILEWRIGHT_CHECK(options.model(), targets.has_value(), "targets must be given in training mode");
  TILEWRIGHT_CHECK(options.model(), targets->size() == images.size(),
                   "targets must have one entry for each of ", images.size(), " images, got ",
                   targets->size());
  std::vector<torch::Tensor> boxes, labels;
  for (size_t i = 0; i < targets->size(); ++i) {
    const auto& target = (*targets)[i];
    TILEWRIGHT_CHECK(options.model(), target.boxes.defined() && target.labels.defined(), "targets[",
                     i, "] must have boxes and labels");
    boxes.push_back(target.boxes);
    labels.push_back(target.labels);
  }
  boxes = prepare_targets(boxes, labels, images, resized, options.num_classes());
  std::vector<DetectionTarget> carried;
  for (size_t i = 0; i < boxes.size(); ++i) carried.push_back({boxes[i], labels[i]});
  return carried;
}

}  // namespace

TwoStageDetectorImpl::TwoStageDetectorImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                                           const DetectorOptions& options)
    : options_(options),
      backbone_(given(backbone, options)),
      rpn_(backbone_->out_channels(), backbone_->num_levels(), options) {
  register_module("backbone", backbone_);
  register_module("rpn", rpn_);
}

void TwoStageDetectorImpl::add_roi_heads(const std::shared_ptr<BoxHeadsImpl>& heads) {
  roi_heads_ = register_module("roi_heads", heads);
}

DetectionOutput TwoStageDetectorImpl::forward(
    const std::vector<torch::Tensor>& images,
    const std::optional<std::vector<DetectionTarget>>& targets) {
  const auto resized = resize_images(images, options_.image_mean(), options_.image_std(),
                                     options_.min_size(), options_.max_size(), rpn_->weight());
  std::vector<DetectionTarget> carried;
  std::vector<torch::Tensor> gt_boxes;
  if (is_training()) {
    carried = carried_targets(targets, images, resized, options_);
    for (const auto& target : carried) gt_boxes.push_back(target.boxes);
  }
  const auto batch = pad_images(resized);  // (B, 3, H, W)
  const auto sizes = sizes_of(resized);
  const auto features = backbone_->forward(batch);
  auto levels = features;
  if (levels.size() > backbone_->num_levels()) levels.resize(backbone_->num_levels());
  auto proposed = rpn_(levels, sizes, ImageSize{batch.size(2), batch.size(3)}, gt_boxes);
  auto headed = roi_heads_->forward(features, proposed.proposals, sizes, carried);

  DetectionOutput out{std::move(headed.losses), std::move(headed.detections)};
  for (const auto& loss : proposed.losses) out.losses.insert(loss.key(), loss.value());
  for (size_t i = 0; i < out.detections.size(); ++i) {
    auto& boxes = out.detections[i].boxes;
    boxes = resize_boxes(boxes, {resized[i].size(-2), resized[i].size(-1)},
                         {images[i].size(-2), images[i].size(-1)});
  }
  return out;
}

void TwoStageDetectorImpl::fold_batch_norm() {
  TILEWRIGHT_CHECK(options_.model(), !is_training(),
                   "fold_batch_norm is for inference: call eval() first");
  backbone_->fold_batch_norm();
  folded_ = true;
}

void TwoStageDetectorImpl::train(bool on) {
  TILEWRIGHT_CHECK(options_.model(), !(on && folded_),
                   "batch norm was folded into the convolutions: this model cannot train any more");
  Module::train(on);
}

ResNetOptions resnet_options(const DetectorOptions& options) {
  return ResNetOptions(options.resnet_depth())
      .norm(BatchNormOptions().frozen(options.frozen_batch_norm()).eps(options.batch_norm_eps()))
      .trainable_layers(options.trainable_backbone_layers())
      .dilate_last_stage(options.dilate_last_stage())
      .deformable_stages(options.deformable_stages())
      .modulated(options.modulated_deformation());
}

}  // namespace tilewright
