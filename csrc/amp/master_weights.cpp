#include "tilewright/amp/master_weights.h"

#include <ATen/ATen.h>

#include "tilewright/amp/stochastic_round.h"
#include "tilewright/core/check.h"

namespace tilewright {
namespace {

using at::Tensor;

bool is_short(const Tensor& parameter) {
  return parameter.scalar_type() == at::kHalf || parameter.scalar_type() == at::kBFloat16;
}

}  // namespace

MasterWeights::MasterWeights(std::vector<Tensor> parameters, MasterWeightsOptions options)
    : model_(std::move(parameters)), options_(options) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < model_.size(); ++i) {
    const Tensor& parameter = model_[i];
    TILEWRIGHT_CHECK("MasterWeights", parameter.defined() && parameter.is_floating_point(),
                     "parameter ", i, " must be floating, got ",
                     parameter.defined() ? toString(parameter.scalar_type()) : "None");
    for (size_t j = 0; j < i; ++j) {
      TILEWRIGHT_CHECK("MasterWeights", !parameter.is_same(model_[j]), "parameter ", i,
                       " is parameter ", j, " again: give each one once");
    }
    masters_.push_back(
        is_short(parameter)
            ? parameter.detach().to(at::kFloat).requires_grad_(parameter.requires_grad())
            : parameter);
  }
}

void MasterWeights::take_gradients() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < model_.size(); ++i) {
    if (model_[i].is_same(masters_[i]) || !model_[i].grad().defined()) continue;
    const Tensor grad = model_[i].grad().to(masters_[i].scalar_type());
    Tensor& there = masters_[i].mutable_grad();
    if (!there.defined()) {
      there = grad;
    } else if (there.is_sparse() && !grad.is_sparse()) {
      there = grad + there;
    } else {
      there.add_(grad);
    }
    model_[i].mutable_grad().reset();
  }
}

void MasterWeights::give_back() {
  const at::NoGradGuard no_grad;
  std::vector<c10::Device> devices;
  std::vector<std::vector<Tensor>> outputs, inputs;  // of each device
  for (size_t i = 0; i < model_.size(); ++i) {
    if (model_[i].is_same(masters_[i])) continue;
    if (!options_.stochastic || model_[i].scalar_type() != at::kBFloat16) {
      model_[i].copy_(masters_[i]);
      continue;
    }
    size_t d = 0;
    while (d < devices.size() && devices[d] != model_[i].device()) ++d;
    if (d == devices.size()) {
      devices.push_back(model_[i].device());
      outputs.emplace_back();
      inputs.emplace_back();
    }
    outputs[d].push_back(model_[i]);
    inputs[d].push_back(masters_[i]);
  }
  for (size_t d = 0; d < devices.size(); ++d) {
    const Tensor state = at::tensor({options_.seed, rounds_}, at::kLong).to(devices[d]);
    stochastic_round_(outputs[d], inputs[d], state);
  }
  ++rounds_;
}

void MasterWeights::read_model() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < model_.size(); ++i) {
    if (!model_[i].is_same(masters_[i])) masters_[i].copy_(model_[i]);
  }
}

void MasterWeights::save(torch::serialize::OutputArchive& archive) const {
  for (size_t i = 0; i < masters_.size(); ++i) {
    archive.write(std::to_string(i), masters_[i].detach());
  }
  archive.write("seed", c10::IValue(options_.seed));
  archive.write("rounds", c10::IValue(rounds_));
}

void MasterWeights::load(torch::serialize::InputArchive& archive) {
  const at::NoGradGuard no_grad;
  constexpr size_t kOthers = 2;  // seed and rounds
  const size_t written = archive.keys().size();
  TILEWRIGHT_CHECK("MasterWeights", written == masters_.size() + kOthers, "expected an archive of ",
                   masters_.size(), " masters, seed and rounds, got ", written, " entries");
  std::vector<Tensor> read(masters_.size());
  for (size_t i = 0; i < read.size(); ++i) {
    archive.read(std::to_string(i), read[i]);
    TILEWRIGHT_CHECK("MasterWeights", read[i].sizes().equals(masters_[i].sizes()), "parameter ", i,
                     " must have shape ", shape_of(masters_[i]), ", got ", shape_of(read[i]));
  }
  c10::IValue seed, rounds;
  archive.read("seed", seed);
  archive.read("rounds", rounds);
  options_.seed = seed.toInt();
  rounds_ = rounds.toInt();
  for (size_t i = 0; i < read.size(); ++i) masters_[i].copy_(read[i]);
  --rounds_;  // the last round again, of the same chance
  give_back();
}

}  // namespace tilewright
