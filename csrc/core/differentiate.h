// First derivatives of a composition of ATen operators as functions that autograd can differentiate
// again: where the second derivatives of this project's operators come from.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/variable.h>

#include <vector>

namespace tilewright {

// Records a graph, free of autocast: it would round the products, and their derivatives.
struct DifferentiableHere {
  c10::AutoGradMode grad_mode{true};
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

// A name of its own for each input: one tensor may be given twice. Undefined of an undefined one.
at::Tensor own(const at::Tensor& tensor);

// Results of the composition beside the gradients that they received.
class DifferentiableOutputs {
 public:
  // Without a gradient, or where the result depends on no variable, there is nothing to add.
  void add(const at::Tensor& result, const at::Tensor& grad);
  // One gradient for each input: undefined where it is not needed, zeros where nothing depends on
  // it.
  std::vector<at::Tensor> differentiate(const std::vector<at::Tensor>& inputs,
                                        const std::vector<bool>& needed) const;

 private:
  std::vector<at::Tensor> results_, grads_;
};

}  // namespace tilewright
