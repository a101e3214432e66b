// The options of forests and AdaBoost by name: one list for Python's dicts and for files.
#pragma once
#include "tilewright/trees/adaboost.h"
#include "tilewright/trees/forest.h"

namespace tilewright::trees {

template <class Tree, class Visit>
void for_each_tree_option(Tree& tree, const Visit& visit) {
  visit("criterion", tree.criterion);
  visit("max_features", tree.max_features);
  visit("max_depth", tree.max_depth);
  visit("max_leaves", tree.max_leaves);
  visit("min_samples_split", tree.min_samples_split);
  visit("min_samples_leaf", tree.min_samples_leaf);
  visit("min_weight_fraction_leaf", tree.min_weight_fraction_leaf);
  visit("min_impurity_decrease", tree.min_impurity_decrease);
  visit("random_thresholds", tree.random_thresholds);
  visit("max_bin", tree.max_bin);
}

// visit(name, field) for each option; `options` is a ForestOptions, const or not.
template <class Options, class Visit>
auto for_each_option(Options& o, const Visit& visit) -> decltype(o.balanced_subsample, void()) {
  for_each_tree_option(o.tree, visit);
  visit("num_class", o.num_class);
  visit("n_estimators", o.n_estimators);
  visit("bootstrap", o.bootstrap);
  visit("max_samples", o.max_samples);
  visit("balanced_subsample", o.balanced_subsample);
  visit("seed", o.seed);
}

// The same of an AdaBoostOptions.
template <class Options, class Visit>
auto for_each_option(Options& o, const Visit& visit) -> decltype(o.resample, void()) {
  for_each_tree_option(o.tree, visit);
  visit("num_class", o.num_class);
  visit("n_estimators", o.n_estimators);
  visit("learning_rate", o.learning_rate);
  visit("loss", o.loss);
  visit("resample", o.resample);
  visit("seed", o.seed);
}

}  // namespace tilewright::trees
