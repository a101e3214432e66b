// The second stage of R-FCN: convolutions over the whole image, and votes of the bins of each box.
#pragma once
#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>

#include <utility>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/models/box_heads.h"
#include "tilewright/models/rfcn_options.h"

namespace tilewright {

// `outputs` scores of each box, each by k * k maps of which every bin of the box reads one (Dai et
// al. 2016, arXiv:1605.06409, equation 1). How bins are pooled is decided here alone.
class TILEWRIGHT_API PositionSensitiveVoteImpl : public torch::nn::Module {
 public:
  PositionSensitiveVoteImpl(int64_t outputs, int64_t stride, const RFCNOptions& options);

  // map: (B, head_channels, H, W), of `stride` pixels per cell; rois: (K, 5). Returns (K, outputs),
  // the averages over the bins.
  torch::Tensor forward(const torch::Tensor& map, const torch::Tensor& rois);

 private:
  torch::Tensor pool(const torch::Tensor& map, const torch::Tensor& rois);

  RFCNOptions options_;
  int64_t outputs_;
  double scale_;
  torch::nn::Conv2d maps_;
  torch::nn::Conv2d offset_maps_ = nullptr;  // of deform_ps_roi_pool: two offsets for each bin
};
TORCH_MODULE(PositionSensitiveVote);

class TILEWRIGHT_API PositionSensitiveHeadsImpl : public BoxHeadsImpl {
 public:
  // channels, stride: of the last of forward's features.
  PositionSensitiveHeadsImpl(int64_t channels, int64_t stride, const RFCNOptions& options);

 protected:
  // Box deltas are those of any class.
  std::pair<torch::Tensor, torch::Tensor> predict(const std::vector<torch::Tensor>& features,
                                                  const torch::Tensor& rois) override;

 private:
  torch::nn::Conv2d reduction_;
  PositionSensitiveVote cls_score_, bbox_pred_;
};
TORCH_MODULE(PositionSensitiveHeads);

}  // namespace tilewright
