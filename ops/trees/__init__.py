"""Tree ensembles as scikit-learn estimators, trained and served on torch tensors.

Needs scikit-learn, whose base classes the estimators stand on. The operators under them,
``torch.ops.tilewright.feature_cuts``, ``quantize_features`` and ``predict_trees``, do not. Pictures
need matplotlib.
"""

from tilewright.trees.adaboost import AdaBoostClassifier, AdaBoostRegressor
from tilewright.trees.adaboost_base import MedianModule
from tilewright.trees.bagging import BaggingClassifier, BaggingRegressor
from tilewright.trees.boosting import GradientBoostingClassifier, GradientBoostingRegressor
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.extra_trees import ExtraTreesClassifier, ExtraTreesRegressor
from tilewright.trees.forest import RandomForestClassifier, RandomForestRegressor
from tilewright.trees.inspection import (
    PartialDependence,
    importance,
    partial_dependence,
    permutation_importance,
)
from tilewright.trees.linear import LinearModule
from tilewright.trees.plots import plot_history, plot_importance, plot_partial_dependence
from tilewright.trees.ranking import GradientBoostingRanker
from tilewright.trees.stacking import StackingClassifier, StackingRegressor
from tilewright.trees.torch_estimators import TorchClassifier, TorchRegressor
from tilewright.trees.tree_plot import plot_tree

__all__ = [
    "AdaBoostClassifier",
    "AdaBoostRegressor",
    "BaggingClassifier",
    "BaggingRegressor",
    "EnsembleModule",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "GradientBoostingClassifier",
    "GradientBoostingRanker",
    "GradientBoostingRegressor",
    "LinearModule",
    "MedianModule",
    "PartialDependence",
    "RandomForestClassifier",
    "RandomForestRegressor",
    "StackingClassifier",
    "StackingRegressor",
    "TorchClassifier",
    "TorchRegressor",
    "importance",
    "partial_dependence",
    "permutation_importance",
    "plot_history",
    "plot_importance",
    "plot_partial_dependence",
    "plot_tree",
]
