// The names by which messages and files call the ensembles and their operators.
#pragma once

namespace tilewright {

inline constexpr const char* kGrowTree = "grow_tree";
inline constexpr const char* kPredictTrees = "predict_trees";
inline constexpr const char* kTreeEnsemble = "TreeEnsemble";
inline constexpr const char* kTreeHistogram = "tree_histogram";

namespace trees {

inline constexpr const char* kTrees = "trees";
inline constexpr const char* kBooster = "Booster";
inline constexpr const char* kLinearBooster = "LinearBooster";
inline constexpr const char* kForest = "Forest";
inline constexpr const char* kAdaBoost = "AdaBoost";

}  // namespace trees
}  // namespace tilewright
