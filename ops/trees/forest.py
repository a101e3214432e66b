"""Random forests and extremely randomised trees with scikit-learn's parameter names."""

import numbers
from warnings import warn

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from tilewright._C import Forest
from tilewright.trees import forest_inputs as inputs
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.inputs import tensor_of
from tilewright.trees.parameters import seed_of, with_parameters_of
from tilewright.trees.tensors import class_of, like_input


class ForestBase(BaseEstimator):
    """What all four have in common; their parameters are those of RandomForestClassifier."""

    _random_thresholds = False

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
        trees = 0 if kept is None else kept["tree_output"].numel()
        if trees > self.n_estimators:
            raise ValueError(
                f"n_estimators={self.n_estimators} must be larger or equal to the {trees} trees "
                "of before when warm_start is set"
            )
        if kept is None:
            self._seed = seed_of(self.random_state)
        forest = Forest(options | {"seed": self._seed})
        weight = None if weight is None else tensor_of(weight)
        if trees == self.n_estimators:
            warn("warm_start without a greater n_estimators grows no new trees.", stacklevel=3)
            return
        with (
            inputs.threads_of(self.n_jobs),
            inputs.progress(self.verbose, self.n_estimators, trees) as after_tree,
        ):
            forest.fit(x, y, weight, after_tree, kept)
            self.arrays_ = forest.arrays()
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
        return tags

    def to_module(self):
        """The fitted forest as an :class:`EnsembleModule`, for TorchScript and torch.export:
        probabilities (N, n_classes), or means (N, n_outputs)."""
        check_is_fitted(self, "arrays_")
        value = self.arrays_["value"]
        return EnsembleModule(self.arrays_, torch.zeros(1 if value.dim() == 1 else value.shape[1]))

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


class RandomForestClassifier(ClassifierMixin, ForestBase):
    """Breiman's random forest (Machine Learning 45, 2001) on quantised features.

    X is (n_samples, n_features): a torch tensor, used as it is, or anything scikit-learn takes;
    NaN is missing. Predictions answer with what they were given: a tensor, else an array.

    Args:
        n_estimators: how many trees.
        criterion: "gini", "entropy" or "log_loss"; of regressors "squared_error".
        max_depth, max_leaf_nodes: limits of a tree; None: none.
        min_samples_split, min_samples_leaf: rows of a node that may split and of a leaf, counts or
            shares.
        min_weight_fraction_leaf: the least share of the weight that a leaf must hold.
        max_features: how many features a node draws: a count, a share, "sqrt", "log2", or None for
            all. More are drawn while all are constant.
        min_impurity_decrease: what a split must gain, weighed by its node's share of rows.
        bootstrap, max_samples: whether trees draw rows with replacement, and how many: a count, or
            a share of the rows or of their weight.
        oob_score: whether to fill ``oob_score_`` and ``oob_decision_function_`` (of regressors
            ``oob_prediction_``); or a function of labels and predictions, which is the score.
        n_jobs: threads; None: torch's.
        random_state: of draws. A tree depends on it and on its index alone.
        verbose: a progress bar where true.
        warm_start: whether fit keeps the trees there are, and grows only what is missing.
        class_weight: weights by class, "balanced", or "balanced_subsample" for each tree's rows.
        max_bin: values of a feature that are told apart at most, up to 32767. 255 are three
            times as fast, and cost a little quality where trees are full-grown on many rows.
    """

    @with_parameters_of(ForestBase)
    def __init__(
        self,
        n_estimators=100,
        *,
        criterion="gini",
        max_features="sqrt",
        class_weight=None,
        **common,
    ):
        super().__init__(n_estimators, criterion=criterion, max_features=max_features, **common)
        self.class_weight = class_weight

    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,) of labels."""
        if self.criterion not in ("gini", "entropy", "log_loss"):
            raise ValueError(f"criterion must be gini, entropy or log_loss, got {self.criterion!r}")
        x, labels, weight = inputs.training_set(self, X, y, sample_weight, numeric=False)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise ValueError(f"y must have at least 2 classes, got 1 class: {self.classes_[0]!r}")
        by_bag = self.class_weight == "balanced_subsample" and self.bootstrap
        if self.class_weight is not None and not by_bag:
            wanted = self.class_weight
            if isinstance(wanted, str):
                if wanted not in ("balanced", "balanced_subsample"):
                    raise ValueError(
                        "class_weight must be a dict, 'balanced' or 'balanced_subsample', got "
                        f"{wanted!r}"
                    )
                wanted = "balanced"
            of_class = compute_sample_weight(wanted, labels)
            weight = of_class if weight is None else weight * of_class
        options = self._options(len(x), weight) | {
            "num_class": self.n_classes_,
            "balanced_subsample": by_bag,
        }
        self._grow(options, x, torch.from_numpy(codes), weight, labels)
        return self

    def _take_out_of_bag(self, found, truth):
        self.oob_decision_function_ = self._out_of_bag(found)
        best = self.oob_decision_function_.argmax(1)
        score = self.oob_score if callable(self.oob_score) else accuracy_score
        self.oob_score_ = score(truth, self.classes_[best])

    def predict_proba(self, X):
        """(n_samples, n_classes): a tensor for a tensor, else an array."""
        check_is_fitted(self, "arrays_")
        shares = like_input(self.to_module()(inputs.features_of(self, X)), X)
        return shares / shares.sum(1)[:, None]

    def predict_log_proba(self, X):
        """The logarithm of :meth:`predict_proba`."""
        shares = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return shares.log() if isinstance(X, torch.Tensor) else np.log(shares)

    def predict(self, X):
        """(n_samples,) of ``classes_``; for a tensor of numbers a tensor."""
        return class_of(self.predict_proba(X), self.classes_, X)


class RandomForestRegressor(RegressorMixin, ForestBase):
    """Breiman's random forest for values; y may have several columns.

    The parameters are those of :class:`RandomForestClassifier` without ``class_weight``.
    """

    @with_parameters_of(ForestBase)
    def __init__(self, n_estimators=100, *, criterion="squared_error", max_features=1.0, **common):
        super().__init__(n_estimators, criterion=criterion, max_features=max_features, **common)

    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,) or (n_samples, n_outputs)."""
        if self.criterion != "squared_error":
            raise ValueError(f"criterion must be squared_error, got {self.criterion!r}")
        x, values, weight = inputs.training_set(
            self, X, y, sample_weight, numeric=True, multi_output=True
        )
        self.n_outputs_ = 1 if values.ndim == 1 else values.shape[1]
        self._columns = values.ndim == 2 and values.shape[1] > 1
        target = inputs.numbers_of(values.reshape(len(values), -1))
        options = self._options(len(x), weight) | {"num_class": 0}
        self._grow(options, x, target, weight, target.numpy())
        return self

    def _take_out_of_bag(self, found, truth):
        found = self._out_of_bag(found)
        self.oob_prediction_ = found if self._columns else found[:, 0]
        score = self.oob_score if callable(self.oob_score) else r2_score
        self.oob_score_ = score(truth if self._columns else truth[:, 0], self.oob_prediction_)

    def predict(self, X):
        """(n_samples,) or (n_samples, n_outputs): a float32 tensor for a tensor, else a float64
        array."""
        check_is_fitted(self, "arrays_")
        found = like_input(self.to_module()(inputs.features_of(self, X)), X)
        return found if self._columns else found[:, 0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
