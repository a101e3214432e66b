// Grows one tree after the other on quantised features, on the CPU.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "tilewright/trees/tree_cpu.h"

namespace tilewright {

// Up to so many rows histograms are exact: speed is not what they lack.
inline constexpr int64_t kFewTreeRows = 32768;

struct TreeOptions {
  // A negative max_delta_step is the objective's own: 0.7 of Poisson (whose Objective takes
  // it as its parameter), else none.
  TreeRegularisation rules{1, 0, 0, 1, -1};
  int64_t max_depth = 6;   // 0: any
  int64_t max_leaves = 0;  // 0: any
  // By the greatest gain, not level by level.
  bool loss_guided = false;
  double colsample_bytree = 1, colsample_bylevel = 1, colsample_bynode = 1;
  std::vector<int8_t> monotone;  // by feature, or empty
  // By feature, or empty: codes are categories, and a split sends some of them right: one of up to
  // max_cat_to_onehot categories; else some at an end of their order by gradient, at most
  // max_cat_threshold on one side.
  std::vector<uint8_t> categorical;
  int64_t max_cat_to_onehot = 4, max_cat_threshold = 64;
  // Of the draws: two trees of a seed differ by their index.
  uint64_t seed = 0;
  uint32_t tree = 0;
};

// Nodes in the order of their making; the root is 0. Of leaves, feature is -1.
struct GrownTree {
  std::vector<int32_t> feature, code, left, right;
  std::vector<std::vector<int32_t>> categories;  // that go right, ascending; empty: by code
  // Of splits between values, NaN where all that is there goes left; empty: of bins, by code.
  std::vector<float> threshold;
  std::vector<uint8_t> default_left;
  int64_t outputs = 1;
  // (nodes, outputs): answers before the learning rate, of inner nodes too.
  std::vector<double> weight;
  std::vector<double> gain, cover;
  std::vector<TreeBounds> bounds;  // of answers
  // Where the leaves' rows stand with the grower: those of one leaf, or of two that flags tell
  // apart.
  struct Rows {
    int32_t leaf, other;  // other: of rows without a flag, or -1
    int side;
    int64_t begin, end;
  };
  std::vector<Rows> rows;
};

// What a round of boosting asks of what grows its trees.
class Grower {
 public:
  virtual ~Grower() = default;

  // gradients, hessians: (N,) float32 or float64, contiguous. `rows`: those that take part,
  // ascending, or empty for all.
  virtual GrownTree grow(const at::Tensor& gradients, const at::Tensor& hessians,
                         const std::vector<int32_t>& rows, const TreeOptions& options) = 0;

  // The same with leaves of an entry for each output: gradients, hessians (outputs, N). A split
  // gains the sum over outputs; min_child_weight limits the mean of their hessians. No categories,
  // no monotone constraints.
  virtual GrownTree grow_vectors(const at::Tensor& gradients, const at::Tensor& hessians,
                                 const std::vector<int32_t>& rows, const TreeOptions& options) = 0;

  // Has each leaf of the last tree answer with a quantile of its rows' residuals, labels - scores,
  // in one output. `weights`: null for none.
  virtual void answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                                const float* weights, double alpha, int64_t output) const = 0;

  // scores[row] += values[leaf] for all rows, of the last tree.
  virtual void add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                             float* scores) const = 0;
};

class TreeGrower : public Grower {
 public:
  // codes: (N, F) uint8 or int16, any strides; bins: (F,) int32, the codes in use of each feature.
  // `num_codes` counts them, the last for missing. `outputs`: of vector leaves, which grow_vectors
  // grows; 0: grow is called.
  TreeGrower(const at::Tensor& codes, const at::Tensor& bins, int64_t num_codes,
             int64_t outputs = 0);
  // Of N rows of codes, uint8 or int16, that take_codes brings before a tree grows.
  TreeGrower(int64_t rows, at::ScalarType code, const at::Tensor& bins, int64_t num_codes,
             int64_t outputs);
  // Those of the rows from `first` on.
  void take_codes(int64_t first, const at::Tensor& codes);
  ~TreeGrower() override;

  GrownTree grow(const at::Tensor& gradients, const at::Tensor& hessians,
                 const std::vector<int32_t>& rows, const TreeOptions& options) override;
  GrownTree grow_vectors(const at::Tensor& gradients, const at::Tensor& hessians,
                         const std::vector<int32_t>& rows, const TreeOptions& options) override;
  void answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                        const float* weights, double alpha, int64_t output) const override;
  void add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                     float* scores) const override;

  struct Workspace;

 private:
  void take_rows(const std::vector<int32_t>& rows);
  void refine(const TreeWordsParams& params, const TreeRegularisation& rules, GrownTree& tree,
              int64_t output = 0) const;
  void add_by_walking(const GrownTree& tree, const std::vector<float>& values, float* scores) const;

  std::unique_ptr<Workspace> work_;
};

}  // namespace tilewright
