#include "tilewright/trees/forest_args.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/trees/feature_args.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

// Names the first row that is not as it must be.
void check_each(const char* op, const char* name, const Tensor& bad, const Tensor& values,
                const char* rule) {
  if (!bad.any().item<bool>()) return;
  const int64_t at = bad.reshape(-1).nonzero()[0].item<int64_t>();
  const int64_t row = at / std::max<int64_t>(bad.numel() / bad.size(0), 1);
  TILEWRIGHT_CHECK(op, false, name, " must ", rule, "; that of row ", row, " is ",
                   values.reshape(-1)[at].item<double>());
}

}  // namespace

void check_tree_options(const char* op, const ForestTreeOptions& o, bool classes) {
  const bool known =
      classes ? o.criterion == "gini" || o.criterion == "entropy" || o.criterion == "log_loss"
              : o.criterion == "squared_error";
  TILEWRIGHT_CHECK(op, known, "criterion must be ",
                   classes ? "gini, entropy or log_loss" : "squared_error", ", got ", o.criterion);
  TILEWRIGHT_CHECK(op, o.max_features >= 0 && o.max_depth >= 0 && o.max_leaves >= 0,
                   "max_features, max_depth and max_leaves must not be negative, got ",
                   o.max_features, ", ", o.max_depth, " and ", o.max_leaves);
  TILEWRIGHT_CHECK(op, o.min_samples_split >= 2 && o.min_samples_leaf >= 1,
                   "min_samples_split must be 2 or more and min_samples_leaf positive, got ",
                   o.min_samples_split, " and ", o.min_samples_leaf);
  TILEWRIGHT_CHECK(op, o.min_weight_fraction_leaf >= 0 && o.min_weight_fraction_leaf <= 0.5,
                   "min_weight_fraction_leaf must lie in [0, 0.5], got ",
                   o.min_weight_fraction_leaf);
  TILEWRIGHT_CHECK(op, o.min_impurity_decrease >= 0,
                   "min_impurity_decrease must not be negative, got ", o.min_impurity_decrease);
  TILEWRIGHT_CHECK(op, o.max_bin >= 2 && o.max_bin <= kMostBins, "max_bin must lie in [2, ",
                   kMostBins, "], got ", o.max_bin);
}

void check_training_set(const char* op, const Tensor& x, const Tensor& y, int64_t num_class) {
  check_floating(op, "x", x);
  check_shape(op, "x", x, "(N, F)", 2);
  TILEWRIGHT_CHECK(op, x.is_cpu(), "fits on the CPU, got x on ", x.device());
  TILEWRIGHT_CHECK(op, x.size(0) > 0 && x.size(1) > 0, "x must not be empty, got ", shape_of(x));
  TILEWRIGHT_CHECK(op, x.size(0) <= std::numeric_limits<int32_t>::max() / 2,
                   "x must have fewer than 2^30 rows, got ", x.size(0));
  check_given(op, "y", y);
  TILEWRIGHT_CHECK(op, y.is_cpu(), "fits on the CPU, got y on ", y.device());
  const bool shaped = y.dim() == 1 || (num_class == 0 && y.dim() == 2 && y.size(1) > 0);
  TILEWRIGHT_CHECK(op, shaped && y.size(0) == x.size(0), "y must have shape (", x.size(0),
                   num_class == 0 ? ",) or (N, O)" : ",)", ", as many rows as x, got ",
                   shape_of(y));
}

Tensor labels_of(const char* op, const Tensor& y, int64_t num_class) {
  const Tensor labels = y.to(at::kLong).contiguous();
  const Tensor bad = (labels < 0).logical_or(labels >= num_class).logical_or(labels != y);
  check_each(op, "y", bad, y,
             ("be whole numbers in [0, " + std::to_string(num_class) + ")").c_str());
  return labels;
}

Tensor values_of(const char* op, const Tensor& y) {
  const Tensor values = (y.dim() == 1 ? y.unsqueeze(1) : y).to(at::kDouble).contiguous();
  check_each(op, "y", at::isfinite(values).logical_not(), values, "be finite");
  return values;
}

Tensor weights_of(const char* op, const Tensor& weight, int64_t rows) {
  if (!weight.defined()) return {};
  TILEWRIGHT_CHECK(op, weight.dim() == 1 && weight.size(0) == rows,
                   "sample_weight must have shape (", rows, ",), as many as x has rows, got ",
                   shape_of(weight));
  TILEWRIGHT_CHECK(op, weight.is_cpu(), "fits on the CPU, got sample_weight on ", weight.device());
  const Tensor weights = weight.to(at::kDouble).contiguous();
  const Tensor bad = at::isfinite(weights).logical_not().logical_or(weights < 0);
  check_each(op, "sample_weight", bad, weights, "be finite and not negative");
  TILEWRIGHT_CHECK(op, weights.max().item<double>() > 0, "sample_weight must not be all 0");
  const double total = weights.sum().item<double>();
  TILEWRIGHT_CHECK(op, total > 1e-200 && total < 1e200, "sample_weight must add up to a number ",
                   "between 1e-200 and 1e200, got ", total);
  return weights;
}

ForestRules rules_of(const ForestTreeOptions& o, int64_t features, int64_t seed) {
  ForestRules rules{};
  rules.criterion = o.criterion == "squared_error" ? ForestCriterion::kSquared
                    : o.criterion == "gini"        ? ForestCriterion::kGini
                                                   : ForestCriterion::kEntropy;
  rules.random_thresholds = o.random_thresholds;
  rules.features_per_node = o.max_features == 0 ? features : std::min(o.max_features, features);
  rules.max_depth = o.max_depth;
  rules.max_leaves = o.max_leaves;
  rules.min_split = std::max(o.min_samples_split, 2 * o.min_samples_leaf);
  rules.min_leaf = o.min_samples_leaf;
  rules.min_weight = o.min_weight_fraction_leaf;
  rules.min_gain = o.min_impurity_decrease;
  rules.seed = uint64_t(seed);
  return rules;
}

}  // namespace tilewright::trees
