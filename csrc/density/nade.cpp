// nade's front: one operator within, `_nade`, which keeps logits for its backward.
#include "tilewright/density/nade.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/density/nade_args.h"
#include "tilewright/density/nade_composite.h"

namespace tilewright {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

NadeOutput call_nade(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                     const Tensor& weight_out, const Tensor& bias_out) {
  static const auto op = operator_handle<decltype(call_nade)>("tilewright::_nade");
  return op.call(x, weight_in, bias_in, weight_out, bias_out);
}

NadeGrads call_nade_backward(const Tensor& grad, const Tensor& x, const Tensor& weight_in,
                             const Tensor& bias_in, const Tensor& weight_out,
                             const Tensor& bias_out, const Tensor& logits) {
  static const auto op =
      operator_handle<decltype(call_nade_backward)>("tilewright::_nade_backward");
  return op.call(grad, x, weight_in, bias_in, weight_out, bias_out, logits);
}

class NadeFunction : public torch::autograd::Function<NadeFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight_in,
                               const Tensor& bias_in, const Tensor& weight_out,
                               const Tensor& bias_out) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [log_prob, logits] = call_nade(x, weight_in, bias_in, weight_out, bias_out);
    ctx->save_for_backward({x, weight_in, bias_in, weight_out, bias_out, logits});
    ctx->mark_non_differentiable({logits});
    return {log_prob, logits};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor none;
    if (!grads[0].defined()) return {none, none, none, none, none};
    std::array<bool, 4> needs;
    for (size_t i = 0; i < needs.size(); ++i) needs[i] = ctx->needs_input_grad(i + 1);
    const auto found =
        at::GradMode::is_enabled()  // create_graph: differentiated again
            ? nade_composite_backward(grads[0], saved[0], {saved[1], saved[2], saved[3], saved[4]},
                                      needs)
            : call_nade_backward(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
                                 saved[5]);
    return {none, needs[0] ? std::get<0>(found) : none, needs[1] ? std::get<1>(found) : none,
            needs[2] ? std::get<2>(found) : none, needs[3] ? std::get<3>(found) : none};
  }
};

NadeOutput nade_autograd(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                         const Tensor& weight_out, const Tensor& bias_out) {
  check_nade("nade", x, {weight_in, bias_in, weight_out, bias_out});
  TILEWRIGHT_CHECK("nade", !(x.requires_grad() && at::GradMode::is_enabled()),
                   "x is data and has no gradient, but it requires one: detach it");
  const auto results = NadeFunction::apply(x, weight_in, bias_in, weight_out, bias_out);
  return {results[0], results[1]};
}

// The backward's own backward only says where second derivatives come from.
class NadeBackwardFunction : public torch::autograd::Function<NadeBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const Tensor& grad, const Tensor& x,
                               const Tensor& weight_in, const Tensor& bias_in,
                               const Tensor& weight_out, const Tensor& bias_out,
                               const Tensor& logits) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [a, b, c, d] =
        call_nade_backward(grad, x, weight_in, bias_in, weight_out, bias_out, logits);
    return {a, b, c, d};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_nade_backward", false,
                     "is not differentiable; second derivatives come from nade with "
                     "create_graph=True");
  }
};

NadeGrads nade_backward_autograd(const Tensor& grad, const Tensor& x, const Tensor& weight_in,
                                 const Tensor& bias_in, const Tensor& weight_out,
                                 const Tensor& bias_out, const Tensor& logits) {
  const auto grads =
      NadeBackwardFunction::apply(grad, x, weight_in, bias_in, weight_out, bias_out, logits);
  return {grads[0], grads[1], grads[2], grads[3]};
}

// A sample has no gradient.
Tensor nade_sample_autograd(int64_t n, const Tensor& weight_in, const Tensor& bias_in,
                            const Tensor& weight_out, const Tensor& bias_out,
                            const std::optional<Tensor>& given,
                            std::optional<at::Generator> generator) {
  at::AutoDispatchBelowADInplaceOrView guard;
  return nade_sample(n, weight_in, bias_in, weight_out, bias_out, given, std::move(generator));
}

// Likelihoods are sums over many pixels, and the loops compute in float32 in any case.
template <c10::DispatchKey kKey, c10::DeviceType kDevice>
NadeOutput nade_autocast(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                         const Tensor& weight_out, const Tensor& bias_out) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const auto cast = [](const Tensor& tensor) {
    return tensor.defined() && tensor.scalar_type() != at::kDouble
               ? at::autocast::cached_cast(at::kFloat, tensor, kDevice)
               : tensor;
  };
  return call_nade(cast(x), cast(weight_in), cast(bias_in), cast(weight_out), cast(bias_out));
}

NadeOutput nade_meta(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                     const Tensor& weight_out, const Tensor& bias_out) {
  check_nade("nade", x, {weight_in, bias_in, weight_out, bias_out});
  return nade_output(x);
}

NadeGrads nade_backward_meta(const Tensor& grad, const Tensor& x, const Tensor& weight_in,
                             const Tensor& bias_in, const Tensor& weight_out,
                             const Tensor& bias_out, const Tensor& logits) {
  const NadeWeights weights{weight_in, bias_in, weight_out, bias_out};
  check_nade_backward("_nade_backward", grad, x, weights, logits);
  return nade_grads(weights);
}

Tensor nade_sample_meta(int64_t n, const Tensor& weight_in, const Tensor& bias_in,
                        const Tensor& weight_out, const Tensor& bias_out,
                        const std::optional<Tensor>& given, std::optional<at::Generator>) {
  check_nade_sample(n, {weight_in, bias_in, weight_out, bias_out}, given);
  return at::empty_symint({n, weight_in.sym_size(1)}, weight_in.options());
}

Tensor nade_composed(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
                     const Tensor& weight_out, const Tensor& bias_out) {
  check_given("nade", "x", x);
  return std::get<0>(call_nade(x, weight_in, bias_in, weight_out, bias_out));
}

}  // namespace

Tensor nade(const Tensor& x, const Tensor& weight_in, const Tensor& bias_in,
            const Tensor& weight_out, const Tensor& bias_out) {
  static const auto op = operator_handle<decltype(nade)>("tilewright::nade");
  return op.call(x, weight_in, bias_in, weight_out, bias_out);
}

Tensor nade_sample(int64_t n, const Tensor& weight_in, const Tensor& bias_in,
                   const Tensor& weight_out, const Tensor& bias_out,
                   const std::optional<Tensor>& given, std::optional<at::Generator> generator) {
  static const auto op = operator_handle<decltype(nade_sample)>("tilewright::nade_sample");
  return op.call(n, weight_in, bias_in, weight_out, bias_out, given, std::move(generator));
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "nade(Tensor x, Tensor weight_in, Tensor bias_in, Tensor weight_out, Tensor bias_out) -> "
      "Tensor log_prob",
      tags);
  m.def(
      "_nade(Tensor x, Tensor weight_in, Tensor bias_in, Tensor weight_out, Tensor bias_out) -> "
      "(Tensor log_prob, Tensor logits)",
      tags);
  m.def(
      "_nade_backward(Tensor grad, Tensor x, Tensor weight_in, Tensor bias_in, Tensor weight_out, "
      "Tensor bias_out, Tensor logits) -> (Tensor grad_weight_in, Tensor grad_bias_in, "
      "Tensor grad_weight_out, Tensor grad_bias_out)",
      tags);
  m.def(
      "nade_sample(int n, Tensor weight_in, Tensor bias_in, Tensor weight_out, Tensor bias_out, "
      "Tensor? given=None, Generator? generator=None) -> Tensor",
      {at::Tag::pt2_compliant_tag, at::Tag::nondeterministic_seeded});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) { m.impl("nade", &nade_composed); }
TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("_nade", &nade_autograd);
  m.impl("_nade_backward", &nade_backward_autograd);
  m.impl("nade_sample", &nade_sample_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("_nade", &nade_meta);
  m.impl("_nade_backward", &nade_backward_meta);
  m.impl("nade_sample", &nade_sample_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("_nade", &nade_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("_nade", &nade_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace tilewright
