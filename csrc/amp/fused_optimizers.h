// Optimizers on ATen's fused kernels, which torch::optim does not use: one pass over parameters,
// gradients and state, and steps that the device leaves out where a LossScaler found inf or NaN.
#pragma once
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include "tilewright/core/export.h"

namespace tilewright {

// What LossScaler tells an optimizer that decides on the device.
class TILEWRIGHT_API FusedStep {
 public:
  virtual ~FusedStep() = default;
  // The next step divides gradients by grad_scale and writes them so, and does nothing where
  // found_inf is not 0: (1,) float32 both, or undefined. They hold until they are set again.
  void set_amp(at::Tensor found_inf, at::Tensor grad_scale) {
    found_inf_ = std::move(found_inf);
    grad_scale_ = std::move(grad_scale);
  }

 protected:
  at::Tensor found_inf_, grad_scale_;
};

struct TILEWRIGHT_API FusedAdamWState
    : public torch::optim::OptimizerCloneableParamState<FusedAdamWState> {
  TORCH_ARG(torch::Tensor, step);  // float32, one number on the device: steps left out do not count
  TORCH_ARG(torch::Tensor, exp_avg);
  TORCH_ARG(torch::Tensor, exp_avg_sq);
  TORCH_ARG(torch::Tensor, max_exp_avg_sq);

 public:
  void serialize(torch::serialize::InputArchive& archive) override;
  void serialize(torch::serialize::OutputArchive& archive) const override;
};

// torch::optim::AdamW and its options (Loshchilov & Hutter, arXiv:1711.05101). Errors, before
// anything is changed: sparse gradients, parameters with gaps in memory.
class TILEWRIGHT_API FusedAdamW : public torch::optim::AdamW, public FusedStep {
 public:
  using AdamW::AdamW;
  at::Tensor step(LossClosure closure = nullptr) override;
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;
};

// torch::optim::SGD, its options and its state. Errors: the same; and dampening, with which the
// first step differs from others: only the device knows whether there was one. 16-bit parameters on
// the CPU go by single operators: ATen's fused kernel leaves them as they are (torch 2.11).
class TILEWRIGHT_API FusedSGD : public torch::optim::SGD, public FusedStep {
 public:
  using SGD::SGD;
  at::Tensor step(LossClosure closure = nullptr) override;
};

}  // namespace tilewright
