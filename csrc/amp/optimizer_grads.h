// The gradients of an optimizer's parameters, by device.
#pragma once
#include <torch/optim/optimizer.h>

#include <vector>

#include "tilewright/amp/loss_scale.h"

namespace tilewright {

class OptimizerGrads {
 public:
  // Of sparse gradients, which are coalesced, the values.
  explicit OptimizerGrads(torch::optim::Optimizer& optimizer);

  size_t parameters() const { return parameters_; }  // with gradient or without
  // Numbers in FoundInf are places among all parameters. norm, where wanted: their 2-norm.
  // write: or gradients are only looked at, as they would be.
  FoundInf unscale(const at::Tensor& inv_scale, at::Tensor* norm, bool write) const;
  void multiply(const at::Tensor& factor) const;

 private:
  size_t parameters_ = 0;
  // A tensor for every parameter: of no elements where there is no gradient on the device.
  std::vector<std::pair<c10::Device, std::vector<at::Tensor>>> by_device_;
};

}  // namespace tilewright
