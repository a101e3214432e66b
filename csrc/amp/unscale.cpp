// unscale_ and unscale_and_norm_: schemas, checks, versions, Meta. One operator serves both within.
#include "tilewright/amp/unscale.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/library.h>

#include "tilewright/amp/grads_args.h"
#include "tilewright/amp/unscale_args.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <bool kNorm>
using Result = std::conditional_t<kNorm, Tensor, void>;

template <bool kNorm>
Result<kNorm> again(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                    const OptionalTensor& first_bad, bool write) {
  if constexpr (kNorm) {
    return unscale_and_norm_(grads, found_inf, inv_scale, first_bad, write);
  } else {
    unscale_(grads, found_inf, inv_scale, first_bad, write);
  }
}

// The first walk over thousands of tensors waits for memory at each, unless it asks ahead.
constexpr size_t kAhead = 8;
void prefetch(const Tensor& tensor) {
  const auto* lines = reinterpret_cast<const char*>(tensor.unsafeGetTensorImpl());
  for (size_t at = 0; at < sizeof(c10::TensorImpl); at += 64) __builtin_prefetch(lines + at);
}

template <bool kNorm>
Result<kNorm> unscale_autograd(at::TensorList grads, const Tensor& found_inf,
                               const Tensor& inv_scale, const OptionalTensor& first_bad,
                               bool write) {
  const char* op = unscale_name(kNorm);
  for (size_t i = 0; i < grads.size(); ++i) {
    if (i + kAhead < grads.size()) prefetch(grads[i + kAhead]);
    if (!grads[i].defined() || !grads[i].requires_grad()) continue;  // of thousands no names
    check_no_grad(op, place_in("grads", i), grads[i]);
  }
  check_no_grad(op, "found_inf", found_inf);
  check_no_grad(op, "inv_scale", inv_scale);
  at::AutoDispatchBelowAutograd guard;
  return again<kNorm>(grads, found_inf, inv_scale, first_bad, write);
}

template <bool kNorm>
Result<kNorm> unscale_bumping_versions(at::TensorList grads, const Tensor& found_inf,
                                       const Tensor& inv_scale, const OptionalTensor& first_bad,
                                       bool write) {
  const char* op = unscale_name(kNorm);
  for (const Tensor& grad : grads) check_changeable(op, grad);
  check_changeable(op, found_inf);
  if (first_bad) check_changeable(op, *first_bad);
  const auto bump = [&] {
    for (const Tensor& grad : grads) {
      if (write) torch::autograd::increment_version(grad);
    }
    torch::autograd::increment_version(found_inf);
    if (first_bad) torch::autograd::increment_version(*first_bad);
  };
  const auto call = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return again<kNorm>(grads, found_inf, inv_scale, first_bad, write);
  };
  if constexpr (kNorm) {
    const Tensor norm = call();
    bump();
    return norm;
  } else {
    call();
    bump();
  }
}

void unscale_meta(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                  const OptionalTensor& first_bad, bool) {
  check_unscale(unscale_name(false), grads, found_inf, inv_scale, first_bad);
}
Tensor unscale_and_norm_meta(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                             const OptionalTensor& first_bad, bool) {
  check_unscale(unscale_name(true), grads, found_inf, inv_scale, first_bad);
  return empty_norm(grads, found_inf);
}

}  // namespace

void unscale_(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
              const OptionalTensor& first_bad, bool write) {
  static const auto op = operator_handle<decltype(unscale_)>("tilewright::unscale_");
  op.call(grads, found_inf, inv_scale, first_bad, write);
}

Tensor unscale_and_norm_(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                         const OptionalTensor& first_bad, bool write) {
  static const auto op =
      operator_handle<decltype(unscale_and_norm_)>("tilewright::unscale_and_norm_");
  return op.call(grads, found_inf, inv_scale, first_bad, write);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def(
      "unscale_(Tensor(a!)[] grads, Tensor(b!) found_inf, Tensor inv_scale, "
      "Tensor(c!)? first_bad=None, bool write=True) -> ()",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "unscale_and_norm_(Tensor(a!)[] grads, Tensor(b!) found_inf, Tensor inv_scale, "
      "Tensor(c!)? first_bad=None, bool write=True) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("unscale_", &unscale_autograd<false>);
  m.impl("unscale_and_norm_", &unscale_autograd<true>);
}
TORCH_LIBRARY_IMPL(tilewright, ADInplaceOrView, m) {
  m.impl("unscale_", &unscale_bumping_versions<false>);
  m.impl("unscale_and_norm_", &unscale_bumping_versions<true>);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("unscale_", &unscale_meta);
  m.impl("unscale_and_norm_", &unscale_and_norm_meta);
}
// Their checks say what to give in place of sparse gradients.
TORCH_LIBRARY_IMPL(tilewright, SparseCPU, m) {
  m.impl("unscale_", &unscale_meta);
  m.impl("unscale_and_norm_", &unscale_and_norm_meta);
}
TORCH_LIBRARY_IMPL(tilewright, SparseCUDA, m) {
  m.impl("unscale_", &unscale_meta);
  m.impl("unscale_and_norm_", &unscale_and_norm_meta);
}

}  // namespace tilewright
