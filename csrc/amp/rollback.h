// Steps with a closure may have changed parameters before a gradient turns out to be infinite.
#pragma once
#include <torch/optim/optimizer.h>

#include <vector>

namespace tilewright {

// A copy of an optimizer's parameters and of its state, to go back to.
class Rollback {
 public:
  explicit Rollback(torch::optim::Optimizer& optimizer);
  void undo();

 private:
  using States = std::decay_t<decltype(std::declval<torch::optim::Optimizer&>().state())>;
  torch::optim::Optimizer& optimizer_;
  std::vector<at::Tensor> values_;
  States states_;
};

}  // namespace tilewright
