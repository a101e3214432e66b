// A causal transformer over the steps of sequences: what CPC's context is, where it is no GRU.
#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

// One layer: attention, then two linear layers with GELU, each with a norm before it and a shortcut
// around it. Scores fall with distance, so that no step needs a number (ALiBi, arXiv:2108.12409).
class TILEWRIGHT_API CausalLayerImpl : public torch::nn::Module {
 public:
  CausalLayerImpl(int64_t features, int64_t heads);
  torch::Tensor forward(const torch::Tensor& x);  // (S, T, features), of which t sees t and before

 private:
  int64_t heads_;
  torch::nn::LayerNorm attention_norm_, mlp_norm_;
  torch::nn::Linear qkv_, merge_, up_, down_;
};
TORCH_MODULE(CausalLayer);

class TILEWRIGHT_API CausalContextImpl : public torch::nn::Module {
 public:
  CausalContextImpl(int64_t in_features, int64_t features, int64_t layers, int64_t heads);
  torch::Tensor forward(const torch::Tensor& x);  // (S, T, in_features) -> (S, T, features)

 private:
  torch::nn::Linear input_;
  std::vector<CausalLayer> layers_;
  torch::nn::LayerNorm norm_;
};
TORCH_MODULE(CausalContext);

}  // namespace tilewright
