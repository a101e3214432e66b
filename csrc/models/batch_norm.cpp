// Batch norm by the weights of the convolution, and by torch's operator where statistics are live.
#include "tilewright/models/batch_norm.h"

#include "tilewright/detection/boxes_internal.h"

namespace tilewright {
namespace {

constexpr double kMomentum = 0.1;

}  // namespace

BatchNormImpl::BatchNormImpl(int64_t channels, const BatchNormOptions& options)
    : options_(options) {
  const auto learnt = [&](const char* name, torch::Tensor value) {
    return options_.frozen() ? register_buffer(name, value) : register_parameter(name, value);
  };
  weight_ = learnt("weight", torch::ones({channels}));
  bias_ = learnt("bias", torch::zeros({channels}));
  running_mean_ = register_buffer("running_mean", torch::zeros({channels}));
  running_var_ = register_buffer("running_var", torch::ones({channels}));
  if (!options_.frozen()) {
    num_batches_tracked_ =
        register_buffer("num_batches_tracked", torch::tensor(0, torch::dtype(torch::kLong)));
  }
}

torch::Tensor BatchNormImpl::forward(const torch::Tensor& x, const Convolution& conv) {
  if (!options_.frozen() && is_training()) {
    num_batches_tracked_ += 1;
    return torch::batch_norm(conv(x, conv.weight(), {}), weight_, bias_, running_mean_,
                             running_var_,
                             /*training=*/true, kMomentum, options_.eps(),
                             /*cudnn_enabled=*/true);
  }
  const auto [weight, bias] = folded(conv.weight());
  return conv(x, weight, bias);
}

std::pair<torch::Tensor, torch::Tensor> BatchNormImpl::folded(const torch::Tensor& weight) const {
  using boxes_internal::at_least_float;
  const auto scale =
      at_least_float(weight_) * (at_least_float(running_var_) + options_.eps()).rsqrt();
  const auto shift = at_least_float(bias_) - at_least_float(running_mean_) * scale;
  return {(at_least_float(weight) * scale.view({-1, 1, 1, 1})).to(weight.scalar_type()),
          shift.to(weight.scalar_type())};
}

FoldedBatchNormImpl::FoldedBatchNormImpl(torch::Tensor bias)
    : bias_(register_parameter("bias", std::move(bias))) {}

torch::Tensor FoldedBatchNormImpl::forward(const torch::Tensor& x, const Convolution& conv) {
  return conv(x, conv.weight(), bias_);
}

NormalizedConv::NormalizedConv(torch::nn::Module& parent, const std::string& conv_name,
                               const std::string& norm_name, Convolution conv,
                               const BatchNormOptions& options)
    : norm_name_(norm_name),
      conv_(std::move(conv)),
      norm_(BatchNorm(conv_.weight().size(0), options).ptr()) {
  parent.register_module(conv_name, conv_.module());
  parent.register_module(norm_name, norm_);
}

void NormalizedConv::fold(torch::nn::Module& parent) {
  const auto live = std::dynamic_pointer_cast<BatchNormImpl>(norm_);
  if (!live) return;
  torch::NoGradGuard no_grad;
  const auto [weight, bias] = live->folded(conv_.weight());
  conv_.weight().copy_(weight);
  FoldedBatchNorm left(bias);
  left->train(live->is_training());
  norm_ = parent.replace_module(norm_name_, left.ptr());
}

}  // namespace tilewright
