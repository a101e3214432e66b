"""What AdaBoost for classes and for values share: parameters, fitting, the weighted median."""

import numbers
from warnings import warn

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tilewright._C import AdaBoost
from tilewright.trees import forest_inputs as inputs
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.forest_inputs import ForestInputMixin
from tilewright.trees.inputs import tensor_of
from tilewright.trees.parameters import checked_parameters, seed_of
from tilewright.trees.serving import ServingMixin


def weighted_median(answers: Tensor, weights: Tensor) -> Tensor:
    """(N, T) answers and (T,) weights to (N, 1)."""
    answers, order = answers.sort(dim=1, stable=True)
    below = weights.to(answers.device)[order].cumsum(1)
    enough = below >= 0.5 * below[:, -1:]
    return answers.gather(1, enough.to(torch.uint8).argmax(1, keepdim=True))


class MedianModule(nn.Module):
    """The weighted median of trees' answers, which is no sum of trees: scriptable and exportable.

    Args:
        trees: an :class:`EnsembleModule` in which each tree answers in a column of its own.
        weights: (T,) float64, those of the trees.
    """

    def __init__(self, trees: EnsembleModule, weights: Tensor):
        super().__init__()
        self.trees = trees
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) floating, NaN missing, to (N, 1) float32: of each row the first of the ascending
        answers up to which at least half the weight lies."""
        return weighted_median(self.trees.scores(x), self.weights)


class AdaBoostBase(ServingMixin, ForestInputMixin, BaseEstimator):
    """What both have in common; their parameters are those of AdaBoostClassifier."""

    def __init__(
        self,
        estimator=None,
        *,
        n_estimators=50,
        learning_rate=1.0,
        criterion="gini",
        max_depth=1,
        max_leaf_nodes=None,
        min_samples_split=2,
        min_samples_leaf=1,
        max_features=None,
        max_bin=255,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.criterion = criterion
        self.max_depth = max_depth
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.max_features = max_features
        self.max_bin = max_bin
        self.random_state = random_state
        self.verbose = verbose

    def _tree_options(self, rows):
        return {
            "criterion": self.criterion,
            "max_depth": inputs.positive("max_depth", self.max_depth, none_is=0),
            "max_leaves": inputs.positive("max_leaf_nodes", self.max_leaf_nodes, none_is=0),
            "min_samples_split": inputs.count_of(
                "min_samples_split", self.min_samples_split, rows, 2
            ),
            "min_samples_leaf": inputs.count_of("min_samples_leaf", self.min_samples_leaf, rows, 1),
            "max_features": inputs.features_per_node(self.max_features, self.n_features_in_),
            "max_bin": inputs.bins(self.max_bin),
            "n_estimators": inputs.positive("n_estimators", self.n_estimators),
            "learning_rate": self._rate(),
        }

    def _rate(self):
        rate = self.learning_rate
        if not isinstance(rate, numbers.Real) or not 0 < rate < float("inf"):
            raise ValueError(f"learning_rate must be positive, got {rate!r}")
        return float(rate)

    def _boost_trees(self, options, x, y, weight):
        with checked_parameters():
            model = AdaBoost(options | {"seed": seed_of(self.random_state)})
        with inputs.progress(self.verbose, self.n_estimators) as after_tree:
            try:
                with checked_parameters():
                    model.fit(x, y, None if weight is None else tensor_of(weight), after_tree)
            except RuntimeError as error:
                if "worse than chance" not in str(error):
                    raise
                raise ValueError(
                    "the first tree of AdaBoost is worse than random, ensemble can not be fit."
                ) from error
        if model.overflowed:
            warn(
                "Sample weights have reached infinite values, causing overflow. Iterations "
                "stopped. Try lowering the learning rate.",
                stacklevel=4,
            )
        self.estimators_ = None
        self.arrays_ = model.arrays()
        self.base_score_ = model.base_score
        self._take_weights(model.estimator_weights, model.estimator_errors)
        self._pack()

    def _boost_any(self, boost, x, y, weight, *arguments):
        inputs.positive("n_estimators", self.n_estimators)
        for name in ("arrays_", "base_score_", "_packed"):
            self.__dict__.pop(name, None)
        with inputs.progress(self.verbose, self.n_estimators) as after_tree:
            self.estimators_, weights, errors = boost(
                self, inputs.array_of(x), y, weight, self._rate(), after_tree, *arguments
            )
        self._take_weights(weights, errors)

    def _take_weights(self, weights, errors):
        # As long as n_estimators, as scikit-learn's are.
        self.n_iter_ = len(weights)
        self.estimator_weights_ = np.zeros(self.n_estimators)
        self.estimator_errors_ = np.ones(self.n_estimators)
        self.estimator_weights_[: len(weights)] = weights
        self.estimator_errors_[: len(errors)] = errors

    def _trees(self):
        check_is_fitted(self, "estimator_weights_")
        if not hasattr(self, "arrays_"):
            raise ValueError("only an ensemble of trees (estimator=None) has arrays to export")
        return self.arrays_

    @property
    def feature_importances_(self):
        """The decrease of impurity by each feature, weighed by the trees' weights."""
        check_is_fitted(self, "estimator_weights_")
        weights = self.estimator_weights_[: self.n_iter_]
        if not hasattr(self, "arrays_"):
            of_trees = np.array([e.feature_importances_ for e in self.estimators_])
        else:
            of_trees = inputs.importances(self.arrays_, self.n_features_in_)
        return (weights[:, None] * of_trees).sum(0) / weights.sum()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags
