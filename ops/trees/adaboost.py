"""AdaBoost with scikit-learn's parameter names: over trees in C++, or over any estimator."""

import numbers
from warnings import warn

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tilewright._C import AdaBoost
from tilewright.trees import forest_inputs as inputs
from tilewright.trees.adaboost_rounds import boost_classes, boost_values
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.inputs import tensor_of
from tilewright.trees.parameters import seed_of, with_parameters_of
from tilewright.trees.tensors import class_of, like_input


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
        answers, order = self.trees.scores(x).sort(dim=1, stable=True)
        below = self.weights[order].cumsum(1)
        enough = below >= 0.5 * below[:, -1:]
        return answers.gather(1, enough.to(torch.uint8).argmax(1, keepdim=True))


class AdaBoostBase(BaseEstimator):
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
        model = AdaBoost(options | {"seed": seed_of(self.random_state)})
        with inputs.progress(self.verbose, self.n_estimators) as after_tree:
            try:
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
        self._base_score = model.base_score
        self._take_weights(model.estimator_weights, model.estimator_errors)

    def _boost_any(self, boost, x, y, weight, *arguments):
        inputs.positive("n_estimators", self.n_estimators)
        self.__dict__.pop("arrays_", None)
        with inputs.progress(self.verbose, self.n_estimators) as after_tree:
            self.estimators_, weights, errors = boost(
                self, np.asarray(x), y, weight, self._rate(), after_tree, *arguments
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
        return tags


class AdaBoostClassifier(ClassifierMixin, AdaBoostBase):
    """AdaBoost for classes: SAMME (Zhu, Zou, Rosset, Hastie 2009), for two classes Freund and
    Schapire's algorithm, with the weights and stopping rules of scikit-learn.

    X is (n_samples, n_features): a torch tensor, used as it is, or anything scikit-learn takes;
    NaN is missing. Predictions answer with what they were given: a tensor, else an array.

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

    @with_parameters_of(AdaBoostBase)
    def __init__(self, estimator=None, *, resample=False, **common):
        super().__init__(estimator, **common)
        self.resample = resample

    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,) of labels."""
        x, labels, weight = inputs.training_set(self, X, y, sample_weight, numeric=False)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise ValueError(f"y must have at least 2 classes, got 1 class: {self.classes_[0]!r}")
        if self.estimator is not None:
            self._boost_any(boost_classes, x, codes, weight)
            return self
        if self.criterion not in ("gini", "entropy", "log_loss"):
            raise ValueError(f"criterion must be gini, entropy or log_loss, got {self.criterion!r}")
        options = self._tree_options(len(x)) | {
            "num_class": self.n_classes_,
            "resample": bool(self.resample),
        }
        self._boost_trees(options, x, torch.from_numpy(codes), weight)
        return self

    def to_module(self):
        """The fitted ensemble of trees as an :class:`EnsembleModule` of probabilities: leaves are
        one-hot vectors times the tree's weight."""
        return EnsembleModule(self._trees(), self._base_score, "softmax")

    def _votes(self, X):
        """(n_samples, n_classes) as a tensor: the decision function over (n_classes - 1)."""
        check_is_fitted(self, "estimator_weights_")
        x = inputs.features_of(self, X)
        if hasattr(self, "arrays_"):
            return self.to_module().scores(x)
        k, weights = self.n_classes_, self.estimator_weights_[: self.n_iter_]
        votes = np.full((len(x), k), -1 / (k - 1)) * weights.sum()
        for estimator, w in zip(self.estimators_, weights, strict=True):
            votes[np.arange(len(x)), estimator.predict(np.asarray(x))] += w * (1 + 1 / (k - 1))
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
        options = self._tree_options(len(x)) | {"num_class": 0, "loss": self.loss}
        self._boost_trees(options, x, target, weight)
        return self

    def to_module(self):
        """The fitted ensemble of trees as a :class:`MedianModule`."""
        trees = EnsembleModule(self._trees(), self._base_score)
        return MedianModule(trees, torch.from_numpy(self.estimator_weights_[: self.n_iter_].copy()))

    def predict(self, X):
        """(n_samples,): a float32 tensor for a tensor, else a float64 array."""
        check_is_fitted(self, "estimator_weights_")
        x = inputs.features_of(self, X)
        if hasattr(self, "arrays_"):
            return like_input(self.to_module()(x)[:, 0], X)
        answers = np.array([e.predict(np.asarray(x)) for e in self.estimators_]).T
        order = np.argsort(answers, axis=1, kind="stable")
        below = self.estimator_weights_[: self.n_iter_][order].cumsum(axis=1)
        middle = (below >= 0.5 * below[:, -1:]).argmax(axis=1)
        rows = np.arange(len(answers))
        found = torch.from_numpy(answers[rows, order[rows, middle]])
        return like_input(found, X)
