// The kernel behind torch's scaled_dot_product_attention on the CPU.
#include <ATen/ATen.h>

#include "tilewright/dropin/replacements.h"

namespace tilewright {
namespace {

using at::Tensor;

constexpr int64_t kMostHeadSize = 256;
constexpr int64_t kDropout = 3, kBackwardDropout = 6;  // places of dropout_p

// Autograd hands on a mask that is not there as an undefined tensor.
bool is_given(const c10::IValue& mask) { return mask.isTensor() && mask.toTensor().defined(); }

bool covers(const Tensor& query, const Tensor& key, const Tensor& value, const c10::IValue& dropout,
            const c10::IValue& mask) {
  if (dropout.toDouble() != 0) return false;
  for (const Tensor* t : {&query, &key, &value}) {
    if (t->dim() != 4 || t->numel() == 0 || t->scalar_type() != query.scalar_type()) return false;
    if (t->size(3) > kMostHeadSize) return false;
  }
  if (!is_given(mask)) return true;
  const at::ScalarType dtype = mask.toTensor().scalar_type();
  return dtype == at::kBool || dtype == at::kFloat || dtype == query.scalar_type();
}

// (query, key, value, dropout_p, is_causal, attn_mask, scale)
bool covers_forward(const Stack& a) {
  return covers(a[0].toTensor(), a[1].toTensor(), a[2].toTensor(), a[kDropout], a[5]);
}
// (grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask, scale)
bool covers_backward(const Stack& a) {
  return covers(a[1].toTensor(), a[2].toTensor(), a[3].toTensor(), a[kBackwardDropout], a[8]);
}

// What follows the mask in both of our operators, up to rng_state.
void add_options(const c10::IValue& is_causal, const c10::IValue& scale, Stack& ours) {
  ours.emplace_back();  // alibi_slopes
  ours.emplace_back();  // sinks
  ours.push_back(is_causal);
  ours.emplace_back(true);         // top_left: query i sees the keys up to i
  ours.emplace_back(int64_t(-1));  // window_left
  ours.emplace_back(int64_t(-1));
  ours.push_back(scale);
  ours.emplace_back(0.0);  // softcap
  ours.emplace_back(0.0);  // dropout_p
  ours.emplace_back();
}
void arrange_forward(Stack& a) {
  Stack ours{a[0], a[1], a[2], is_given(a[5]) ? a[5] : c10::IValue()};
  add_options(a[4], a[6], ours);
  a = std::move(ours);
}
void arrange_backward(Stack& a) {
  Stack ours{a[0],
             c10::IValue(),
             a[1],
             a[2],
             a[3],
             a[4],
             a[5].toTensor().contiguous(),
             is_given(a[8]) ? a[8] : c10::IValue()};
  add_options(a[7], a[9], ours);
  ours.emplace_back(c10::List<bool>({false, false, false}));
  a = std::move(ours);
}

// As (B, S, H, ...) in memory, which (B, H, S, ...) is a view of.
Tensor rows_first(const Tensor& t) { return t.transpose(1, 2).contiguous().transpose(1, 2); }

void finish_forward(const Stack& theirs, Stack& results) {
  const Tensor& query = theirs[0].toTensor();
  const Tensor& out = results[0].toTensor();
  const Tensor wanted = at::empty_like(query, query.options().device(at::kMeta));
  if (out.strides() != wanted.strides()) results[0] = at::empty_like(query).copy_(out);
  results[1] = rows_first(results[1].toTensor());
}
void finish_backward(const Stack&, Stack& results) {
  results.resize(3);
  for (c10::IValue& grad : results) grad = rows_first(grad.toTensor());
}

}  // namespace

std::vector<Replacement> attention_replacements() {
  return {
      {"aten::_scaled_dot_product_flash_attention_for_cpu", "tilewright::flash_attention", false,
       &covers_forward, &arrange_forward, &finish_forward},
      {"aten::_scaled_dot_product_flash_attention_for_cpu_backward",
       "tilewright::_flash_attention_backward", false, &covers_backward, &arrange_backward,
       &finish_backward},
  };
}

}  // namespace tilewright
