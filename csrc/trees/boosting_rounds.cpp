// One round after the other.
#include "tilewright/trees/boosting_rounds.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "tilewright/core/check.h"
#include "tilewright/core/math.h"
#include "tilewright/core/on_device.h"
#include "tilewright/trees/categories.h"
#include "tilewright/trees/exact_grower.h"
#include "tilewright/trees/feature_args.h"
#include "tilewright/trees/feature_cuts.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

// Of one output vectors and numbers are the same.
ArraysBuilder builder_of(const FitOptions& how, int64_t outputs, bool vectors) {
  if (!how.start.has_value()) return ArraysBuilder(outputs, vectors);
  EnsembleArrays arrays = how.start->arrays;
  TILEWRIGHT_CHECK("trees", outputs == 1 || (arrays.value.dim() == 2) == vectors,
                   "the model to go on from must have leaves that are ",
                   vectors ? "vectors (multi_output_tree)" : "numbers (one_output_per_tree)",
                   ", got leaves of shape ", shape_of(arrays.value));
  if (outputs == 1) arrays.value = arrays.value.reshape({-1});
  if (outputs == 1 && vectors) arrays.value = arrays.value.unsqueeze(1);
  return ArraysBuilder(arrays);
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
      vectors_(options.multi_strategy == "multi_output_tree"),
      trees_of_round_(vectors_ ? 1 : outputs_),
      metrics_(how, objective, evaluation.size(), options.early_stopping_rounds),
      builder_(builder_of(how, outputs_, vectors_)),
      first_tree_(builder_.trees()),
      first_round_(ceil_div(first_tree_, trees_of_round_)),
      dart_(options.dart, options.learning_rate, first_tree_, uint64_t(options.seed)) {}

// Scores before the first round, added up in the order of trees: rounding is that of one fit.
void BoostingRounds::start() {
  const auto begin = [&](Measured& set) {
    set.base = base_score_.unsqueeze(1).to(set.table.device());
    set.sums = at::zeros({outputs_, set.table.rows()}, set.base.options());
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
  at::add_out(set.scores, set.sums, set.base);
}

// The CPU's, or null where device_ is set. Sets the cuts where trees are split by codes.
std::unique_ptr<Grower> BoostingRounds::make_grower(Tensor& cuts) {
  if (options_.tree_method == "exact") {
    bin_counts_ = at::zeros({training_.table.features()}, at::kInt);
    return std::make_unique<ExactGrower>(training_.table);
  }
  cuts = find_cuts();
  const InputTable& table = training_.table;
  if (!is_on_device(cuts)) {
    auto grower = std::make_unique<TreeGrower>(table.rows(), code_type(cuts), bin_counts_ + 1,
                                               codes_of(options_.max_bin), vectors_ ? outputs_ : 0);
    table.for_codes(cuts, bin_counts_,
                    [&](int64_t first, const Tensor& codes) { grower->take_codes(first, codes); });
    return grower;
  }
  const Tensor codes = quantize_features(table.dense(), cuts, bin_counts_);
  device_ = std::make_unique<DeviceGrower>(options_, outputs_, codes, cuts, bin_counts_);
  bin_counts_ = bin_counts_.cpu();
  return nullptr;
}

void BoostingRounds::run() {
  Tensor cuts;
  const std::unique_ptr<Grower> grower = make_grower(cuts);
  start();
  for (int64_t round = 0; round < options_.n_estimators; ++round) {
    grow(round, grower.get(), cuts);
    metrics_.measure(evaluation_, objective_.link());
    // DART changes earlier trees later on.
    const bool dart = options_.dart.enabled && options_.early_stopping_rounds > 0;
    if (dart && metrics_.best_round() == round) {
      collect();
      best_ = builder_.arrays();
    }
    const bool stopped = how_.after_round && how_.after_round(round, last_scores(evaluation_));
    if (metrics_.enough() || stopped) break;
  }
  if (best_.feature.defined()) return;
  collect();
  best_ = builder_.arrays(first_tree_ + (metrics_.best_round() + 1) * trees_of_round_);
}

// `grower`: null on the device.
void BoostingRounds::grow(int64_t round, Grower* grower, const Tensor& cuts) {
  const int64_t place = first_round_ + round;  // draws of a round do not ask which fit it is of
  const Targets& targets = training_.targets;
  dart_.begin_round(place, trees_of_round_);
  leave_out_dropped();
  gradients_ = objective_.gradients(training_.scores, targets.labels, targets.weights, gradients_);
  auto& [gradients, hessians] = gradients_;
  if (device_ != nullptr) {
    device_->grow(place, gradients, hessians, options_.learning_rate * dart_.new_factor(),
                  training_.sums);
  } else {
    grow_on_cpu(place, gradients, hessians, *grower, cuts);
  }
  put_back_dropped();
  bring_scores_up_to_date(training_);
  add_last_round();
  if (device_ != nullptr && device_->is_full()) collect();
}

void BoostingRounds::grow_on_cpu(int64_t place, Tensor gradients, Tensor hessians, Grower& grower,
                                 const Tensor& cuts) {
  const Targets& targets = training_.targets;
  const RowDraw draw = draw_rows_of_round(options_.sampling, options_.learning_rate, place,
                                          uint64_t(options_.seed), gradients, hessians);
  Tensor weights = targets.weights;
  if (draw.factor.defined()) weights = weights.defined() ? weights * draw.factor : draw.factor;
  TreeOptions tree_options = options_.tree;
  tree_options.seed = uint64_t(options_.seed);
  for (int64_t t = 0; t < trees_of_round_; ++t) {
    tree_options.tree = uint32_t(place * trees_of_round_ + t);
    GrownTree grown = vectors_ ? grower.grow_vectors(gradients, hessians, draw.rows, tree_options)
                               : grower.grow(gradients[t], hessians[t], draw.rows, tree_options);
    for (int64_t k = 0; objective_.leaf_quantile() >= 0 && k < grown.outputs; ++k) {
      grower.answer_quantiles(grown, targets.of_output(t + k).const_data_ptr<float>(),
                              training_.scores[t + k].const_data_ptr<float>(),
                              weights.defined() ? weights.const_data_ptr<float>() : nullptr,
                              objective_.leaf_quantile(), k);
    }
    const auto answers = builder_.add(grown, cuts, options_.learning_rate * dart_.new_factor(), t);
    add_to_scores(grower, grown, answers, t);
  }
}

// On evaluation sets.
void BoostingRounds::add_last_round() {
  EnsembleArrays on_device, on_host;  // made where a set asks for them
  for (Measured& set : evaluation_) {
    if (device_ != nullptr && set.table.device() == training_.table.device()) {
      if (!on_device.feature.defined()) on_device = device_->last_round();
      set.table.add_scores(on_device, set.sums);
    } else {
      collect();
      const int64_t trees = builder_.trees();
      if (!on_host.feature.defined()) on_host = builder_.slice(trees - trees_of_round_, trees);
      set.table.add_scores(on_host, set.sums);
    }
    bring_scores_up_to_date(set);
  }
}

// `output`: the first of the tree's.
void BoostingRounds::add_to_scores(const Grower& grower, const GrownTree& tree,
                                   const std::vector<float>& answers, int64_t output) {
  for (int64_t k = 0; k < tree.outputs; ++k) {
    std::vector<float> own;
    for (size_t n = size_t(k); n < answers.size(); n += size_t(tree.outputs)) {
      own.push_back(answers[n]);
    }
    grower.add_to_scores(tree, own, training_.sums[output + k].mutable_data_ptr<float>());
  }
}

// The builder has all trees afterwards.
void BoostingRounds::collect() {
  if (device_ != nullptr) device_->give(builder_);
}

void BoostingRounds::leave_out_dropped() {
  dropped_scores_ = Tensor();
  if (dart_.dropped().empty()) return;
  collect();
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
