// Autograd's gradients of a composition, with a graph of their own.
#include "tilewright/core/differentiate.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

namespace tilewright {

at::Tensor own(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.view_as(tensor) : tensor;
}

void DifferentiableOutputs::add(const at::Tensor& result, const at::Tensor& grad) {
  if (!grad.defined() || !result.requires_grad()) return;
  results_.push_back(result);
  grads_.push_back(grad);
}

std::vector<at::Tensor> DifferentiableOutputs::differentiate(
    const std::vector<at::Tensor>& inputs, const std::vector<bool>& needed) const {
  std::vector<at::Tensor> asked, found(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (needed[i]) asked.push_back(inputs[i]);
  }
  if (asked.empty()) return found;
  std::vector<at::Tensor> grads(asked.size());
  if (!results_.empty()) {
    grads = torch::autograd::grad(results_, asked, grads_, /*retain_graph=*/true,
                                  /*create_graph=*/true, /*allow_unused=*/true);
  }
  for (size_t i = 0, next = 0; i < inputs.size(); ++i) {
    if (!needed[i]) continue;
    found[i] = grads[next++];
    if (!found[i].defined()) found[i] = at::zeros_like(inputs[i]);
  }
  return found;
}

}  // namespace tilewright
