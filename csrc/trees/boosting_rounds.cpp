// One round after the other.
#include "tilewright/trees/boosting_rounds.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/trees/categories.h"
#include "tilewright/trees/exact_grower.h"
#include "tilewright/trees/feature_args.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

ArraysBuilder builder_of(const FitOptions& how, int64_t outputs) {
  return how.start.has_value() ? ArraysBuilder(how.start->arrays) : ArraysBuilder(outputs);
}

}  // namespace

BoostingRounds::BoostingRounds(const BoosterOptions& options, const Objective& objective,
                               Measured& training, std::vector<Measured>& evaluation,
                               const FitOptions& how, const Tensor& base_score)
    : options_(options),
      objective_(objective),
      training_(training),
      evaluation_(evaluation),
      how_(how),
      base_score_(base_score),
      outputs_(objective.outputs()),
      metrics_(how, objective, evaluation.size(), options.early_stopping_rounds),
      builder_(builder_of(how, outputs_)),
      first_tree_(builder_.trees()),
      first_round_(ceil_div(first_tree_, outputs_)),
      dart_(options.dart, options.learning_rate, first_tree_, uint64_t(options.seed)) {}

// Scores before the first round, added up in the order of trees: rounding is that of one fit.
void BoostingRounds::start() {
  const auto begin = [&](Measured& set) {
    set.sums = at::zeros({outputs_, set.table.rows()}, at::kFloat);
    if (how_.start.has_value()) set.table.add_scores_in_turn(how_.start->arrays, set.sums);
    set.scores = at::empty_like(set.sums);
    bring_scores_up_to_date(set);
  };
  begin(training_);
  for (Measured& set : evaluation_) begin(set);
}

Tensor BoostingRounds::find_cuts() {
  const std::vector<uint8_t>& categorical = options_.tree.categorical;
  auto [cuts, count] = training_.table.cuts(training_.targets.weights, options_.max_bin);
  if (std::find(categorical.begin(), categorical.end(), 1) != categorical.end()) {
    TILEWRIGHT_CHECK("trees", training_.table.dense().defined(),
                     "columns of categories need a dense table");
    std::tie(cuts, count) = category_cuts(training_.table.dense(), cuts, count, categorical);
    for (const Measured& set : evaluation_) {
      TILEWRIGHT_CHECK("trees", set.table.dense().defined(),
                       "columns of categories need dense tables for evaluation");
      check_known_categories(set.table.dense(), count, categorical);
    }
  }
  bin_counts_ = count;
  return cuts;
}

void BoostingRounds::bring_scores_up_to_date(Measured& set) const {
  at::add_out(set.scores, set.sums, base_score_.unsqueeze(1));
}

// Sets the cuts where trees are split by codes.
std::unique_ptr<Grower> BoostingRounds::make_grower(Tensor& cuts) {
  if (options_.tree_method == "exact") {
    bin_counts_ = at::zeros({training_.table.features()}, at::kInt);
    return std::make_unique<ExactGrower>(training_.table);
  }
  cuts = find_cuts();
  return std::make_unique<TreeGrower>(training_.table.codes(cuts, bin_counts_), bin_counts_ + 1,
                                      codes_of(options_.max_bin));
}

void BoostingRounds::run() {
  Tensor cuts;
  const std::unique_ptr<Grower> grower = make_grower(cuts);
  start();
  for (int64_t round = 0; round < options_.n_estimators; ++round) {
    grow(round, *grower, cuts);
    metrics_.measure(evaluation_, objective_.link());
    // DART changes earlier trees later on.
    const bool dart = options_.dart.enabled && options_.early_stopping_rounds > 0;
    if (dart && metrics_.best_round() == round) best_ = builder_.arrays();
    const bool stopped = how_.after_round && how_.after_round(round, last_scores(evaluation_));
    if (metrics_.enough() || stopped) break;
  }
  if (best_.feature.defined()) return;
  best_ = builder_.arrays(first_tree_ + (metrics_.best_round() + 1) * outputs_);
}

void BoostingRounds::grow(int64_t round, Grower& grower, const Tensor& cuts) {
  const int64_t place = first_round_ + round;  // draws of a round do not ask which fit it is of
  const Targets& targets = training_.targets;
  dart_.begin_round(place, outputs_);
  leave_out_dropped();
  auto [gradients, hessians] =
      objective_.gradients(training_.scores, targets.labels, targets.weights);
  const RowDraw draw = draw_rows_of_round(options_.sampling, options_.learning_rate, place,
                                          uint64_t(options_.seed), gradients, hessians);
  Tensor weights = targets.weights;
  if (draw.factor.defined()) weights = weights.defined() ? weights * draw.factor : draw.factor;
  TreeOptions tree_options = options_.tree;
  tree_options.seed = uint64_t(options_.seed);
  for (int64_t k = 0; k < outputs_; ++k) {
    tree_options.tree = uint32_t(place * outputs_ + k);
    GrownTree grown = grower.grow(gradients[k], hessians[k], draw.rows, tree_options);
    if (objective_.leaf_quantile() >= 0) {
      grower.answer_quantiles(grown, targets.labels.const_data_ptr<float>(),
                              training_.scores[k].const_data_ptr<float>(),
                              weights.defined() ? weights.const_data_ptr<float>() : nullptr,
                              objective_.leaf_quantile());
    }
    const auto answers = builder_.add(grown, cuts, options_.learning_rate * dart_.new_factor(), k);
    grower.add_to_scores(grown, answers, training_.sums[k].mutable_data_ptr<float>());
  }
  put_back_dropped();
  bring_scores_up_to_date(training_);
  if (evaluation_.empty()) return;
  const int64_t trees = builder_.trees();
  const EnsembleArrays last = builder_.slice(trees - outputs_, trees);
  for (Measured& set : evaluation_) {
    set.table.add_scores(last, set.sums);
    bring_scores_up_to_date(set);
  }
}

void BoostingRounds::leave_out_dropped() {
  dropped_scores_ = Tensor();
  if (dart_.dropped().empty()) return;
  dropped_scores_ = at::zeros_like(training_.sums);
  const EnsembleArrays dropped = builder_.pick(dart_.dropped());
  training_.table.add_scores(dropped, dropped_scores_);
  training_.sums -= dropped_scores_;
  bring_scores_up_to_date(training_);
  for (Measured& set : evaluation_) {
    Tensor answers = at::zeros_like(set.sums);
    set.table.add_scores(dropped, answers);
    set.sums += answers * (dart_.dropped_factor() - 1);
  }
}

void BoostingRounds::put_back_dropped() {
  if (!dropped_scores_.defined()) return;
  training_.sums += dropped_scores_ * dart_.dropped_factor();
  for (const int64_t t : dart_.dropped()) builder_.scale(t, dart_.dropped_factor());
}

}  // namespace tilewright::trees
