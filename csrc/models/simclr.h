// SimCLR as a LibTorch module: learns to represent images without labels, in a C++ program.
#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/pimpl.h>

#include <memory>

#include "tilewright/core/export.h"
#include "tilewright/models/image_encoder.h"
#include "tilewright/models/simclr_options.h"

namespace tilewright {

// Chen et al. 2020 (arXiv:2002.05709): two random views of an image are to be told apart from the
// views of all other images of the batch. An encoder makes features of a view, a small network
// projects them, and NT-Xent compares the projections; what is kept afterwards is the encoder.
//
//   tilewright::SimCLR model(tilewright::SimCLROptions().in_channels(3));
//   tilewright::AugmentationOptions views("photographs");
//   auto loss = model(tilewright::augment(images, views), tilewright::augment(images, views));
//   model->eval();
//   auto features = model->represent(images);
//
// images: (N, C, H, W), C of in_channels, of the parameters' dtype (or under autocast). Batch norm
// sees both views as one batch in training mode. Errors: c10::Error.
class TILEWRIGHT_API SimCLRImpl : public torch::nn::Module {
 public:
  // With the encoder that the options describe.
  explicit SimCLRImpl(const SimCLROptions& options = {});

  // With any encoder; the options that describe one are not looked at.
  SimCLRImpl(std::shared_ptr<ImageEncoderImpl> encoder, const SimCLROptions& options);

  // NT-Xent between two views (N, C, H, W) of N > 1 images: one number.
  torch::Tensor forward(const torch::Tensor& first, const torch::Tensor& second);

  // What a classifier or a search works on: (N, F).
  torch::Tensor represent(const torch::Tensor& images);

  // What the loss compares: (N, projection_features), of any length.
  torch::Tensor project(const torch::Tensor& images);

  const SimCLROptions& options() const { return options_; }

 private:
  SimCLROptions options_;
  std::shared_ptr<ImageEncoderImpl> encoder_;
  torch::nn::Sequential projection_;
};
TORCH_MODULE(SimCLR);

}  // namespace tilewright
