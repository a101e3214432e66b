// The region proposal network: head, proposals, and the losses that train it.
#include "tilewright/models/rpn.h"

#include <torch/nn/functional/loss.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/modulelist.h>

#include <algorithm>

#include "tilewright/core/check.h"
#include "tilewright/detection/anchors.h"
#include "tilewright/detection/box_coder.h"
#include "tilewright/detection/matcher.h"
#include "tilewright/detection/proposals.h"
#include "tilewright/detection/sampler.h"
#include "tilewright/models/detection_losses.h"
#include "tilewright/models/gather_patches.h"

namespace tilewright {
namespace {

torch::nn::Conv2d convolution(int64_t in_channels, int64_t out_channels, int64_t kernel) {
  torch::nn::Conv2d layer(
      torch::nn::Conv2dOptions(in_channels, out_channels, kernel).padding(kernel / 2));
  torch::nn::init::normal_(layer->weight, /*mean=*/0, /*std=*/0.01);
  torch::nn::init::zeros_(layer->bias);
  return layer;
}

int64_t anchors_per_cell(const DetectorOptions& options, int64_t num_levels) {
  const auto& sizes = options.anchor_sizes();
  TILEWRIGHT_CHECK(options.model(), static_cast<int64_t>(sizes.size()) == num_levels,
                   "anchor_sizes must have one list for each of the ", num_levels, " levels, got ",
                   sizes.size());
  return static_cast<int64_t>(sizes[0].size() * options.aspect_ratios().size());
}

}  // namespace

RpnHeadImpl::RpnHeadImpl(int64_t channels, int64_t num_anchors)
    : conv_(convolution(channels, channels, 3), torch::nn::ReLU(/*inplace=*/true)),
      cls_logits_(convolution(channels, num_anchors, 1)),
      bbox_pred_(convolution(channels, num_anchors * 4, 1)) {
  register_module("conv", torch::nn::ModuleList(conv_));  // "conv.0.0.weight", as in torchvision
  register_module("cls_logits", cls_logits_);
  register_module("bbox_pred", bbox_pred_);
}

RpnHeadImpl::Output RpnHeadImpl::forward(const std::vector<torch::Tensor>& features) {
  Output out;
  for (const auto& feature : features) {
    const auto hidden = conv_->forward(feature);
    out.objectness.push_back(cls_logits_(hidden));
    out.deltas.push_back(bbox_pred_(hidden));
  }
  return out;
}

std::pair<torch::Tensor, torch::Tensor> RpnHeadImpl::predict(
    const std::vector<torch::Tensor>& features, const torch::Tensor& anchors, int64_t with_deltas) {
  const int64_t per_cell = cls_logits_->options.out_channels();
  const auto& conv = *conv_->ptr<torch::nn::Conv2dImpl>(0);
  const auto cells = anchors.floor_divide(per_cell);
  const auto which = anchors.remainder(per_cell);
  const auto hidden =
      torch::linear(gather_patches(features, cells), conv.weight.permute({0, 2, 3, 1}).flatten(1),
                    conv.bias)
          .relu_();  // (N, channels)
  const auto logits = torch::linear(hidden, cls_logits_->weight.flatten(1), cls_logits_->bias)
                          .gather(1, which.unsqueeze(1))
                          .squeeze(1);
  const auto row = torch::arange(with_deltas, anchors.options()) * per_cell;
  const auto deltas = torch::linear(hidden.narrow(0, 0, with_deltas), bbox_pred_->weight.flatten(1),
                                    bbox_pred_->bias)
                          .view({-1, 4})
                          .index_select(0, row + which.narrow(0, 0, with_deltas));
  return {logits, deltas};
}

RegionProposalNetworkImpl::RegionProposalNetworkImpl(int64_t channels, int64_t num_levels,
                                                     DetectorOptions options)
    : options_(std::move(options)), head_(channels, anchors_per_cell(options_, num_levels)) {
  register_module("head", head_);
  const auto& ratios = options_.aspect_ratios();
  for (const auto& sizes : options_.anchor_sizes()) {
    anchor_sizes_.insert(anchor_sizes_.end(), sizes.begin(), sizes.end());
    aspect_ratios_.insert(aspect_ratios_.end(), ratios.begin(), ratios.end());
  }
}

RegionProposalNetworkImpl::Output RegionProposalNetworkImpl::forward(
    const std::vector<torch::Tensor>& features, const std::vector<ImageSize>& image_sizes,
    ImageSize batch, const std::vector<torch::Tensor>& gt_boxes) {
  const auto predictions = head_(features);
  // Proposals are data: the losses ask the head again, where they sampled.
  const auto objectness =
      flatten_predictions(predictions.objectness, 1).squeeze(-1).detach();  // (B, N)
  const auto deltas = flatten_predictions(predictions.deltas, 4).detach();  // (B, N, 4)
  const auto anchors =
      grid_anchors(features, anchor_sizes_, aspect_ratios_, batch.height, batch.width);  // (N, 4)
  std::vector<c10::SymInt> level_sizes;
  for (const auto& level : predictions.objectness) {
    level_sizes.emplace_back(level.size(1) * level.size(2) * level.size(3));
  }
  Output out;
  for (size_t i = 0; i < image_sizes.size(); ++i) {
    out.proposals.push_back(std::get<0>(generate_proposals(
        objectness[i], deltas[i], anchors, level_sizes, image_sizes[i].height, image_sizes[i].width,
        is_training() ? options_.rpn_pre_nms_top_n_train() : options_.rpn_pre_nms_top_n_test(),
        is_training() ? options_.rpn_post_nms_top_n_train() : options_.rpn_post_nms_top_n_test(),
        options_.rpn_nms_thresh(), options_.rpn_score_thresh())));
  }
  if (is_training()) out.losses = losses(features, anchors, gt_boxes);
  return out;
}

NamedLosses RegionProposalNetworkImpl::losses(const std::vector<torch::Tensor>& features,
                                              const torch::Tensor& anchors,
                                              const std::vector<torch::Tensor>& gt_boxes) {
  std::vector<torch::Tensor> labels, matched, positives, negatives;
  for (const auto& boxes : gt_boxes) {
    const auto object = torch::ones({boxes.size(0)}, boxes.options().dtype(torch::kLong));
    const auto [label, match] = assign_targets(
        boxes.to(anchors.scalar_type()), object, anchors, options_.rpn_fg_iou_thresh(),
        options_.rpn_bg_iou_thresh(), /*allow_low_quality=*/true);
    const auto [positive, negative] =
        sample_balanced(label, sampling_noise(label), options_.rpn_batch_size_per_image(),
                        options_.rpn_positive_fraction());
    labels.push_back(label);
    matched.push_back(match);
    positives.push_back(positive);
    negatives.push_back(negative);
  }
  const auto positive = torch::cat(positives).nonzero().squeeze(1);
  const auto sampled = torch::cat({positive, torch::cat(negatives).nonzero().squeeze(1)});
  const auto targets =
      encode_boxes(torch::cat(matched).index_select(0, positive),
                   anchors.index_select(0, positive.remainder(anchors.size(0))), kRpnBoxWeights);
  const auto [logits, deltas] = head_->predict(features, sampled, positive.size(0));
  NamedLosses out;
  out.insert("loss_objectness",
             objectness_loss(logits, torch::cat(labels).index_select(0, sampled)));
  out.insert("loss_rpn_box_reg", box_regression_loss(deltas, targets, sampled.size(0)));
  return out;
}

}  // namespace tilewright
