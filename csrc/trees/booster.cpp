#include "tilewright/trees/booster.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "tilewright/core/check.h"
#include "tilewright/core/on_device.h"
#include "tilewright/trees/booster_file.h"
#include "tilewright/trees/boosting_rounds.h"
#include "tilewright/trees/categories.h"
#include "tilewright/trees/device_grower.h"
#include "tilewright/trees/ensemble_of.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/predict_cpu.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr int64_t kBoosterVersion = 1;

void check_share(const char* name, double value) {
  TILEWRIGHT_CHECK(kTrees, value > 0 && value <= 1, name, " must lie in (0, 1], got ", value);
}

void check_sampling(const RowSampling& rows, const DartOptions& dart) {
  check_share("subsample", rows.subsample);
  if (rows.goss) {
    TILEWRIGHT_CHECK(kTrees, rows.subsample == 1,
                     "goss draws rows itself: subsample must be 1, got ", rows.subsample);
    TILEWRIGHT_CHECK(kTrees,
                     rows.top_rate >= 0 && rows.other_rate > 0 &&
                         rows.top_rate + rows.other_rate <= 1 && rows.top_rate < 1,
                     "top_rate must not be negative, other_rate positive and both at most 1 in ",
                     "all, got ", rows.top_rate, " and ", rows.other_rate);
  }
  TILEWRIGHT_CHECK(
      kTrees,
      dart.rate_drop >= 0 && dart.rate_drop <= 1 && dart.skip_drop >= 0 && dart.skip_drop <= 1,
      "rate_drop and skip_drop must lie in [0, 1], got ", dart.rate_drop, " and ", dart.skip_drop);
}

void check_categorical(const TreeOptions& tree, int64_t features) {
  TILEWRIGHT_CHECK(kTrees, tree.categorical.empty() || int64_t(tree.categorical.size()) == features,
                   "categorical must be ", features, ", as many as x has features, got ",
                   tree.categorical.size());
  TILEWRIGHT_CHECK(kTrees, tree.max_cat_to_onehot >= 1 && tree.max_cat_threshold >= 1,
                   "max_cat_to_onehot and max_cat_threshold must be positive, got ",
                   tree.max_cat_to_onehot, " and ", tree.max_cat_threshold);
  if (tree.monotone.empty()) return;
  for (size_t f = 0; f < tree.categorical.size(); ++f) {
    TILEWRIGHT_CHECK(kTrees, !tree.categorical[f] || tree.monotone[f] == 0, "column ", f,
                     " holds categories: its answers cannot be monotone");
  }
}

void check_vector_leaves(const TreeOptions& tree) {
  const auto none = [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [](auto value) { return value == 0; });
  };
  TILEWRIGHT_CHECK(kTrees, none(tree.categorical),
                   "multi_output_tree takes no columns of categories: leaves that are vectors give "
                   "them no order");
  TILEWRIGHT_CHECK(kTrees, none(tree.monotone), "multi_output_tree knows no monotone constraints");
}

// On the CPU.
Tensor first_scores(const Objective& objective, const Targets& targets) {
  const auto there = [&](const Tensor& t) {
    return t.defined() && !objective.asks_on_device() ? t.cpu() : t;
  };
  return objective.base_score(there(targets.labels), there(targets.weights)).cpu();
}

}  // namespace

StartingModel start_from(const TreeEnsemble& ensemble) {
  return {arrays_of(ensemble), ensemble.arrays()[8]};
}

Booster::Booster(const BoosterOptions& options, std::shared_ptr<Objective> objective)
    : options_(options), objective_(std::move(objective)), own_objective_(objective_ != nullptr) {
  if (objective_ == nullptr) objective_ = objective_of(options);
  options_.tree.rules.max_delta_step = max_delta_step_of(options);
  check_rounds(options);
  check_sampling(options.sampling, options.dart);
  TILEWRIGHT_CHECK(kTrees,
                   options.multi_strategy == "one_output_per_tree" ||
                       options.multi_strategy == "multi_output_tree",
                   "multi_strategy must be one_output_per_tree or multi_output_tree, got ",
                   options.multi_strategy);
  check_share("colsample_bytree", options.tree.colsample_bytree);
  check_share("colsample_bylevel", options.tree.colsample_bylevel);
  check_share("colsample_bynode", options.tree.colsample_bynode);
  const bool exact = options.tree_method == "exact";
  TILEWRIGHT_CHECK(kTrees, exact || options.tree_method == "hist",
                   "tree_method must be hist or exact, got ", options.tree_method);
  const auto& categorical = options.tree.categorical;
  TILEWRIGHT_CHECK(kTrees,
                   !exact || std::count(categorical.begin(), categorical.end(), 0) ==
                                 int64_t(categorical.size()),
                   "tree_method exact takes no columns of categories; hist does");
  TILEWRIGHT_CHECK(kTrees, options.tree.max_depth >= 0 && options.tree.max_leaves >= 0,
                   "max_depth and max_leaves must not be negative, got ", options.tree.max_depth,
                   " and ", options.tree.max_leaves);
}

void Booster::fit(const Tensor& x, const Tensor& y, const Tensor& weight, const Tensor& eval_x,
                  const Tensor& eval_y, const RoundCallback& after_round) {
  FitOptions how;
  how.after_round = after_round;
  TILEWRIGHT_CHECK(kTrees, eval_x.defined() == eval_y.defined(),
                   "an evaluation set is x and y, got one of them");
  if (eval_x.defined()) how.evaluation.push_back({eval_x, eval_y, {}, {}});
  fit({x, y, weight, {}}, how);
}

void Booster::fit(const Dataset& data, const FitOptions& how) {
  objective_->set_targets(targets_of(data.y));
  Measured training = checked("", data, *objective_);
  if (is_on_device(data.x)) check_device_fit(options_, *objective_, data.x);
  const int64_t features = training.table.features(), outputs = objective_->outputs();
  TILEWRIGHT_CHECK(
      kTrees, options_.tree.monotone.empty() || int64_t(options_.tree.monotone.size()) == features,
      "monotone constraints must be ", features, ", as many as x has features, got ",
      options_.tree.monotone.size());
  const auto& signs = options_.tree.monotone;
  TILEWRIGHT_CHECK(kTrees,
                   objective_->leaf_quantile() < 0 ||
                       std::count(signs.begin(), signs.end(), 0) == int64_t(signs.size()),
                   "leaves that answer with a quantile of their residuals (absolute_error, ",
                   "quantile) know no monotone constraints");
  check_categorical(options_.tree, features);
  if (options_.multi_strategy == "multi_output_tree") {
    check_vector_leaves(options_.tree);
    TILEWRIGHT_CHECK(
        kTrees, options_.tree_method != "exact",
        "multi_output_tree grows from histograms: tree_method must be hist, got exact");
  }
  std::vector<Measured> evaluation =
      checked_evaluation(training, how.evaluation, *objective_, options_.early_stopping_rounds);
  Tensor base_score;
  if (how.start.has_value()) {
    const EnsembleArrays& a = how.start->arrays;
    base_score = how.start->base_score.cpu();
    TILEWRIGHT_CHECK(kTrees, a.num_outputs == outputs && base_score.numel() == outputs,
                     "the model to go on from must have ", outputs, " outputs, got ",
                     base_score.numel());
    // Says what is wrong with arrays that are no trees over these features.
    (void)ensemble_of(a, base_score, objective_->link(), features);
  }
  objective_->set_queries(training.targets.queries);
  if (!base_score.defined()) base_score = first_scores(*objective_, training.targets);
  BoostingRounds rounds(options_, *objective_, training, evaluation, how, base_score);
  rounds.run();
  // The model of an earlier fit stays until all has gone well.
  const EnsembleArrays a = rounds.arrays();
  ensemble_ = ensemble_of(a, base_score, objective_->link(), features);
  arrays_ = a;
  bin_counts_ = rounds.bin_counts();
  history_ = rounds.history();
  metric_names_ = rounds.metric_names();
  best_round_ = rounds.best_round();
}

Tensor Booster::scores(const Tensor& x) const {
  const Tensor found = ensemble()->scores(x);
  check_known_categories(InputTable("x", x), bin_counts_, options_.tree.categorical);
  return found;
}
Tensor Booster::predict(const Tensor& x) const {
  const Tensor found = ensemble()->predict(x);
  check_known_categories(InputTable("x", x), bin_counts_, options_.tree.categorical);
  return found;
}

c10::intrusive_ptr<TreeEnsemble> Booster::ensemble() const {
  TILEWRIGHT_CHECK(kTrees, ensemble_.defined(), "the model has not been fitted");
  return ensemble_;
}

void Booster::save(const std::string& path) const {
  const TreeEnsemble& fitted = *ensemble();
  ModelFile file(kBooster, kBoosterVersion);
  put_booster(file, options_, *objective_, own_objective_);
  put_arrays(file, arrays_);
  file.put("base_score", base_score());
  file.put("link", fitted.link());
  file.put("num_features", fitted.num_features());
  file.put("bin_counts", bin_counts_);
  file.put("best_round", best_round_);
  file.write(path);
}

Booster Booster::load(const std::string& path, std::shared_ptr<Objective> objective) {
  const ModelFile file = ModelFile::read(kBooster, kBoosterVersion, path);
  Booster out = unfitted_booster<Booster>(file, std::move(objective));
  take_targets(file, *out.objective_);
  const Tensor base_score = file.tensor("base_score", at::kFloat, 1);
  const int64_t outputs = out.objective_->outputs(),
                features = file.whole("num_features", 1, kMostTreeFeatures);
  if (base_score.numel() != outputs) {
    file.fail("base_score", c10::str("must hold ", outputs, " numbers, got ", base_score.numel()));
  }
  std::string link;
  file.get("link", link);
  if (link != out.objective_->link()) {
    file.fail("link", "must be " + out.objective_->link() + " as of the objective, got " + link);
  }
  out.arrays_ = get_arrays(file, outputs);
  out.bin_counts_ = file.tensor("bin_counts", at::kInt, 1);
  if (out.bin_counts_.numel() != features) {
    file.fail("bin_counts", c10::str("must hold ", features, " numbers, one for each feature"));
  }
  out.best_round_ = file.whole("best_round", -1, out.arrays_.tree_output.numel());
  out.ensemble_ = file.made([&] {
    check_categorical(out.options_.tree, features);
    return ensemble_of(out.arrays_, base_score, link, features);
  });
  return out;
}

}  // namespace tilewright::trees
