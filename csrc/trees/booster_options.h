// The options of boosters by name: one list for Python's dicts and for files.
#pragma once
#include "tilewright/trees/booster.h"

namespace tilewright::trees {

// visit(name, field) for each option; `options` is a BoosterOptions, const or not.
template <class Options, class Visit>
auto for_each_option(Options& o, const Visit& visit) -> decltype(o.sampling.goss, void()) {
  visit("objective", o.objective);
  visit("num_class", o.num_class);
  visit("objective_param", o.objective_param);
  visit("truncation", o.ranking.truncation);
  visit("exp_gain", o.ranking.exp_gain);
  visit("normalize", o.ranking.normalize);
  visit("n_estimators", o.n_estimators);
  visit("learning_rate", o.learning_rate);
  visit("tree_method", o.tree_method);
  visit("max_bin", o.max_bin);
  visit("multi_strategy", o.multi_strategy);
  visit("early_stopping_rounds", o.early_stopping_rounds);
  visit("seed", o.seed);
  auto& tree = o.tree;
  visit("reg_lambda", tree.rules.lambda);
  visit("reg_alpha", tree.rules.alpha);
  visit("gamma", tree.rules.gamma);
  visit("min_child_weight", tree.rules.min_child_weight);
  visit("max_delta_step", tree.rules.max_delta_step);
  visit("max_depth", tree.max_depth);
  visit("max_leaves", tree.max_leaves);
  visit("loss_guided", tree.loss_guided);
  visit("colsample_bytree", tree.colsample_bytree);
  visit("colsample_bylevel", tree.colsample_bylevel);
  visit("colsample_bynode", tree.colsample_bynode);
  visit("monotone", tree.monotone);
  visit("categorical", tree.categorical);
  visit("max_cat_to_onehot", tree.max_cat_to_onehot);
  visit("max_cat_threshold", tree.max_cat_threshold);
  visit("subsample", o.sampling.subsample);
  visit("goss", o.sampling.goss);
  visit("top_rate", o.sampling.top_rate);
  visit("other_rate", o.sampling.other_rate);
  visit("dart", o.dart.enabled);
  visit("rate_drop", o.dart.rate_drop);
  visit("skip_drop", o.dart.skip_drop);
  visit("one_drop", o.dart.one_drop);
  visit("drop_weighted", o.dart.weighted);
  visit("drop_forest", o.dart.forest);
}

}  // namespace tilewright::trees
