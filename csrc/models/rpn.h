// The region proposal network of Faster R-CNN and R-FCN: where in the image an object may be.
#pragma once
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>

#include <utility>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/detection_types.h"
#include "tilewright/models/detector_options.h"

namespace tilewright {

// One 3x3 convolution, then objectness and box deltas for each anchor; shared by all levels.
class TILEWRIGHT_API RpnHeadImpl : public torch::nn::Module {
 public:
  RpnHeadImpl(int64_t channels, int64_t num_anchors);

  struct Output {
    std::vector<torch::Tensor> objectness;  // (B, A, H_l, W_l)
    std::vector<torch::Tensor> deltas;      // (B, 4 * A, H_l, W_l)
  };
  Output forward(const std::vector<torch::Tensor>& features);

  // The same for a few anchors, of which only the first `with_deltas` get deltas; its gradient
  // visits their cells alone. anchors: (N,) int64, counted as in flatten_predictions. Returns
  // logits (N,) and deltas (with_deltas, 4).
  std::pair<torch::Tensor, torch::Tensor> predict(const std::vector<torch::Tensor>& features,
                                                  const torch::Tensor& anchors,
                                                  int64_t with_deltas);

  // A weight of the layers, for its dtype and device.
  const torch::Tensor& weight() const { return cls_logits_->weight; }

 private:
  torch::nn::Sequential conv_;
  torch::nn::Conv2d cls_logits_, bbox_pred_;
};
TORCH_MODULE(RpnHead);

class TILEWRIGHT_API RegionProposalNetworkImpl : public torch::nn::Module {
 public:
  // `num_levels` maps of `channels` channels will come in.
  RegionProposalNetworkImpl(int64_t channels, int64_t num_levels, DetectorOptions options);

  struct Output {
    std::vector<torch::Tensor> proposals;  // per image (P_i, 4), no gradient
    NamedLosses losses;                    // loss_objectness and loss_rpn_box_reg, in training mode
  };
  // image_sizes: of the images without padding; batch: of the padded batch. gt_boxes: one (G_i, 4)
  // per image, in pixels of the batch; empty in evaluation mode.
  Output forward(const std::vector<torch::Tensor>& features,
                 const std::vector<ImageSize>& image_sizes, ImageSize batch,
                 const std::vector<torch::Tensor>& gt_boxes);

  const torch::Tensor& weight() const { return head_->weight(); }

 private:
  NamedLosses losses(const std::vector<torch::Tensor>& features, const torch::Tensor& anchors,
                     const std::vector<torch::Tensor>& gt_boxes);

  DetectorOptions options_;
  std::vector<double> anchor_sizes_, aspect_ratios_;  // level after level
  RpnHead head_;
};
TORCH_MODULE(RegionProposalNetwork);

}  // namespace tilewright
