// Contrastive predictive coding as a LibTorch module: learns to represent images and sequences
// without labels, in a C++ program.
#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/rnn.h>
#include <torch/nn/pimpl.h>

#include "tilewright/core/export.h"
#include "tilewright/models/causal_context.h"
#include "tilewright/models/cpc_options.h"

namespace tilewright {

// Van den Oord et al. 2018 (arXiv:1807.03748): an encoder makes features z[t] of each step of a
// sequence, an autoregressive network sums up those so far in a context c[t], and for each of K
// steps ahead a matrix W[k] makes of c[t] what is to be most similar to z[t + k] among the features
// of all steps of the batch (InfoNCE).
//
// The steps of a sequence (N, C, T) are the places of strided convolutions. An image (N, C, H, W)
// is cut into a grid of overlapping patches, and each column of it is a sequence, from top to
// bottom.
//
//   tilewright::CPC model(tilewright::CPCOptions().patch_size(4).patch_stride(2));
//   auto loss = model(images);
//   auto features = model->represent(images);
//
// x is of the parameters' dtype (or under autocast). Errors: c10::Error.
class TILEWRIGHT_API CPCImpl : public torch::nn::Module {
 public:
  explicit CPCImpl(const CPCOptions& options = {});

  // InfoNCE, the mean over all predictions of all steps: one number.
  torch::Tensor forward(const torch::Tensor& x);

  // What a classifier works on: (N, context_features); of images with summary "last"
  // (N, columns * context_features).
  torch::Tensor represent(const torch::Tensor& x);

  // Features of steps: (S, T, F), S sequences of T steps. Of images S = N * columns, an image's
  // columns side by side, and T is the rows of patches.
  torch::Tensor encode(const torch::Tensor& x);

  // Contexts of steps (S, T, F): (S, T, context_features).
  torch::Tensor contexts(const torch::Tensor& features);

  const CPCOptions& options() const { return options_; }

 private:
  CPCOptions options_;
  torch::nn::Sequential encoder_;
  torch::nn::GRU gru_ = nullptr;  // one of the two, registered as "context"
  CausalContext attention_ = nullptr;
  torch::nn::Linear prediction_ = nullptr;  // all matrices W[k], one below the other
};
TORCH_MODULE(CPC);

}  // namespace tilewright
