// Deformable RoI pooling that predicts its own offsets (Deformable ConvNets, arXiv:1703.06211),
// with the parameters of mmcv's DeformRoIPoolPack.
#pragma once
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any_value.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/pimpl.h>

#include "tilewright/core/export.h"

namespace tilewright {

struct TILEWRIGHT_API DeformRoIPoolOptions {
  DeformRoIPoolOptions(int64_t pooled_height, int64_t pooled_width)
      : pooled_height_(pooled_height), pooled_width_(pooled_width) {}
  TORCH_ARG(int64_t, pooled_height);
  TORCH_ARG(int64_t, pooled_width);
  TORCH_ARG(double, spatial_scale) = 1;
  TORCH_ARG(int64_t, sampling_ratio) = 0;
  TORCH_ARG(double, gamma) = 0.1;
  TORCH_ARG(int64_t, in_channels) = 0;  // of the feature maps; 0: offsets are given
  TORCH_ARG(int64_t, fc_channels) = 1024;
};

// Three linear layers from what a box pools, (K, channels * bins), to two offsets for each bin; the
// last one begins at zero.
TILEWRIGHT_API torch::nn::Sequential offset_layers(int64_t channels, int64_t bins, int64_t width);

class TILEWRIGHT_API DeformRoIPoolImpl : public torch::nn::Cloneable<DeformRoIPoolImpl> {
 public:
  explicit DeformRoIPoolImpl(const DeformRoIPoolOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  // input (N, C, H, W), rois (K, 5) as of deform_roi_pool; returns (K, C, PH, PW). Without an
  // offset (K, 2, PH, PW), and with in_channels, offset_layers predict it from what the boxes pool
  // where nothing moves.
  torch::Tensor forward(const torch::Tensor& input, const torch::Tensor& rois,
                        const torch::Tensor& offset = {});

  const DeformRoIPoolOptions& options() const { return options_; }

  torch::nn::Sequential offset_fc = nullptr;  // null without in_channels

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(torch::Tensor())})

 private:
  DeformRoIPoolOptions options_;
};
TORCH_MODULE(DeformRoIPool);

}  // namespace tilewright
