"""AdaBoost with scikit-learn's parameter names: over trees in C++, or over any estimator."""

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tilewright.trees import forest_inputs as inputs
from tilewright.trees.adaboost_base import AdaBoostBase, MedianModule, weighted_median
from tilewright.trees.adaboost_rounds import boost_classes, boost_values
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.explain import ExplainMixin
from tilewright.trees.inputs import distinct, places_of
from tilewright.trees.onnx_export import OnnxMixin
from tilewright.trees.parameters import unchanged_on_failure, with_parameters_of
from tilewright.trees.tensors import class_of, like_input


class AdaBoostClassifier(ClassifierMixin, ExplainMixin, OnnxMixin, AdaBoostBase):
    """AdaBoost for classes: SAMME (Zhu, Zou, Rosset, Hastie 2009), for two classes Freund and
    Schapire's algorithm, with the weights and stopping rules of scikit-learn.

    X is (n_samples, n_features): a torch tensor, used as it is, or anything scikit-learn takes,
    sparse tables too, whose absent entries are 0; NaN is missing. Predictions answer with what
    they were given: a tensor, else an array.

    Args:
        estimator: None for trees in C++, with the parameters below; or any scikit-learn
            classifier, which with ``resample`` off must take sample weights.
        n_estimators: how many at most; fewer where one is perfect or no better than chance.
        learning_rate: what each one's weight is multiplied by.
        resample: fit to rows drawn in proportion to their weights, as the original has it, instead
            of weighed rows.
        criterion, max_depth, max_leaf_nodes, min_samples_split, min_samples_leaf, max_features:
            of the trees, as in :class:`RandomForestClassifier`; all features at first.
        max_bin: values of a feature that are told apart at most, up to 32767.
        random_state, verbose: of draws; a progress bar where true.
    """

    _link = "softmax"

    @with_parameters_of(AdaBoostBase)
    def __init__(self, estimator=None, *, resample=False, **common):
        super().__init__(estimator, **common)
        self.resample = resample

    @unchanged_on_failure
    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,) of labels."""
        x, labels, weight = inputs.training_set(self, X, y, sample_weight, numeric=False)
        self.classes_ = distinct(labels)
        # scikit-learn's check makes copies of what it is given; up to 20 classes it asks no more.
        check_classification_targets(self.classes_ if len(self.classes_) <= 20 else labels)
        codes = places_of(labels, self.classes_)
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise ValueError(f"y must have at least 2 classes, got 1 class: {self.classes_[0]!r}")
        if self.estimator is not None:
            self._boost_any(boost_classes, x, codes, weight)
            return self
        if self.criterion not in ("gini", "entropy", "log_loss"):
            raise ValueError(f"criterion must be gini, entropy or log_loss, got {self.criterion!r}")
        options = self._tree_options(x.shape[0]) | {
            "num_class": self.n_classes_,
            "resample": bool(self.resample),
        }
        self._boost_trees(options, x, torch.from_numpy(codes), weight)
        return self

    def to_module(self):
        """The fitted ensemble of trees as an :class:`EnsembleModule` of probabilities: leaves are
        one-hot vectors times the tree's weight."""
        return EnsembleModule(self._trees(), self.base_score_, self._link, self.n_features_in_)

    def _explain(self, operator, x):
        self._trees()  # says where there are none
        return super()._explain(operator, x)

    def to_onnx(self, path=None):
        self._trees()
        return super().to_onnx(path)

    to_onnx.__doc__ = OnnxMixin.to_onnx.__doc__

    def _votes(self, X):
        """(n_samples, n_classes) as a tensor: the decision function over (n_classes - 1)."""
        check_is_fitted(self, "estimator_weights_")
        table = self._table(X)
        if hasattr(self, "arrays_"):
            return self._served(table, "scores")
        x, rows = inputs.array_of(table), np.arange(table.shape[0])
        k, weights = self.n_classes_, self.estimator_weights_[: self.n_iter_]
        votes = np.full((len(rows), k), -1 / (k - 1)) * weights.sum()
        for estimator, w in zip(self.estimators_, weights, strict=True):
            votes[rows, estimator.predict(x)] += w * (1 + 1 / (k - 1))
        return torch.from_numpy(votes / weights.sum() / (k - 1))

    def decision_function(self, X):
        """(n_samples,) for two classes, above 0 for the second; else (n_samples, n_classes)."""
        votes = like_input(self._votes(X), X)
        if self.n_classes_ == 2:
            return votes[:, 1] - votes[:, 0]
        return votes * (self.n_classes_ - 1)

    def predict_proba(self, X):
        """(n_samples, n_classes): a tensor for a tensor, else an array."""
        votes = self._votes(X)
        return like_input((votes if isinstance(X, Tensor) else votes.double()).softmax(1), X)

    def predict_log_proba(self, X):
        """The logarithm of :meth:`predict_proba`."""
        shares = self.predict_proba(X)
        return shares.log() if isinstance(X, Tensor) else np.log(shares)

    def predict(self, X):
        """(n_samples,) of ``classes_``; for a tensor of numbers a tensor."""
        return class_of(self._votes(X), self.classes_, X)


class AdaBoostRegressor(RegressorMixin, AdaBoostBase):
    """AdaBoost.R2 (Drucker 1997): each tree sees rows drawn in proportion to their weights, and
    the prediction is the weighted median of the trees' answers.

    The parameters are those of :class:`AdaBoostClassifier` without ``resample``, and

    Args:
        loss: "linear", "square" or "exponential": how a row's error, as a share of the greatest
            one, becomes its loss.
    """

    @with_parameters_of(AdaBoostBase)
    def __init__(
        self, estimator=None, *, loss="linear", criterion="squared_error", max_depth=3, **common
    ):
        super().__init__(estimator, criterion=criterion, max_depth=max_depth, **common)
        self.loss = loss

    @unchanged_on_failure
    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,)."""
        if self.loss not in ("linear", "square", "exponential"):
            raise ValueError(f"loss must be linear, square or exponential, got {self.loss!r}")
        x, values, weight = inputs.training_set(self, X, y, sample_weight, numeric=True)
        target = inputs.numbers_of(values)
        if self.estimator is not None:
            self._boost_any(boost_values, x, target.numpy(), weight, self.loss)
            return self
        if self.criterion != "squared_error":
            raise ValueError(f"criterion must be squared_error, got {self.criterion!r}")
        options = self._tree_options(x.shape[0]) | {"num_class": 0, "loss": self.loss}
        self._boost_trees(options, x, target, weight)
        return self

    def _tree_module(self):
        return EnsembleModule(self._trees(), self.base_score_, num_features=self.n_features_in_)

    def _weights(self):
        return torch.from_numpy(self.estimator_weights_[: self.n_iter_].copy())

    def to_module(self):
        """The fitted ensemble of trees as a :class:`MedianModule`."""
        return MedianModule(self._tree_module(), self._weights())

    def predict(self, X):
        """(n_samples,): a float32 tensor for a tensor, else a float64 array."""
        check_is_fitted(self, "estimator_weights_")
        table = self._table(X)
        if hasattr(self, "arrays_"):
            found = weighted_median(self._served(table), self._weights())
            return like_input(found[:, 0], X)
        x = inputs.array_of(table)
        answers = np.array([e.predict(x) for e in self.estimators_]).T
        order = np.argsort(answers, axis=1, kind="stable")
        below = self.estimator_weights_[: self.n_iter_][order].cumsum(axis=1)
        middle = (below >= 0.5 * below[:, -1:]).argmax(axis=1)
        rows = np.arange(len(answers))
        found = torch.from_numpy(answers[rows, order[rows, middle]])
        return like_input(found, X)
