"""Random forests with scikit-learn's parameter names."""

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from tilewright.trees import forest_inputs as inputs
from tilewright.trees.forest_base import ForestBase
from tilewright.trees.parameters import unchanged_on_failure, with_parameters_of
from tilewright.trees.tensors import class_of, like_input


class RandomForestClassifier(ClassifierMixin, ForestBase):
    """Breiman's random forest (Machine Learning 45, 2001) on quantised features.

    X is (n_samples, n_features): a torch tensor, used as it is, or anything scikit-learn takes,
    sparse tables too, whose absent entries are 0; NaN is missing. Predictions answer with what
    they were given: a tensor, else an array.

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

    @unchanged_on_failure
    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,) of labels."""
        if self.criterion not in ("gini", "entropy", "log_loss"):
            raise ValueError(f"criterion must be gini, entropy or log_loss, got {self.criterion!r}")
        x, labels, weight = inputs.training_set(self, X, y, sample_weight, numeric=False)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        self._take_classes(classes)
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
        options = self._options(x.shape[0], weight) | {
            "num_class": self.n_classes_,
            "balanced_subsample": by_bag,
        }
        self._grow(options, x, torch.from_numpy(codes), weight, labels)
        return self

    def _take_classes(self, classes):
        self.classes_, self.n_classes_ = classes, len(classes)

    def _take_out_of_bag(self, found, truth):
        self.oob_decision_function_ = self._out_of_bag(found)
        best = self.oob_decision_function_.argmax(1)
        score = self.oob_score if callable(self.oob_score) else accuracy_score
        self.oob_score_ = score(truth, self.classes_[best])

    def predict_proba(self, X):
        """(n_samples, n_classes): a tensor for a tensor, else an array."""
        check_is_fitted(self, "arrays_")
        shares = like_input(self._served(self._table(X)), X)
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

    @unchanged_on_failure
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
        options = self._options(x.shape[0], weight) | {"num_class": 0}
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
        found = like_input(self._served(self._table(X)), X)
        return found if self._columns else found[:, 0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
