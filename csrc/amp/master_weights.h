// float32 copies of 16-bit parameters, for updates that 16 bits would round away (arXiv:1710.03740,
// section 3.1).
//
//   tilewright::MasterWeights masters(model->parameters());
//   tilewright::FusedAdamW optimizer(masters.parameters());
//   ...
//   scaler.scale(loss).backward();
//   masters.take_gradients();   // after each backward(): they add up in float32
//   scaler.step(optimizer);
//   scaler.update();
//   masters.give_back();
//   optimizer.zero_grad();
#pragma once
#include <ATen/core/Tensor.h>
#include <torch/serialize/archive.h>

#include <vector>

#include "tilewright/core/export.h"

namespace tilewright {

struct MasterWeightsOptions {
  bool stochastic = false;  // bfloat16 parameters are rounded by chance: stochastic_round_
  int64_t seed = 0;         // of that
};

class TILEWRIGHT_API MasterWeights {
 public:
  // Parameters of float32 and float64 are their own masters. Errors: other than floating ones, and
  // one that is given twice.
  explicit MasterWeights(std::vector<at::Tensor> parameters, MasterWeightsOptions options = {});

  // For the optimizer, in the order that was given.
  const std::vector<at::Tensor>& parameters() const { return masters_; }
  // Moves gradients to the masters, in float32, and adds to those that are there.
  void take_gradients();
  // Writes the masters, rounded, to the model's parameters.
  void give_back();
  // Makes the masters what the model's parameters are, as after loading the model alone.
  void read_model();

  // The masters, and where chance stands. Loading writes to the model too, rounded as give_back
  // did last; an error where number or shapes differ, before anything is changed.
  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  std::vector<at::Tensor> model_, masters_;
  MasterWeightsOptions options_;
  int64_t rounds_ = 0;
};

}  // namespace tilewright
