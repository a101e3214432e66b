// Decoding's fronts, flash_attention_paged and append_kv_: schemas, the refusal of gradients,
// autocast, Meta.
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/library.h>

#include "tilewright/attention/attention_calls.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

void refuse_grad(const char* op, const char* name, const at::Tensor& tensor) {
  TILEWRIGHT_CHECK(op, !tensor.requires_grad() || !at::GradMode::is_enabled(), name,
                   " requires grad, but decoding has no backward; call it under torch.no_grad() or "
                   "detach the tensor");
}

TensorPair paged_autograd(const at::Tensor& query, const at::Tensor& key_cache,
                          const at::Tensor& value_cache, const at::Tensor& block_table,
                          const at::Tensor& cache_seqlens, bool causal, int64_t window_left,
                          std::optional<double> scale, double softcap,
                          const OptionalTensor& slopes) {
  constexpr const char* kOp = "flash_attention_paged";
  refuse_grad(kOp, "query", query);
  refuse_grad(kOp, "key_cache", key_cache);
  refuse_grad(kOp, "value_cache", value_cache);
  if (slopes) refuse_grad(kOp, "alibi_slopes", *slopes);
  at::AutoDispatchBelowADInplaceOrView guard;
  return flash_attention_paged(query, key_cache, value_cache, block_table, cache_seqlens, causal,
                               window_left, scale, softcap, slopes);
}

void append_autograd(const at::Tensor& key_cache, const at::Tensor& value_cache,
                     const at::Tensor& key, const at::Tensor& value, const at::Tensor& block_table,
                     const at::Tensor& cache_seqlens) {
  constexpr const char* kOp = "append_kv_";
  refuse_grad(kOp, "key_cache", key_cache);
  refuse_grad(kOp, "value_cache", value_cache);
  refuse_grad(kOp, "key", key);
  refuse_grad(kOp, "value", value);
  at::AutoDispatchBelowAutograd guard;
  append_kv_(key_cache, value_cache, key, value, block_table, cache_seqlens);
}

void append_bumping_versions(const at::Tensor& key_cache, const at::Tensor& value_cache,
                             const at::Tensor& key, const at::Tensor& value,
                             const at::Tensor& block_table, const at::Tensor& cache_seqlens) {
  // Their versions could not be counted afterwards.
  const bool changes = !key_cache.is_inference() && !value_cache.is_inference();
  TILEWRIGHT_CHECK("append_kv_", changes || c10::InferenceMode::is_enabled(),
                   "caches made in inference mode can only be changed in inference mode");
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    append_kv_(key_cache, value_cache, key, value, block_table, cache_seqlens);
  }
  torch::autograd::increment_version(key_cache);
  torch::autograd::increment_version(value_cache);
}

// The caches' dtype was chosen when they were made, and what meets them follows.
template <c10::DispatchKey kKey>
TensorPair paged_autocast(const at::Tensor& query, const at::Tensor& key_cache,
                          const at::Tensor& value_cache, const at::Tensor& block_table,
                          const at::Tensor& cache_seqlens, bool causal, int64_t window_left,
                          std::optional<double> scale, double softcap,
                          const OptionalTensor& slopes) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  check_given("flash_attention_paged", "query", query);
  check_given("flash_attention_paged", "key_cache", key_cache);
  return flash_attention_paged(query.to(key_cache.scalar_type()), key_cache, value_cache,
                               block_table, cache_seqlens, causal, window_left, scale, softcap,
                               slopes);
}

template <c10::DispatchKey kKey>
void append_autocast(const at::Tensor& key_cache, const at::Tensor& value_cache,
                     const at::Tensor& key, const at::Tensor& value, const at::Tensor& block_table,
                     const at::Tensor& cache_seqlens) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  check_given("append_kv_", "key_cache", key_cache);
  check_given("append_kv_", "value_cache", value_cache);
  check_given("append_kv_", "key", key);
  check_given("append_kv_", "value", value);
  append_kv_(key_cache, value_cache, key.to(key_cache.scalar_type()),
             value.to(value_cache.scalar_type()), block_table, cache_seqlens);
}

TensorPair paged_meta(const at::Tensor& query, const at::Tensor& key_cache,
                      const at::Tensor& value_cache, const at::Tensor& block_table,
                      const at::Tensor& cache_seqlens, bool causal, int64_t window_left,
                      std::optional<double> scale, double softcap, const OptionalTensor& slopes) {
  AttentionArgs args{"flash_attention_paged"};
  args.causal = causal;
  args.window_left = window_left;
  args.scale = scale;
  args.softcap = softcap;
  check_attention_paged(args, query, key_cache, value_cache, block_table, cache_seqlens,
                        {{}, or_undefined(slopes), {}, {}});
  return attention_outputs(query, value_cache, /*packed=*/false);
}

}  // namespace

TensorPair flash_attention_paged(const at::Tensor& query, const at::Tensor& key_cache,
                                 const at::Tensor& value_cache, const at::Tensor& block_table,
                                 const at::Tensor& cache_seqlens, bool causal, int64_t window_left,
                                 std::optional<double> scale, double softcap,
                                 const OptionalTensor& alibi_slopes) {
  static const auto op =
      operator_handle<decltype(flash_attention_paged)>("tilewright::flash_attention_paged");
  return op.call(query, key_cache, value_cache, block_table, cache_seqlens, causal, window_left,
                 scale, softcap, alibi_slopes);
}

void append_kv_(const at::Tensor& key_cache, const at::Tensor& value_cache, const at::Tensor& key,
                const at::Tensor& value, const at::Tensor& block_table,
                const at::Tensor& cache_seqlens) {
  static const auto op = operator_handle<decltype(append_kv_)>("tilewright::append_kv_");
  op.call(key_cache, value_cache, key, value, block_table, cache_seqlens);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "flash_attention_paged(Tensor query, Tensor key_cache, Tensor value_cache, "
      "Tensor block_table, Tensor cache_seqlens, *, bool causal=True, int window_left=-1, "
      "float? scale=None, float softcap=0.0, Tensor? alibi_slopes=None) -> (Tensor out, "
      "Tensor lse)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "append_kv_(Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor key, Tensor value, "
      "Tensor block_table, Tensor cache_seqlens) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("flash_attention_paged", &paged_autograd);
  m.impl("append_kv_", &append_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, ADInplaceOrView, m) {
  m.impl("append_kv_", &append_bumping_versions);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("flash_attention_paged", &paged_meta);
  m.impl("append_kv_", &check_append);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("flash_attention_paged", &paged_autocast<c10::DispatchKey::AutocastCPU>);
  m.impl("append_kv_", &append_autocast<c10::DispatchKey::AutocastCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("flash_attention_paged", &paged_autocast<c10::DispatchKey::AutocastCUDA>);
  m.impl("append_kv_", &append_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace tilewright
