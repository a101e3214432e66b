#include "tilewright/amp/optimizer_grads.h"

#include <ATen/ATen.h>

#include "tilewright/amp/unscale.h"

namespace tilewright {

using at::Tensor;

namespace {

// The 2-norm of all devices' norms, added in float64.
Tensor together(std::vector<Tensor>& norms, const Tensor& beside) {
  if (norms.empty()) return at::zeros({}, beside.options());
  if (norms.size() == 1) return norms[0];
  at::ScalarType dtype = at::kFloat;
  for (Tensor& one : norms) {
    dtype = at::promote_types(dtype, one.scalar_type());
    one = one.to(at::kDouble);
  }
  return at::stack(norms).norm().to(dtype);
}

}  // namespace

OptimizerGrads::OptimizerGrads(torch::optim::Optimizer& optimizer) {
  size_t place = 0;
  for (const auto& group : optimizer.param_groups()) parameters_ += group.params().size();
  const auto on = [&](c10::Device device) -> std::vector<Tensor>& {
    for (auto& [known, grads] : by_device_) {
      if (known == device) return grads;
    }
    const Tensor none = at::empty({0}, at::TensorOptions().device(device));
    by_device_.emplace_back(device, std::vector<Tensor>(parameters_, none));
    return by_device_.back().second;
  };
  for (auto& group : optimizer.param_groups()) {
    for (Tensor& parameter : group.params()) {
      Tensor& grad = parameter.mutable_grad();
      if (grad.defined()) {
        if (grad.layout() == at::kSparse) {
          // Entries that stand for one place are added now: the sum may be infinite.
          grad = grad.coalesce();
          on(grad.device())[place] = grad._values().detach();
        } else {
          on(grad.device())[place] = grad.detach();
        }
      }
      ++place;
    }
  }
}

FoundInf OptimizerGrads::unscale(const Tensor& inv_scale, Tensor* norm, bool write) const {
  const at::NoGradGuard no_grad;
  FoundInf all(inv_scale.device());
  std::vector<Tensor> norms;
  for (const auto& [device, grads] : by_device_) {
    FoundInf found(device);
    const Tensor inv = inv_scale.to(device, /*non_blocking=*/true);
    if (norm != nullptr) {
      norms.push_back(unscale_and_norm_(grads, found.found, inv, found.first, write)
                          .to(inv_scale.device(), /*non_blocking=*/true));
    } else {
      unscale_(grads, found.found, inv, found.first, write);
    }
    all.join(found);
  }
  if (norm != nullptr) *norm = together(norms, inv_scale);
  return all;
}

void OptimizerGrads::multiply(const Tensor& factor) const {
  const at::NoGradGuard no_grad;
  const Tensor by = factor.to(at::kFloat).view({1});
  if (by.is_cpu() && by.item<float>() == 1) return;
  for (const auto& [device, grads] : by_device_) {
    unscale_(grads, at::zeros({1}, by.options().device(device)),
             by.to(device, /*non_blocking=*/true));
  }
}

}  // namespace tilewright
