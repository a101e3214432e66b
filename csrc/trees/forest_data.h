// What the trees of a forest share: quantised features and labels.
#pragma once
#include <ATen/core/Tensor.h>

#include "tilewright/core/huge_pages.h"
#include "tilewright/trees/forest_cpu.h"
#include "tilewright/trees/input_table.h"

namespace tilewright::trees {

// Features and labels of a training set. Weights: (N,) float64 contiguous, or undefined; rows that
// weigh nothing take no part in anything.
class ForestData {
 public:
  // How rows of codes lie: each in as few lines of the cache as can be, or one upon the other.
  enum class Rows { kAligned, kDense };
  ForestData(const InputTable& x, const at::Tensor& weights, int64_t max_bin,
             Rows layout = Rows::kAligned);

  // labels: (N,) int16 in [0, num_class). values: (N, O) float64.
  void set_labels(const at::Tensor& labels, int64_t num_class);
  void set_values(const at::Tensor& values);

  const ForestTable& table() const { return table_; }
  const at::Tensor& cuts() const { return cuts_; }
  const at::Tensor& weights() const { return weights_; }
  int64_t rows() const { return rows_; }
  double greatest() const { return greatest_; }  // magnitude of values less the centre

 private:
  // Of the features from `first` on, whose values are x.
  void find_extremes(int64_t first, const at::Tensor& x);
  int64_t rows_;
  at::Tensor cuts_, bins_, weights_, labels_, values_, centre_, least_, most_;
  HugeBuffer codes_;
  double greatest_ = 0;
  ForestTable table_{};
};

}  // namespace tilewright::trees
