#include "tilewright/trees/forest_args.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/trees/feature_args.h"
#include "tilewright/trees/refuse_rows.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

}  // namespace

void check_tree_options(const char* op, const ForestTreeOptions& o, int64_t num_class) {
  TILEWRIGHT_CHECK(op, num_class == 0 || (num_class >= 2 && num_class <= kMostForestClasses),
                   "num_class must be 0 for values or lie in [2, ", kMostForestClasses, "], got ",
                   num_class);
  const bool classes = num_class > 0;
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

void check_on_cpu(const char* op, const InputTable& x) {
  TILEWRIGHT_CHECK(op, x.device().is_cpu(), "fits on the CPU, got x on ", x.device(),
                   "; use x.cpu()");
}

void check_training_set(const char* op, const InputTable& x, const Tensor& y, int64_t num_class) {
  TILEWRIGHT_CHECK(op, x.rows() > 0 && x.features() > 0, "x must not be empty, got (", x.rows(),
                   ", ", x.features(), ")");
  TILEWRIGHT_CHECK(op, x.rows() <= std::numeric_limits<int32_t>::max() / 2,
                   "x must have fewer than 2^30 rows, got ", x.rows());
  check_on_cpu(op, x);
  check_given(op, "y", y);
  TILEWRIGHT_CHECK(op, y.is_cpu(), "fits on the CPU, got y on ", y.device());
  const bool shaped = y.dim() == 1 || (num_class == 0 && y.dim() == 2 && y.size(1) > 0);
  TILEWRIGHT_CHECK(op, shaped && y.size(0) == x.rows(), "y must have shape (", x.rows(),
                   num_class == 0 ? ",) or (N, O)" : ",)", ", as many rows as x, got ",
                   shape_of(y));
}

Tensor labels_of(const char* op, const Tensor& y, int64_t num_class) {
  const Tensor labels = y.to(at::kShort).contiguous();  // what does not fit is another number then
  const Tensor bad = (labels < 0).logical_or(labels >= num_class).logical_or(labels != y);
  refuse_rows(op, "y must be whole numbers in [0, " + std::to_string(num_class) + ")", bad, y);
  return labels;
}

Tensor values_of(const char* op, const Tensor& y) {
  const Tensor values = (y.dim() == 1 ? y.unsqueeze(1) : y).to(at::kDouble).contiguous();
  refuse_rows(op, "y must be finite", at::isfinite(values).logical_not(), values);
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
  refuse_rows(op, "sample_weight must be finite and not negative", bad, weights);
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
