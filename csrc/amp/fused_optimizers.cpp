#include "tilewright/amp/fused_optimizers.h"

#include <ATen/ATen.h>
#include <torch/optim/serialize.h>

#include <map>
#include <tuple>

#include "tilewright/core/check.h"
#include "tilewright/core/optional_tensor.h"

namespace tilewright {
namespace {

using at::Tensor;

// ATen's kernels take lists of one device and dtype.
using ListKey = std::tuple<c10::DeviceType, c10::DeviceIndex, at::ScalarType>;
ListKey list_of(const Tensor& parameter) {
  return {parameter.device().type(), parameter.device().index(), parameter.scalar_type()};
}

std::optional<Tensor> on(const Tensor& number, const Tensor& beside) {
  if (!number.defined()) return std::nullopt;
  return number.to(beside.device(), /*non_blocking=*/true);
}

Tensor loss_of(const torch::optim::Optimizer::LossClosure& closure) {
  if (closure == nullptr) return {};
  const at::AutoGradMode grad(true);
  return closure();
}

// Whether elements lie in memory alike: strides of sizes of 1 tell nothing.
bool same_layout(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// Before anything is changed. ATen's kernels walk parameters, gradients and state together through
// memory: gradients are given their parameter's layout.
void prepare_grads(const char* op, torch::optim::Optimizer& optimizer) {
  for (const auto& group : optimizer.param_groups()) {
    for (const Tensor& parameter : group.params()) {
      const Tensor& grad = parameter.grad();
      if (!grad.defined()) continue;
      TILEWRIGHT_CHECK(op, grad.layout() == at::kStrided,
                       "takes dense gradients, got one of layout ", grad.layout());
      TILEWRIGHT_CHECK(op, parameter.is_non_overlapping_and_dense(),
                       "takes parameters without gaps in memory, got one of shape ",
                       shape_of(parameter), " and strides ", parameter.strides());
    }
  }
  for (auto& group : optimizer.param_groups()) {
    for (Tensor& parameter : group.params()) {
      Tensor& grad = parameter.mutable_grad();
      if (!grad.defined() || same_layout(grad, parameter)) continue;
      grad = at::empty_like(parameter, grad.options()).copy_(grad);
    }
  }
}

struct AdamWLists {
  std::vector<Tensor> parameters, grads, averages, squares, greatest, steps;
};

struct SgdLists {
  std::vector<Tensor> parameters, grads, momenta;
};

// ATen's fused kernel leaves 16-bit parameters on the CPU as they are, but for the last few (torch
// 2.11): these go by single operators, in float32.
void short_sgd_on_cpu(const SgdLists& list, const torch::optim::SGDOptions& options,
                      const Tensor& grad_scale, const Tensor& found_inf) {
  if (found_inf.defined() && found_inf.item<float>() != 0) return;
  for (size_t i = 0; i < list.parameters.size(); ++i) {
    Tensor step = list.grads[i].to(at::kFloat);
    if (grad_scale.defined()) {
      step.div_(grad_scale.squeeze());
      list.grads[i].copy_(step);
    }
    const Tensor wide = list.parameters[i].to(at::kFloat);
    if (options.weight_decay() != 0) step.add_(wide, options.weight_decay());
    if (options.momentum() != 0) {
      const Tensor momentum = list.momenta[i].to(at::kFloat).mul_(options.momentum()).add_(step);
      list.momenta[i].copy_(momentum);
      step = options.nesterov() ? step.add_(momentum, options.momentum()) : momentum;
    }
    list.parameters[i].copy_(wide.sub(step, options.lr()));
  }
}

FusedAdamWState& adamw_state(torch::optim::Optimizer& optimizer, const Tensor& parameter,
                             bool amsgrad) {
  auto& slot = optimizer.state()[parameter.unsafeGetTensorImpl()];
  if (slot == nullptr) {
    auto state = std::make_unique<FusedAdamWState>();
    state->step(at::zeros({}, parameter.options().dtype(at::kFloat)));
    state->exp_avg(at::zeros_like(parameter, at::MemoryFormat::Preserve));
    state->exp_avg_sq(at::zeros_like(parameter, at::MemoryFormat::Preserve));
    if (amsgrad) state->max_exp_avg_sq(at::zeros_like(parameter, at::MemoryFormat::Preserve));
    slot = std::move(state);
  }
  return static_cast<FusedAdamWState&>(*slot);
}

}  // namespace

void FusedAdamWState::serialize(torch::serialize::OutputArchive& archive) const {
  _TORCH_OPTIM_SERIALIZE_TORCH_ARG(step);
  _TORCH_OPTIM_SERIALIZE_TORCH_ARG(exp_avg);
  _TORCH_OPTIM_SERIALIZE_TORCH_ARG(exp_avg_sq);
  _TORCH_OPTIM_SERIALIZE_TORCH_ARG(max_exp_avg_sq);
}
void FusedAdamWState::serialize(torch::serialize::InputArchive& archive) {
  _TORCH_OPTIM_DESERIALIZE_TORCH_ARG(Tensor, step);
  _TORCH_OPTIM_DESERIALIZE_TORCH_ARG(Tensor, exp_avg);
  _TORCH_OPTIM_DESERIALIZE_TORCH_ARG(Tensor, exp_avg_sq);
  _TORCH_OPTIM_DESERIALIZE_TORCH_ARG(Tensor, max_exp_avg_sq);
}

Tensor FusedAdamW::step(LossClosure closure) {
  const at::NoGradGuard no_grad;
  const Tensor loss = loss_of(closure);
  prepare_grads("FusedAdamW", *this);
  for (auto& group : param_groups()) {
    const auto& options = static_cast<torch::optim::AdamWOptions&>(group.options());
    std::map<ListKey, AdamWLists> lists;
    for (const Tensor& parameter : group.params()) {
      const Tensor& grad = parameter.grad();
      if (!grad.defined()) continue;
      FusedAdamWState& state = adamw_state(*this, parameter, options.amsgrad());
      AdamWLists& list = lists[list_of(parameter)];
      list.parameters.push_back(parameter);
      list.grads.push_back(grad);
      list.averages.push_back(state.exp_avg());
      list.squares.push_back(state.exp_avg_sq());
      if (options.amsgrad()) list.greatest.push_back(state.max_exp_avg_sq());
      list.steps.push_back(state.step());
    }
    for (auto& [key, list] : lists) {
      const auto found = on(found_inf_, list.parameters[0]);
      at::_foreach_add_(list.steps, 1);
      at::_fused_adamw_(list.parameters, list.grads, list.averages, list.squares, list.greatest,
                        list.steps, options.lr(), std::get<0>(options.betas()),
                        std::get<1>(options.betas()), options.weight_decay(), options.eps(),
                        options.amsgrad(), /*maximize=*/false, on(grad_scale_, list.parameters[0]),
                        found);
      if (found)
        at::_foreach_sub_(list.steps, std::vector<Tensor>(list.steps.size(), found->squeeze()));
    }
  }
  return loss;
}

void FusedAdamW::save(torch::serialize::OutputArchive& archive) const {
  torch::optim::serialize<FusedAdamWState, torch::optim::AdamWOptions>(archive, *this);
}
void FusedAdamW::load(torch::serialize::InputArchive& archive) {
  torch::optim::serialize<FusedAdamWState, torch::optim::AdamWOptions>(archive, *this);
}

Tensor FusedSGD::step(LossClosure closure) {
  const at::NoGradGuard no_grad;
  const Tensor loss = loss_of(closure);
  for (const auto& group : param_groups()) {
    const auto& options = static_cast<const torch::optim::SGDOptions&>(group.options());
    TILEWRIGHT_CHECK("FusedSGD", options.dampening() == 0, "takes no dampening, got ",
                     options.dampening());
  }
  prepare_grads("FusedSGD", *this);
  for (auto& group : param_groups()) {
    const auto& options = static_cast<torch::optim::SGDOptions&>(group.options());
    std::map<ListKey, SgdLists> lists;
    for (const Tensor& parameter : group.params()) {
      const Tensor& grad = parameter.grad();
      if (!grad.defined()) continue;
      SgdLists& list = lists[list_of(parameter)];
      list.parameters.push_back(parameter);
      list.grads.push_back(grad);
      if (options.momentum() == 0) continue;
      // Zeros: the first step is one like others, and may be left out.
      auto& slot = state_[parameter.unsafeGetTensorImpl()];
      if (slot == nullptr) {
        auto state = std::make_unique<torch::optim::SGDParamState>();
        state->momentum_buffer(at::zeros_like(parameter, at::MemoryFormat::Preserve));
        slot = std::move(state);
      }
      list.momenta.push_back(static_cast<torch::optim::SGDParamState&>(*slot).momentum_buffer());
    }
    for (auto& [key, list] : lists) {
      const Tensor& first = list.parameters[0];
      if (first.is_cpu() && first.element_size() == 2) {
        short_sgd_on_cpu(list, options, grad_scale_, found_inf_);
        continue;
      }
      at::_fused_sgd_(list.parameters, list.grads, list.momenta, options.weight_decay(),
                      options.momentum(), options.lr(), /*dampening=*/0, options.nesterov(),
                      /*maximize=*/false, /*is_first_step=*/false, on(grad_scale_, first),
                      on(found_inf_, first));
    }
  }
  return loss;
}

}  // namespace tilewright
