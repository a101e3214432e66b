// Batch normalisation that goes through the weights of the convolution before it, wherever its
// statistics are fixed: a frozen one costs no pass over the maps, in training neither.
#pragma once
#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <utility>

#include "tilewright/core/export.h"
#include "tilewright/models/convolution.h"

namespace tilewright {

struct TILEWRIGHT_API BatchNormOptions {
  // Frozen: weight, bias and statistics are buffers, which no optimiser sees and no batch moves.
  TORCH_ARG(bool, frozen) = false;
  TORCH_ARG(double, eps) = 1e-5;
};

// What follows a convolution, and is computed together with it.
class TILEWRIGHT_API NormalizationImpl : public torch::nn::Module {
 public:
  // The normalised output of `conv` for x (B, C_in, H, W).
  virtual torch::Tensor forward(const torch::Tensor& x, const Convolution& conv) = 0;
};

// Ioffe & Szegedy 2015, arXiv:1502.03167. Names, initial values and numbers are those of torch's
// BatchNorm2d, or of torchvision's FrozenBatchNorm2d.
class TILEWRIGHT_API BatchNormImpl : public NormalizationImpl {
 public:
  explicit BatchNormImpl(int64_t channels, const BatchNormOptions& options = {});

  // Live and in training mode, statistics are the batch's; else the stored ones.
  torch::Tensor forward(const torch::Tensor& x, const Convolution& conv) override;

  // The weight and bias of the convolution that gives what `weight`, normalised by the stored
  // statistics, gives. Computed in at least float32; both of the dtype of `weight`.
  std::pair<torch::Tensor, torch::Tensor> folded(const torch::Tensor& weight) const;

 private:
  BatchNormOptions options_;
  torch::Tensor weight_, bias_, running_mean_, running_var_;  // (channels,)
  torch::Tensor num_batches_tracked_;                         // undefined where frozen
};
TORCH_MODULE(BatchNorm);

// What a folded batch norm leaves: the bias of the convolution, which holds the scale.
class TILEWRIGHT_API FoldedBatchNormImpl : public NormalizationImpl {
 public:
  explicit FoldedBatchNormImpl(torch::Tensor bias);
  torch::Tensor forward(const torch::Tensor& x, const Convolution& conv) override;

 private:
  torch::Tensor bias_;  // (channels,)
};
TORCH_MODULE(FoldedBatchNorm);

// A convolution with what follows it, registered side by side in a parent under two names.
class TILEWRIGHT_API NormalizedConv {
 public:
  NormalizedConv(torch::nn::Module& parent, const std::string& conv_name,
                 const std::string& norm_name, Convolution conv, const BatchNormOptions& options);

  torch::Tensor operator()(const torch::Tensor& x) { return norm_->forward(x, conv_); }

  // Writes the batch norm of `parent` into the weights of the convolution; once.
  void fold(torch::nn::Module& parent);

 private:
  std::string norm_name_;
  Convolution conv_;
  std::shared_ptr<NormalizationImpl> norm_;
};

}  // namespace tilewright
