// contrastive_lse's front: one operator within, `_contrastive_lse`, whose shapes, autograd and
// autocast are here.
#include "tilewright/contrastive/contrastive_lse.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "tilewright/contrastive/contrastive_args.h"
#include "tilewright/contrastive/contrastive_composite.h"
#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/core/optional_tensor.h"

namespace tilewright {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ContrastiveSums call_contrastive_lse(const Tensor& query, const OptionalTensor& key,
                                     const OptionalTensor& exclude, double scale, bool columns,
                                     int64_t exclude_count, bool diagonal) {
  static const auto op =
      operator_handle<decltype(call_contrastive_lse)>("tilewright::_contrastive_lse");
  return op.call(query, key, exclude, scale, columns, exclude_count, diagonal);
}

ContrastiveGrads call_contrastive_lse_backward(const Tensor& grad_rows, const Tensor& grad_columns,
                                               const Tensor& query, const OptionalTensor& key,
                                               const OptionalTensor& exclude, const Tensor& rows,
                                               const Tensor& columns, double scale,
                                               bool with_columns, int64_t exclude_count,
                                               bool diagonal, ContrastiveNeeds needs) {
  static const auto op = operator_handle<decltype(call_contrastive_lse_backward)>(
      "tilewright::_contrastive_lse_backward");
  return op.call(grad_rows, grad_columns, query, key, exclude, rows, columns, scale, with_columns,
                 exclude_count, diagonal, needs);
}

class ContrastiveFunction : public torch::autograd::Function<ContrastiveFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Tensor& query, const OptionalTensor& key,
                               const OptionalTensor& exclude, const ContrastiveArgs& args) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [rows, columns] = call_contrastive_lse(query, key, exclude, args.scale, args.columns,
                                                      args.exclude_count, args.diagonal);
    auto& data = ctx->saved_data;
    data["scale"] = args.scale;
    data["columns"] = args.columns;
    data["exclude_count"] = args.exclude_count;
    data["diagonal"] = args.diagonal;
    ctx->save_for_backward(
        {query, key.value_or(Tensor()), exclude.value_or(Tensor()), rows, columns});
    if (!args.columns) ctx->mark_non_differentiable({columns});
    return {rows, columns};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& data = ctx->saved_data;
    const OptionalTensor key = optional_of(saved[1]), exclude = optional_of(saved[2]);
    const ContrastiveArgs args("contrastive_lse", key, data.at("scale").toDouble(),
                               data.at("columns").toBool(), data.at("exclude_count").toInt(),
                               data.at("diagonal").toBool());
    const ContrastiveNeeds needs{ctx->needs_input_grad(0), key && ctx->needs_input_grad(1)};
    const auto given = [](const Tensor& grad, const Tensor& like) {
      return grad.defined() ? grad : at::zeros_like(like);
    };
    const Tensor rows = given(grads[0], saved[3]), columns = given(grads[1], saved[4]);
    const auto [query_grad, key_grad] =
        at::GradMode::is_enabled()  // create_graph: the gradients are differentiated again
            ? contrastive_composite_backward(args, {rows, columns}, saved[0], key, exclude, needs)
            : call_contrastive_lse_backward(rows, columns, saved[0], key, exclude, saved[3],
                                            saved[4], args.scale, args.columns, args.exclude_count,
                                            args.diagonal, needs);
    const Tensor none;
    return {needs[0] ? query_grad : none, needs[1] ? key_grad : none, none, none};
  }
};

ContrastiveSums contrastive_lse_autograd(const Tensor& query, const OptionalTensor& key,
                                         const OptionalTensor& exclude, double scale, bool columns,
                                         int64_t exclude_count, bool diagonal) {
  const ContrastiveArgs args("contrastive_lse", key, scale, columns, exclude_count, diagonal);
  check_given(args.op, "query", query);
  const auto sums = ContrastiveFunction::apply(query, key, exclude, args);
  return {sums[0], sums[1]};
}

// The backward's own backward only says where second derivatives come from.
class ContrastiveBackwardFunction : public torch::autograd::Function<ContrastiveBackwardFunction> {
 public:
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext*, const Tensor& grad_rows,
                               const Tensor& grad_columns, const Tensor& query,
                               const OptionalTensor& key, const OptionalTensor& exclude,
                               const Tensor& rows, const Tensor& columns,
                               const ContrastiveArgs& args, ContrastiveNeeds needs) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [query_grad, key_grad] = call_contrastive_lse_backward(
        grad_rows, grad_columns, query, key, exclude, rows, columns, args.scale, args.columns,
        args.exclude_count, args.diagonal, needs);
    return {query_grad, key_grad};
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TILEWRIGHT_CHECK("_contrastive_lse_backward", false,
                     "is not differentiable; second derivatives come from contrastive_lse with "
                     "create_graph=True");
  }
};

ContrastiveGrads contrastive_lse_backward_autograd(
    const Tensor& grad_rows, const Tensor& grad_columns, const Tensor& query,
    const OptionalTensor& key, const OptionalTensor& exclude, const Tensor& rows,
    const Tensor& columns, double scale, bool with_columns, int64_t exclude_count, bool diagonal,
    ContrastiveNeeds needs) {
  const ContrastiveArgs args("_contrastive_lse_backward", key, scale, with_columns, exclude_count,
                             diagonal);
  const auto grads = ContrastiveBackwardFunction::apply(grad_rows, grad_columns, query, key,
                                                        exclude, rows, columns, args, needs);
  return {grads[0], grads[1]};
}

// Products may be of autocast's dtype; their sums are float32 all the same.
template <c10::DispatchKey kKey, c10::DeviceType kDevice>
ContrastiveSums contrastive_lse_autocast(const Tensor& query, const OptionalTensor& key,
                                         const OptionalTensor& exclude, double scale, bool columns,
                                         int64_t exclude_count, bool diagonal) {
  c10::impl::ExcludeDispatchKeyGuard guard(kKey);
  const auto cast = [](const Tensor& tensor) {
    return at::autocast::cached_cast(at::autocast::get_autocast_dtype(kDevice), tensor, kDevice);
  };
  return call_contrastive_lse(cast(query), key ? OptionalTensor(cast(*key)) : key, exclude, scale,
                              columns, exclude_count, diagonal);
}

ContrastiveSums contrastive_lse_meta(const Tensor& query, const OptionalTensor& key,
                                     const OptionalTensor& exclude, double scale, bool columns,
                                     int64_t exclude_count, bool diagonal) {
  const ContrastiveArgs args("contrastive_lse", key, scale, columns, exclude_count, diagonal);
  check_contrastive(args, query, key, exclude);
  return contrastive_output(args, query, key);
}

ContrastiveGrads contrastive_lse_backward_meta(const Tensor& grad_rows, const Tensor& grad_columns,
                                               const Tensor& query, const OptionalTensor& key,
                                               const OptionalTensor& exclude, const Tensor& rows,
                                               const Tensor& columns, double scale,
                                               bool with_columns, int64_t exclude_count,
                                               bool diagonal, ContrastiveNeeds needs) {
  check_contrastive_backward(ContrastiveArgs("_contrastive_lse_backward", key, scale, with_columns,
                                             exclude_count, diagonal),
                             {grad_rows, grad_columns}, query, key, exclude, {rows, columns});
  return contrastive_grads(query, key, needs);
}

Tensor contrastive_lse_composed(const Tensor& query, const Tensor& key,
                                const OptionalTensor& exclude, double scale,
                                int64_t exclude_count) {
  check_given("contrastive_lse", "key", key);
  return std::get<0>(call_contrastive_lse(query, key, exclude, scale, /*columns=*/false,
                                          exclude_count,
                                          /*diagonal=*/false));
}

}  // namespace

Tensor contrastive_lse(const Tensor& query, const Tensor& key, const OptionalTensor& exclude,
                       double scale, int64_t exclude_count) {
  static const auto op = operator_handle<decltype(contrastive_lse)>("tilewright::contrastive_lse");
  return op.call(query, key, exclude, scale, exclude_count);
}

Tensor contrastive_lse_off_diagonal(const Tensor& query, const Tensor& key, double scale) {
  return std::get<0>(call_contrastive_lse(query, key, {}, scale, /*columns=*/false,
                                          /*exclude_count=*/1, /*diagonal=*/true));
}

ContrastiveSums contrastive_lse_both(const Tensor& query, const Tensor& key, double scale,
                                     bool without_diagonal) {
  return call_contrastive_lse(query, key, {}, scale, /*columns=*/true, /*exclude_count=*/1,
                              without_diagonal);
}

Tensor contrastive_lse_self(const Tensor& views, double scale, int64_t exclude_count) {
  return std::get<0>(call_contrastive_lse(views, {}, {}, scale, /*columns=*/false, exclude_count,
                                          /*diagonal=*/true));
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "contrastive_lse(Tensor query, Tensor key, Tensor? exclude=None, *, float scale=1.0, "
      "int exclude_count=1) -> Tensor",
      tags);
  m.def(
      "_contrastive_lse(Tensor query, Tensor? key, Tensor? exclude, float scale, bool columns, "
      "int exclude_count=1, bool diagonal=False) -> (Tensor rows, Tensor columns)",
      tags);
  m.def(
      "_contrastive_lse_backward(Tensor grad_rows, Tensor grad_columns, Tensor query, Tensor? key, "
      "Tensor? exclude, Tensor rows, Tensor columns, float scale, bool with_columns, "
      "int exclude_count, bool diagonal, bool[2] needs) -> (Tensor grad_query, Tensor grad_key)",
      tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("contrastive_lse", &contrastive_lse_composed);
}
TORCH_LIBRARY_IMPL(tilewright, Autograd, m) {
  m.impl("_contrastive_lse", &contrastive_lse_autograd);
  m.impl("_contrastive_lse_backward", &contrastive_lse_backward_autograd);
}
TORCH_LIBRARY_IMPL(tilewright, Meta, m) {
  m.impl("_contrastive_lse", &contrastive_lse_meta);
  m.impl("_contrastive_lse_backward", &contrastive_lse_backward_meta);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCPU, m) {
  m.impl("_contrastive_lse", &contrastive_lse_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(tilewright, AutocastCUDA, m) {
  m.impl("_contrastive_lse", &contrastive_lse_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace tilewright
