// What rounds draw where a fit runs on CUDA: masks, since what is drawn must change no shape, of
// the rows and columns that a fit on the CPU draws.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "tilewright/trees/booster.h"

namespace tilewright::trees {

// The rows of a round by draw_rows_of_round()'s rule, (N,) bool; null: all. Asks the device for
// nothing.
std::optional<at::Tensor> draw_mask_of_round(const RowSampling& sampling, double learning_rate,
                                             int64_t round, int64_t seed, const at::Tensor& codes,
                                             at::Tensor& gradients, at::Tensor& hessians);

// The columns of trees, drawn on the host and copied for many trees at a time.
class ColumnMasks {
 public:
  ColumnMasks(const BoosterOptions& options, int64_t outputs, int64_t features, at::Device device);
  // (F,) bool of the tree with that index; null: all. Indices only grow.
  std::optional<at::Tensor> of_tree(int64_t tree);

 private:
  double share_;
  uint64_t seed_;
  int64_t features_, at_once_;
  at::Device device_;
  int64_t first_ = 0;
  at::Tensor masks_;  // (trees from first_ on, F)
};

}  // namespace tilewright::trees
