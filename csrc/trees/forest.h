// Random forests and extremely randomised trees for C++ users: fit, predict, what rows were left
// out of the bag.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "tilewright/core/export.h"
#include "tilewright/trees/tree_arrays.h"
#include "tilewright/trees/tree_ensemble.h"

namespace tilewright::trees {

// What a single tree of a forest or of AdaBoost is held to; names and rules are scikit-learn's.
struct ForestTreeOptions {
  // "gini", "entropy" or "log_loss" for classes; "squared_error" for values.
  std::string criterion = "gini";
  int64_t max_features = 0;  // drawn for each node; more where those are all constant; 0: all
  int64_t max_depth = 0;     // 0: any
  int64_t max_leaves = 0;    // 0: any; else the leaf of the greatest decrease splits first
  int64_t min_samples_split = 2, min_samples_leaf = 1;
  double min_weight_fraction_leaf = 0, min_impurity_decrease = 0;
  bool random_thresholds = false;  // one threshold a feature, drawn between its extremes
  int64_t max_bin = 16383;         // values of a feature that are told apart, at most
};

struct ForestOptions {
  ForestTreeOptions tree;
  int64_t num_class = 2;  // at most 2^15; 0: values
  int64_t n_estimators = 100;
  bool bootstrap = true;
  int64_t max_samples = 0;  // rows drawn with replacement for each tree; 0: as many as there are
  // Weighs the classes of each bag so that they weigh the same; with bootstrap.
  bool balanced_subsample = false;
  int64_t seed = 0;
};

// After each tree, by the thread that grew it, one call at a time: how many are done.
using TreeCallback = std::function<void(int64_t done)>;

// Breiman's random forest (Machine Learning 45, 2001) and Geurts, Ernst and Wehenkel's extremely
// randomised trees (Machine Learning 63, 2006) on quantised features. A tree depends on the seed
// and its index alone: the same model whatever the number of threads.
class TILEWRIGHT_API Forest {
 public:
  explicit Forest(const ForestOptions& options);

  // x: (N, F) floating, NaN missing. y: (N,) whole numbers in [0, num_class), or (N,) or (N, O)
  // values. weight: (N,), or undefined: rows are drawn in proportion to it, or weighed by it where
  // there is no bootstrap. `earlier`: an ensemble of the same data and seed whose trees are kept,
  // so that only those beyond them are grown.
  void fit(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight = {},
           const TreeCallback& after_tree = nullptr, const EnsembleArrays* earlier = nullptr);

  // (N, num_class) probabilities or (N, O) means, float32.
  at::Tensor predict(const at::Tensor& x) const;

  // What the trees that did not draw a row say of it: (N, num_class or O) float64, NaN where each
  // tree drew it. Of the data that fit was called with; an error without bootstrap.
  at::Tensor out_of_bag(const at::Tensor& x, const at::Tensor& weight = {}) const;

  // The fitted model in a file, with what out_of_bag and a fit that goes on need: it predicts the
  // same bits. What is no such file is an error that names the field.
  void save(const std::string& path) const;
  static Forest load(const std::string& path);

  // The fitted model by itself, to script or serve.
  c10::intrusive_ptr<TreeEnsemble> ensemble() const;

  // Leaves hold shares of classes or means, divided by the number of trees; gain is the decrease
  // of impurity as a share of all rows' weight, cover the weight of a node's rows.
  const EnsembleArrays& arrays() const { return arrays_; }
  const ForestOptions& options() const { return options_; }

 private:
  ForestOptions options_;
  int64_t num_features_ = 0;
  EnsembleArrays arrays_;  // undefined before fit
};

}  // namespace tilewright::trees
