// Multi-head attention with torch.nn.MultiheadAttention's arguments and parameters, over
// flash_attention.
#pragma once
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any_value.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

struct TILEWRIGHT_API MultiheadAttentionOptions {
  MultiheadAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  TORCH_ARG(int64_t, embed_dim);
  TORCH_ARG(int64_t, num_heads);
  TORCH_ARG(double, dropout) = 0;  // of probabilities, in training mode
  TORCH_ARG(bool, bias) = true;
  TORCH_ARG(bool, add_bias_kv) = false;    // one learnt key and value more
  TORCH_ARG(bool, add_zero_attn) = false;  // one key and value of zeros more
  TORCH_ARG(int64_t, kdim) = 0;            // features of key and value; 0: embed_dim
  TORCH_ARG(int64_t, vdim) = 0;
  TORCH_ARG(bool, batch_first) = false;
};

// Takes the state dicts of torch.nn.MultiheadAttention and of torch::nn::MultiheadAttention.
class TILEWRIGHT_API MultiheadAttentionImpl : public torch::nn::Cloneable<MultiheadAttentionImpl> {
 public:
  MultiheadAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : MultiheadAttentionImpl(MultiheadAttentionOptions(embed_dim, num_heads)) {}
  explicit MultiheadAttentionImpl(const MultiheadAttentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  // query (L, N, E), key (S, N, kdim), value (S, N, vdim); (N, L, E) with batch_first; (L, E) of
  // one sequence. key_padding_mask: (N, S) or (S,). attn_mask: (L, S) or (N * num_heads, L, S). In
  // boolean masks True hides a key, as in torch; floating ones are added to the scores. is_causal:
  // query i sees the keys up to i, of those that attn_mask leaves; fastest without an attn_mask.
  //
  // Returns the output, shaped as query, and with need_weights the probabilities (N, L, S), their
  // mean over heads, or (N, num_heads, L, S) without average_attn_weights; otherwise an undefined
  // tensor: only then is the matrix never stored. A query that sees no key gets 0 before out_proj.
  std::tuple<torch::Tensor, torch::Tensor> forward(
      const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
      const torch::Tensor& key_padding_mask = {}, bool need_weights = true,
      const torch::Tensor& attn_mask = {}, bool average_attn_weights = true,
      bool is_causal = false);

  const MultiheadAttentionOptions& options() const { return options_; }

  torch::Tensor in_proj_weight;  // (3 E, E); undefined where kdim or vdim is unlike embed_dim
  torch::Tensor q_proj_weight, k_proj_weight, v_proj_weight;  // defined there
  torch::Tensor in_proj_bias;                                 // (3 E,)
  torch::Tensor bias_k, bias_v;                               // (1, 1, E), with add_bias_kv
  torch::nn::Linear out_proj = nullptr;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({3, torch::nn::AnyValue(torch::Tensor())},
                           {4, torch::nn::AnyValue(true)},
                           {5, torch::nn::AnyValue(torch::Tensor())},
                           {6, torch::nn::AnyValue(true)}, {7, torch::nn::AnyValue(false)})

 private:
  struct Projected {
    torch::Tensor query, key, value;  // (N, H, L or S, E / H)
  };
  Projected project(const torch::Tensor& query, const torch::Tensor& key,
                    const torch::Tensor& value) const;
  torch::Tensor mask_of(const torch::Tensor& key_padding_mask, const torch::Tensor& attn_mask,
                        const torch::Tensor& ahead, int64_t batch, int64_t queries,
                        int64_t keys) const;

  MultiheadAttentionOptions options_;
};
TORCH_MODULE(MultiheadAttention);

}  // namespace tilewright
