// The definition of nade in ATen's operators: it stores all hidden units.
#include "tilewright/density/nade_composite.h"

#include <ATen/ATen.h>

#include "tilewright/core/differentiate.h"

namespace tilewright {

NadeGrads nade_composite_backward(const at::Tensor& grad, const at::Tensor& x,
                                  const NadeWeights& weights, const std::array<bool, 4>& needs) {
  const DifferentiableHere guard;
  const std::vector<at::Tensor> inputs{own(weights.weight_in), own(weights.bias_in),
                                       own(weights.weight_out), own(weights.bias_out)};
  const auto type = nade_sums_type(x.scalar_type());
  const auto wide = [&](size_t i) { return inputs[i].to(type); };
  const at::Tensor pixels = x.to(type);
  const at::Tensor shares = pixels.unsqueeze(2) * wide(0).t();  // (N, D, H)
  const at::Tensor before = at::cat(
      {at::zeros_like(shares.narrow(1, 0, 1)), shares.narrow(1, 0, x.size(1) - 1).cumsum(1)}, 1);
  const at::Tensor hidden = (before + wide(1)).sigmoid();
  const at::Tensor logits = (hidden * wide(2)).sum(2) + wide(3);
  DifferentiableOutputs outputs;
  outputs.add(at::log_sigmoid(logits * (2 * pixels - 1)).sum(1), grad);
  const auto found = outputs.differentiate(inputs, std::vector<bool>(needs.begin(), needs.end()));
  return {found[0], found[1], found[2], found[3]};
}

}  // namespace tilewright
