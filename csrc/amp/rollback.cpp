#include "tilewright/amp/rollback.h"

#include <torch/optim/lbfgs.h>
#include <torch/serialize/archive.h>

#include <sstream>

namespace tilewright {
namespace {

using at::Tensor;
using torch::optim::LBFGSParamState;
using torch::optim::OptimizerParamState;

Tensor copy_of(const Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; }
template <class List>
List copies_of(const List& list) {
  List copies;
  for (const Tensor& tensor : list) copies.push_back(copy_of(tensor));
  return copies;
}

// clone() would share the tensors. Others than LBFGS's go through a file, which torch cannot write
// of that one before its history is full.
std::unique_ptr<OptimizerParamState> copy_of(const OptimizerParamState& state) {
  std::unique_ptr<OptimizerParamState> copy = state.clone();
  if (auto* lbfgs = dynamic_cast<LBFGSParamState*>(copy.get())) {
    lbfgs->d(copy_of(lbfgs->d()));
    lbfgs->H_diag(copy_of(lbfgs->H_diag()));
    lbfgs->prev_flat_grad(copy_of(lbfgs->prev_flat_grad()));
    lbfgs->old_dirs(copies_of(lbfgs->old_dirs()));
    lbfgs->old_stps(copies_of(lbfgs->old_stps()));
    lbfgs->ro(copies_of(lbfgs->ro()));
    if (lbfgs->al()) lbfgs->al(copies_of(*lbfgs->al()));
    return copy;
  }
  torch::serialize::OutputArchive written;
  state.serialize(written);
  std::stringstream bytes;
  written.save_to(bytes);
  torch::serialize::InputArchive read;
  read.load_from(bytes);
  copy->serialize(read);
  return copy;
}

}  // namespace

Rollback::Rollback(torch::optim::Optimizer& optimizer) : optimizer_(optimizer) {
  for (const auto& group : optimizer.param_groups()) {
    for (const Tensor& parameter : group.params()) values_.push_back(parameter.detach().clone());
  }
  for (const auto& [parameter, state] : optimizer.state()) states_[parameter] = copy_of(*state);
}

void Rollback::undo() {
  const at::NoGradGuard no_grad;
  size_t i = 0;
  for (auto& group : optimizer_.param_groups()) {
    for (Tensor& parameter : group.params()) parameter.copy_(values_[i++]);
  }
  optimizer_.state() = std::move(states_);
}

}  // namespace tilewright
