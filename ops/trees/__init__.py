"""Tree ensembles as scikit-learn estimators, trained and served on torch tensors.

Needs scikit-learn, whose base classes the estimators stand on. The operators under them,
``torch.ops.tilewright.feature_cuts``, ``quantize_features`` and ``predict_trees``, do not.
"""

from tilewright.trees.adaboost import AdaBoostClassifier, AdaBoostRegressor, MedianModule
from tilewright.trees.boosting import GradientBoostingClassifier, GradientBoostingRegressor
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.extra_trees import ExtraTreesClassifier, ExtraTreesRegressor
from tilewright.trees.forest import RandomForestClassifier, RandomForestRegressor

__all__ = [
    "AdaBoostClassifier",
    "AdaBoostRegressor",
    "EnsembleModule",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "GradientBoostingClassifier",
    "GradientBoostingRegressor",
    "MedianModule",
    "RandomForestClassifier",
    "RandomForestRegressor",
]
