// scaled_dot_product_attention's kernels on the CPU by flash_attention. Their results have the
// strides that torch promises to compiled programs.
#include <ATen/ATen.h>

#include "tilewright/attention/attention_calls.h"
#include "tilewright/dropin/original_kernels.h"
#include "tilewright/dropin/replacements.h"

namespace tilewright {
namespace {

using at::Tensor;
using Triple = std::tuple<Tensor, Tensor, Tensor>;

constexpr const char *kForward = "aten::_scaled_dot_product_flash_attention_for_cpu",
                     *kBackward = "aten::_scaled_dot_product_flash_attention_for_cpu_backward";

bool is_served(const Tensor& query, const Tensor& key, const Tensor& value,
               const std::optional<Tensor>& mask, double dropout_p) {
  const bool shapes = query.dim() == 4 && key.dim() == 4 && value.dim() == 4 &&
                      key.size(1) > 0 && query.size(1) % key.size(1) == 0 &&
                      query.size(3) >= 1 && query.size(3) <= kMostHeadDim &&
                      value.size(3) >= 1 && value.size(3) <= kMostHeadDim;
  const bool masked = !mask || mask->scalar_type() == query.scalar_type() ||
                      mask->scalar_type() == at::kFloat || mask->scalar_type() == at::kBool;
  return shapes && masked && dropout_p == 0 && query.layout() == at::kStrided;
}

// Heads between rows and columns, as a transformer's projections leave them: (B, S, H, D) in memory.
Tensor rows_first(const Tensor& tensor) {
  return tensor.transpose(1, 2).contiguous().transpose(1, 2);
}

std::tuple<Tensor, Tensor> attention_forward(const Tensor& query, const Tensor& key,
                                             const Tensor& value, double dropout_p, bool is_causal,
                                             const std::optional<Tensor>& mask,
                                             std::optional<double> scale) {
  if (!is_served(query, key, value, mask, dropout_p)) {
    return OriginalKernels::instance().call<std::tuple<Tensor, Tensor>>(
        kForward, c10::DispatchKey::CPU, query, key, value, dropout_p, is_causal, mask, scale);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  auto [out, lse] = flash_attention(query, key, value, mask, std::nullopt, std::nullopt, is_causal,
                                    /*top_left=*/true, -1, -1, scale);
  return {out, rows_first(lse.unsqueeze(3)).squeeze(3)};
}

Triple attention_backward(const Tensor& grad_out, const Tensor& query, const Tensor& key,
                          const Tensor& value, const Tensor& out, const Tensor& lse,
                          double dropout_p, bool is_causal, const std::optional<Tensor>& mask,
                          std::optional<double> scale) {
  if (!is_served(query, key, value, mask, dropout_p)) {
    return OriginalKernels::instance().call<Triple>(kBackward, c10::DispatchKey::CPU, grad_out,
                                                    query, key, value, out, lse, dropout_p,
                                                    is_causal, mask, scale);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto grads = flash_attention_backward(
      grad_out, std::nullopt, query, key, value, out, lse.contiguous(), mask, std::nullopt,
      std::nullopt, is_causal, /*top_left=*/true, -1, -1, scale, 0.0, 0.0, std::nullopt,
      {false, false, false});
  return {rows_first(std::get<0>(grads)), rows_first(std::get<1>(grads)),
          rows_first(std::get<2>(grads))};
}

}  // namespace

std::vector<Replacement> attention_replacements() {
  return {{"aten", "_scaled_dot_product_flash_attention_for_cpu", c10::DispatchKey::CPU,
           [](torch::Library& m) {
             m.impl("_scaled_dot_product_flash_attention_for_cpu", &attention_forward);
           }},
          {"aten", "_scaled_dot_product_flash_attention_for_cpu_backward", c10::DispatchKey::CPU,
           [](torch::Library& m) {
             m.impl("_scaled_dot_product_flash_attention_for_cpu_backward", &attention_backward);
           }}};
}

}  // namespace tilewright
