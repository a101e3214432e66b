// The trees of a fit that runs on CUDA: grown by grow_tree, kept on the device, and brought to the
// host many at a time.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "tilewright/trees/booster.h"
#include "tilewright/trees/device_draws.h"

namespace tilewright::trees {

// What a fit there cannot do is an error that names the option. `x`: the training set's.
void check_device_fit(const BoosterOptions& options, const Objective& objective,
                      const at::Tensor& x);

class DeviceGrower {
 public:
  // codes (N, F), cuts (F, max_bin) and their count (F,): quantize_features' and feature_cuts', on
  // the device. `options` must outlive the object.
  DeviceGrower(const BoosterOptions& options, int64_t outputs, const at::Tensor& codes,
               const at::Tensor& cuts, const at::Tensor& count);

  // Grows a tree for each output and adds what its leaves answer, times `rate`, to sums (K, N).
  // gradients, hessians: (K, N). Draws depend on `round`. Asks the device for nothing, but copies
  // drawn columns to it where `round` is the first of many.
  void grow(int64_t round, at::Tensor gradients, at::Tensor hessians, double rate,
            at::Tensor& sums);

  // The trees of the last round as predict_trees takes them, on the device, in the places of full
  // trees; what no row reaches is a leaf.
  EnsembleArrays last_round();

  // Whether the trees on the device should be brought away, since they take much memory.
  bool is_full() const;
  // Moves all trees on the device to the builder, in the form that the CPU's have. Waits for the
  // device.
  void give(ArraysBuilder& builder);

 private:
  // grow_tree's arrays (M,), and what a place answers.
  struct Tree {
    at::Tensor feature, code, default_left, weight, gain, cover, answer;
    double rate;
    int64_t output;
  };

  const BoosterOptions& options_;
  const int64_t outputs_, places_;
  const at::Tensor codes_, cuts_, bins_, host_cuts_;
  std::optional<at::Tensor> monotone_;
  ColumnMasks columns_;
  std::vector<Tree> trees_;       // that no builder has got yet
  std::vector<Tree> last_round_;  // one for each output
  at::Tensor children_;           // (K * M,) int32: the left child of each place, were it split
};

}  // namespace tilewright::trees
