"""Tree ensembles as scikit-learn estimators, trained and served on torch tensors.

Needs scikit-learn, whose base classes the estimators stand on. The operators under them,
``torch.ops.tilewright.feature_cuts``, ``quantize_features`` and ``predict_trees``, do not.
"""

from tilewright.trees.boosting import GradientBoostingClassifier, GradientBoostingRegressor
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.linear import LinearModule
from tilewright.trees.ranking import GradientBoostingRanker

__all__ = [
    "EnsembleModule",
    "GradientBoostingClassifier",
    "GradientBoostingRanker",
    "GradientBoostingRegressor",
    "LinearModule",
]
