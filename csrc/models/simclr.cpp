// The parts of SimCLR, put together.
#include "tilewright/models/simclr.h"

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/linear.h>

#include "tilewright/contrastive/contrastive_losses.h"
#include "tilewright/models/self_supervised_internal.h"

namespace tilewright {
namespace {

std::shared_ptr<ImageEncoderImpl> described_encoder(const SimCLROptions& options) {
  check_options(options);
  if (options.encoder() == "conv") {
    return std::make_shared<ConvEncoderImpl>(options.in_channels(), options.widths());
  }
  return std::make_shared<ResNetEncoderImpl>(
      ResNetOptions(options.resnet_depth()).small_images(options.small_images()));
}

torch::nn::Sequential projection_head(int64_t features, const SimCLROptions& options) {
  torch::nn::Sequential head;
  for (int64_t i = 1; i < options.projection_layers(); ++i) {
    head->push_back(torch::nn::Linear(
        torch::nn::LinearOptions(features, options.projection_hidden()).bias(false)));
    features = options.projection_hidden();
    head->push_back(torch::nn::BatchNorm1d(features));
    head->push_back(torch::nn::ReLU());
  }
  head->push_back(torch::nn::Linear(features, options.projection_features()));
  return head;
}

}  // namespace

void check_options(const SimCLROptions& options) {
  using self_supervised_internal::check_positive;
  const char* model = options.model();
  check_positive(model, "in_channels", options.in_channels());
  TILEWRIGHT_CHECK(model, options.encoder() == "conv" || options.encoder() == "resnet",
                   "encoder must be conv or resnet, got ", options.encoder());
  check_positive(model, "widths", options.widths());
  TILEWRIGHT_CHECK(
      model,
      options.encoder() == "conv" || options.in_channels() == 1 || options.in_channels() == 3,
      "in_channels must be 1 or 3 with a resnet, got ", options.in_channels());
  check_positive(model, "projection_layers", options.projection_layers());
  check_positive(model, "projection_hidden", options.projection_hidden());
  check_positive(model, "projection_features", options.projection_features());
  self_supervised_internal::check_temperature(model, options.temperature());
}

SimCLRImpl::SimCLRImpl(const SimCLROptions& options)
    : SimCLRImpl(described_encoder(options), options) {}

SimCLRImpl::SimCLRImpl(std::shared_ptr<ImageEncoderImpl> encoder, const SimCLROptions& options)
    : options_(options), encoder_(std::move(encoder)) {
  check_options(options_);
  TILEWRIGHT_CHECK(options_.model(), encoder_ != nullptr, "encoder must not be null");
  register_module("encoder", encoder_);
  projection_ = register_module("projection", projection_head(encoder_->out_features(), options_));
}

torch::Tensor SimCLRImpl::forward(const torch::Tensor& first, const torch::Tensor& second) {
  self_supervised_internal::check_channels(options_.model(), "first", first, "(N, C, H, W)", 4,
                                           options_.in_channels());
  TILEWRIGHT_CHECK(options_.model(), second.defined() && second.sizes() == first.sizes(),
                   "second must have first's shape ", shape_of(first), ", got ", shape_of(second));
  TILEWRIGHT_CHECK(options_.model(), second.scalar_type() == first.scalar_type(),
                   "second must have first's dtype ", first.scalar_type(), ", got ",
                   second.scalar_type());
  const auto views = project(torch::cat({first, second}));
  const int64_t size = first.size(0);
  return nt_xent(views.narrow(0, 0, size), views.narrow(0, size, size), options_.temperature());
}

torch::Tensor SimCLRImpl::represent(const torch::Tensor& images) {
  self_supervised_internal::check_channels(options_.model(), "images", images, "(N, C, H, W)", 4,
                                           options_.in_channels());
  return encoder_->forward(images);
}

torch::Tensor SimCLRImpl::project(const torch::Tensor& images) {
  return projection_->forward(represent(images));
}

}  // namespace tilewright
