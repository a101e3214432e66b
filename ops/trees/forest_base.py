"""What random forests and extremely randomised trees share: parameters, fitting, serving."""

import numbers
from warnings import warn

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from tilewright._C import Forest
from tilewright.trees import forest_inputs as inputs
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.explain import ExplainMixin
from tilewright.trees.forest_files import ForestFilesMixin
from tilewright.trees.forest_inputs import ForestInputMixin
from tilewright.trees.inputs import check_same_names, tensor_of
from tilewright.trees.onnx_export import OnnxMixin
from tilewright.trees.parameters import checked_parameters, seed_of
from tilewright.trees.serving import ServingMixin


class ForestBase(
    ServingMixin, ForestInputMixin, ForestFilesMixin, ExplainMixin, OnnxMixin, BaseEstimator
):
    """What all four have in common; their parameters are those of RandomForestClassifier."""

    _random_thresholds = False
    _link = "identity"

    def __init__(
        self,
        n_estimators=100,
        *,
        criterion="gini",
        max_depth=None,
        min_samples_split=2,
        min_samples_leaf=1,
        min_weight_fraction_leaf=0.0,
        max_features="sqrt",
        max_leaf_nodes=None,
        min_impurity_decrease=0.0,
        bootstrap=True,
        oob_score=False,
        n_jobs=None,
        random_state=None,
        verbose=0,
        warm_start=False,
        max_samples=None,
        max_bin=16383,
    ):
        self.n_estimators = n_estimators
        self.criterion = criterion
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.bootstrap = bootstrap
        self.oob_score = oob_score
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.max_samples = max_samples
        self.max_bin = max_bin

    def _options(self, rows, weight):
        if not self.bootstrap and self.max_samples is not None:
            raise ValueError("max_samples needs bootstrap=True")
        if not self.bootstrap and self.oob_score:
            raise ValueError("Out of bag estimation only available if bootstrap=True")
        return {
            "criterion": self.criterion,
            "n_estimators": inputs.positive("n_estimators", self.n_estimators),
            "max_features": inputs.features_per_node(self.max_features, self.n_features_in_),
            "max_depth": inputs.positive("max_depth", self.max_depth, none_is=0),
            "max_leaves": self._most_leaves(),
            "min_samples_split": inputs.count_of(
                "min_samples_split", self.min_samples_split, rows, 2
            ),
            "min_samples_leaf": inputs.count_of("min_samples_leaf", self.min_samples_leaf, rows, 1),
            "min_weight_fraction_leaf": inputs.within(
                "min_weight_fraction_leaf", self.min_weight_fraction_leaf, 0, 0.5
            ),
            "min_impurity_decrease": inputs.within(
                "min_impurity_decrease", self.min_impurity_decrease, 0, float("inf")
            ),
            "random_thresholds": self._random_thresholds,
            "max_bin": inputs.bins(self.max_bin),
            "bootstrap": bool(self.bootstrap),
            "max_samples": self._drawn_samples(rows, weight) if self.bootstrap else 0,
        }

    def _most_leaves(self):
        leaves = inputs.positive("max_leaf_nodes", self.max_leaf_nodes, none_is=0)
        if leaves == 1:
            raise ValueError("max_leaf_nodes must be 2 or more, got 1")
        return leaves

    def _drawn_samples(self, rows, weight):
        share = self.max_samples
        if share is None:
            return rows
        if isinstance(share, numbers.Integral) and share >= 1:
            return int(share)
        if isinstance(share, numbers.Real) and share > 0:
            return max(int(share * (rows if weight is None else weight.sum())), 1)
        raise ValueError(f"max_samples must be a positive integer or share, got {share!r}")

    def _grow(self, options, x, y, weight, truth):
        """Grows what trees there are not yet; weight: float64 array or None; truth: labels or
        values as arrays, for the out-of-bag score."""
        kept = getattr(self, "arrays_", None) if self.warm_start else None
        classes = getattr(self, "classes_", np.empty(0)).tolist()
        grown_on = self.n_features_in_, classes, None if classes else truth.shape[1:]
        before = getattr(self, "_grown_on", grown_on)  # a file does not say
        if kept is not None and grown_on != before:
            raise ValueError(
                "warm_start adds trees to those there, which were fitted on other features or "
                f"labels: (features, classes, outputs) were {before}, now {grown_on}"
            )
        if kept is not None:
            check_same_names(self, getattr(self, "_grown_names", None), "the trees there")
        trees = 0 if kept is None else kept["tree_output"].numel()
        if trees > self.n_estimators:
            raise ValueError(
                f"n_estimators={self.n_estimators} must be larger or equal to the {trees} trees "
                "of before when warm_start is set"
            )
        if kept is None:
            self._seed = seed_of(self.random_state)
        with checked_parameters():
            forest = Forest(options | {"seed": self._seed})
        weight = None if weight is None else tensor_of(weight)
        if trees == self.n_estimators:
            warn("warm_start without a greater n_estimators grows no new trees.", stacklevel=3)
            return
        with (
            inputs.threads_of(self.n_jobs),
            inputs.progress(self.verbose, self.n_estimators, trees) as after_tree,
        ):
            with checked_parameters():
                forest.fit(x, y, weight, after_tree, kept)
            self.arrays_, self._grown_on = forest.arrays(), grown_on
            self._grown_names = getattr(self, "feature_names_in_", None)
            value = self.arrays_["value"]
            self.base_score_ = torch.zeros(1 if value.dim() == 1 else value.shape[1])
            self._pack()
            if self.oob_score:
                self._take_out_of_bag(forest.out_of_bag(x, weight).numpy(), truth)

    def _out_of_bag(self, found):
        unseen = np.isnan(found).any(axis=1)
        if unseen.any():
            warn(
                "Some inputs do not have OOB scores. This probably means too few trees were used "
                "to compute any reliable OOB estimates.",
                stacklevel=5,
            )
        return np.where(unseen[:, None], 0.0, found)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def to_module(self):
        """The fitted forest as an :class:`EnsembleModule`, for TorchScript and torch.export:
        probabilities (N, n_classes), or means (N, n_outputs)."""
        check_is_fitted(self, "arrays_")
        return EnsembleModule(self.arrays_, self.base_score_, num_features=self.n_features_in_)

    @property
    def feature_importances_(self):
        """The mean decrease of impurity by each feature's splits, as shares: (n_features,)."""
        check_is_fitted(self, "arrays_")
        of_trees = inputs.importances(self.arrays_, self.n_features_in_)
        of_trees = of_trees[of_trees.sum(1) > 0]
        if len(of_trees) == 0:
            return np.zeros(self.n_features_in_)
        mean = of_trees.mean(0)
        return mean / mean.sum()
