// Transformer layers over flash_attention.
#include "tilewright/models/causal_context.h"

#include <torch/nn/modules/container/modulelist.h>

#include <tuple>

#include "tilewright/attention/flash_attention.h"

namespace tilewright {
namespace {

constexpr int64_t kWider = 4;  // hidden units of a layer's two linear ones, per feature

torch::nn::LayerNorm norm_of(int64_t features) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({features}));
}

}  // namespace

CausalLayerImpl::CausalLayerImpl(int64_t features, int64_t heads)
    : heads_(heads),
      attention_norm_(register_module("attention_norm", norm_of(features))),
      mlp_norm_(norm_of(features)),
      qkv_(register_module("qkv", torch::nn::Linear(features, 3 * features))),
      merge_(register_module("merge", torch::nn::Linear(features, features))),
      up_(features, kWider * features),
      down_(kWider * features, features) {
  register_module("mlp_norm", mlp_norm_);
  register_module("up", up_);
  register_module("down", down_);
}

torch::Tensor CausalLayerImpl::forward(const torch::Tensor& x) {
  // Views of one projection: (S, T, 3, H, D) to three of (S, H, T, D), and nothing is copied.
  const auto parts = qkv_->forward(attention_norm_->forward(x)).unflatten(-1, {3, heads_, -1});
  const auto each = parts.transpose(1, 3).unbind(2);
  // Slopes 2^(-8/H), 2^(-16/H), ..., 2^-8.
  const auto slopes =
      torch::pow(2.0, torch::arange(1, heads_ + 1, each[0].options()) * (-8.0 / heads_));
  const auto out =
      std::get<0>(flash_attention(each[0], each[1], each[2], /*bias=*/{}, slopes.to(torch::kFloat),
                                  /*sinks=*/{}, /*causal=*/true));
  const auto attended = x + merge_->forward(out.transpose(1, 2).flatten(2));
  return attended + down_->forward(torch::gelu(up_->forward(mlp_norm_->forward(attended))));
}

CausalContextImpl::CausalContextImpl(int64_t in_features, int64_t features, int64_t layers,
                                     int64_t heads)
    : input_(register_module("input", torch::nn::Linear(in_features, features))),
      norm_(norm_of(features)) {
  const auto list = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < layers; ++i) {
    layers_.emplace_back(features, heads);
    list->push_back(layers_.back());
  }
  register_module("norm", norm_);
}

torch::Tensor CausalContextImpl::forward(const torch::Tensor& x) {
  auto out = input_->forward(x);
  for (auto& layer : layers_) out = layer->forward(out);
  return norm_->forward(out);
}

}  // namespace tilewright
