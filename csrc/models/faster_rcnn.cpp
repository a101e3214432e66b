// The whole detector: images in, losses or detections out.
#include "tilewright/models/faster_rcnn.h"

#include "tilewright/core/check.h"
#include "tilewright/detection/boxes.h"
#include "tilewright/models/detection_inputs.h"
#include "tilewright/models/feature_pyramid.h"
#include "tilewright/models/resnet_backbone.h"

namespace tilewright {
namespace {

const FasterRCNNOptions& checked(const FasterRCNNOptions& options) {
  check_options(options);
  return options;
}

const std::shared_ptr<DetectionBackboneImpl>& checked(
    const std::shared_ptr<DetectionBackboneImpl>& backbone) {
  TILEWRIGHT_CHECK(kFasterRCNN, backbone != nullptr, "backbone must not be null");
  return backbone;
}

std::shared_ptr<DetectionBackboneImpl> default_backbone(const FasterRCNNOptions& options) {
  const int64_t level = options.feature_level();
  const auto resnet =
      ResNetOptions(options.resnet_depth())
          .stages(level == 0 ? 4 : level)
          .norm(
              BatchNormOptions().frozen(options.frozen_batch_norm()).eps(options.batch_norm_eps()))
          .trainable_layers(options.trainable_backbone_layers());
  if (level > 0) return std::make_shared<ResNetBackboneImpl>(resnet);
  return std::make_shared<ResNetFpnBackboneImpl>(resnet, options.fpn_channels());
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
    int64_t num_classes) {
  TILEWRIGHT_CHECK(kFasterRCNN, targets.has_value(), "targets must be given in training mode");
  TILEWRIGHT_CHECK(kFasterRCNN, targets->size() == images.size(),
                   "targets must have one entry for each of ", images.size(), " images, got ",
                   targets->size());
  std::vector<torch::Tensor> boxes, labels;
  for (size_t i = 0; i < targets->size(); ++i) {
    const auto& target = (*targets)[i];
    TILEWRIGHT_CHECK(kFasterRCNN, target.boxes.defined() && target.labels.defined(), "targets[", i,
                     "] must have boxes and labels");
    boxes.push_back(target.boxes);
    labels.push_back(target.labels);
  }
  boxes = prepare_targets(boxes, labels, images, resized, num_classes);
  std::vector<DetectionTarget> carried;
  for (size_t i = 0; i < boxes.size(); ++i) carried.push_back({boxes[i], labels[i]});
  return carried;
}

}  // namespace

FasterRCNNImpl::FasterRCNNImpl(const FasterRCNNOptions& options)
    : FasterRCNNImpl(default_backbone(checked(options)), options) {}

FasterRCNNImpl::FasterRCNNImpl(const std::shared_ptr<DetectionBackboneImpl>& backbone,
                               const FasterRCNNOptions& options)
    : options_(checked(options)),
      backbone_(checked(backbone)),
      rpn_(backbone_->out_channels(), backbone_->num_levels(), options),
      roi_heads_(backbone_->out_channels(), backbone_->roi_strides(), options) {
  register_module("backbone", backbone_);
  register_module("rpn", rpn_);
  register_module("roi_heads", roi_heads_);
}

DetectionOutput FasterRCNNImpl::forward(
    const std::vector<torch::Tensor>& images,
    const std::optional<std::vector<DetectionTarget>>& targets) {
  const auto resized = resize_images(images, options_.image_mean(), options_.image_std(),
                                     options_.min_size(), options_.max_size(), rpn_->weight());
  std::vector<DetectionTarget> carried;
  std::vector<torch::Tensor> gt_boxes;
  if (is_training()) {
    carried = carried_targets(targets, images, resized, options_.num_classes());
    for (const auto& target : carried) gt_boxes.push_back(target.boxes);
  }
  const auto batch = pad_images(resized);  // (B, 3, H, W)
  const auto sizes = sizes_of(resized);
  const auto features = backbone_->forward(batch);
  auto proposed = rpn_(features, sizes, ImageSize{batch.size(2), batch.size(3)}, gt_boxes);
  auto headed = roi_heads_(features, proposed.proposals, sizes, carried);

  DetectionOutput out{std::move(headed.losses), std::move(headed.detections)};
  for (const auto& loss : proposed.losses) out.losses.insert(loss.key(), loss.value());
  for (size_t i = 0; i < out.detections.size(); ++i) {
    auto& boxes = out.detections[i].boxes;
    boxes = resize_boxes(boxes, {resized[i].size(-2), resized[i].size(-1)},
                         {images[i].size(-2), images[i].size(-1)});
  }
  return out;
}

void FasterRCNNImpl::fold_batch_norm() {
  TILEWRIGHT_CHECK(kFasterRCNN, !is_training(),
                   "fold_batch_norm is for inference: call eval() first");
  backbone_->fold_batch_norm();
  folded_ = true;
}

void FasterRCNNImpl::train(bool on) {
  TILEWRIGHT_CHECK(kFasterRCNN, !(on && folded_),
                   "batch norm was folded into the convolutions: this model cannot train any more");
  Module::train(on);
}

}  // namespace tilewright
