"""Gradient boosting with scikit-learn's parameter names."""

import json

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from tilewright.trees.base import GradientBoostingBase
from tilewright.trees.files import CLASSES, read_classes
from tilewright.trees.inputs import (
    BLOCK_ROWS,
    check_fits_float,
    check_labels,
    distinct,
    tensor_of,
)
from tilewright.trees.parameters import unchanged_on_failure, with_parameters_of
from tilewright.trees.tensors import as_array, class_of, like_input, on_cpu

# scikit-learn's name of a loss: that of the objective, and the link to predictions.
REGRESSION_LOSSES = {
    "squared_error": ("squared_error", "identity"),
    "absolute_error": ("absolute_error", "identity"),
    "quantile": ("quantile", "identity"),
    "huber": ("huber", "identity"),
    "poisson": ("poisson", "exp"),
    "gamma": ("gamma", "exp"),
    "tweedie": ("tweedie", "exp"),
}
WITH_ALPHA = ("quantile", "huber", "tweedie")


class GradientBoostingRegressor(RegressorMixin, GradientBoostingBase):
    """Boosted regression trees (Friedman 2001; second order as in arXiv:1603.02754).

    X is (n_samples, n_features): a torch tensor, used as it is, or anything scikit-learn takes,
    data frames and sparse tables too, whose absent entries are 0; NaN is missing. ``predict``
    answers with what it was given: a tensor, else an array. A tensor on CUDA is fitted, and
    predicted for, on its device: the same model, bit for bit of squared errors; what is not fitted
    there (docs/trees.md, Fitting on CUDA) is an error that names the parameter. y is (n_samples,),
    or (n_samples, n_outputs).

    Args:
        loss: "squared_error", "absolute_error", "quantile" (``alpha``), "huber" (pseudo-Huber of
            slope ``alpha``), "poisson", "gamma" or "tweedie" (variance power ``alpha``); or a
            differentiable function of torch, ``loss(scores, y)`` -> losses, all (n_samples,);
            scores and y of several outputs are (n_samples, n_outputs). Gradients come from
            autograd. The named losses take each output by itself.
        alpha: as above.
        hessian: of a function, what all second derivatives are taken to be, such as a bound; None:
            they are computed, by one more backward pass.
        n_estimators, learning_rate: how many trees, and what each counts.
        max_depth, max_leaf_nodes: limits of a tree; None: none.
        grow_policy: "depthwise", or "lossguide": the leaf of the greatest gain first.
        tree_method: "hist": splits lie between bins; "exact": between any two different values of
            a node's rows. The latter takes no categories, and 16 bytes of memory a value.
        max_bin: bins of a feature, at most 32767; missing values have one of their own.
        multi_strategy: of several outputs, or classes: "one_output_per_tree", a tree for each in a
            round, or "multi_output_tree", one tree whose leaves are vectors, as in XGBoost: a split
            gains the sum over outputs, ``min_child_weight`` limits the mean of their hessians. It
            takes no ``monotonic_cst`` and no columns of categories.
        min_child_weight, reg_lambda, reg_alpha, gamma: as in XGBoost.
        max_delta_step: the greatest answer of a leaf, 0: any; None: 0.7 for "poisson", whose
            hessians are multiplied by its exponential, and 0 for other losses, as in XGBoost.
        subsample, colsample_bytree, colsample_bylevel, colsample_bynode: shares that are drawn.
        monotonic_cst: +1, 0 or -1 for each feature.
        categorical_features: columns of categories: None, a mask, positions, names, or
            "from_dtype", those of dtype category of a data frame. Elsewhere categories are whole
            numbers from 0, fewer than ``max_bin``. A split sends one of up to ``max_cat_to_onehot``
            categories right, or those at an end of their order by gradient, at most
            ``max_cat_threshold`` on one side. Prediction refuses what fit did not know.
        sampling_method: "uniform" (``subsample``), or "goss": from round 1 / learning_rate on the
            share ``top_rate`` of rows with the greatest gradients, and of the others, which count
            more, ``other_rate`` of all rows (LightGBM's).
        booster: "gbtree", or "dart": each tree is left out of a round's gradients with a chance of
            ``rate_drop``, none in a round with one of ``skip_drop``, at least one with
            ``one_drop``; ``sample_type`` "uniform", or "weighted" by what a tree still counts;
            ``normalize_type`` "tree" or "forest": as in XGBoost, folded into the leaves. Or
            "gblinear": a linear model, whose weights each round moves by coordinate descent, with
            ``reg_alpha`` and ``reg_lambda`` times the sum of weights; set the latter to 0 for what
            XGBoost does by default.
        eval_metric: "rmse", "mae", "logloss", "error", "auc", "ndcg", "ndcg@k", a function of
            arrays (y, predictions) to a number, or a list of such; None: the loss's own. Classes
            come as their places in ``classes_``, predictions as means or probabilities, (n,) for
            two classes.
        greater_is_better: of functions, whether early stopping maximises them.
        early_stopping_rounds: rounds without a better metric before the end; the last metric on the
            last set of ``eval_set`` counts, and the rounds up to the best are kept.
        warm_start: fit adds trees to those there until they are ``n_estimators`` rounds. With the
            same data and ``random_state`` they are bitwise those of one fit (DART: nearly).
        verbose: a progress bar where true.

    Attributes:
        eval_history_: for each evaluation set a dict from metrics to their values by round.
        evals_result_: of these what early stopping looks at.
        n_iter_: the rounds that were kept.
    """

    @with_parameters_of(GradientBoostingBase)
    def __init__(self, *, loss="squared_error", alpha=0.9, hessian=None, **common):
        super().__init__(**common)
        self.loss = loss
        self.alpha = alpha
        self.hessian = hessian

    @property
    def _link(self):
        loss, _ = self._fitted_loss
        return "identity" if callable(loss) else REGRESSION_LOSSES[loss][1]

    def _objective(self):
        loss, alpha = self._fitted_loss  # of Poisson the step
        if callable(loss):
            raise ValueError("a model of a function as its loss cannot be saved as XGBoost's JSON")
        return REGRESSION_LOSSES[loss][0], alpha

    def _attributes(self):
        return {}

    def _take(self, model):
        if model.objective not in REGRESSION_LOSSES:
            raise ValueError(f"a model of {model.objective} is no regressor's")
        self.loss = model.objective
        if self.loss == "poisson":
            self.max_delta_step = model.objective_param
        else:
            if self.loss in WITH_ALPHA:
                self.alpha = model.objective_param
        self._fitted_loss = self.loss, model.objective_param

    @unchanged_on_failure
    def fit(self, X, y, sample_weight=None, eval_set=None, init_model=None):
        """X (n_samples, n_features), y (n_samples,) or (n_samples, n_outputs); ``eval_set`` is
        (X, y), (X, y, sample_weight) or a list of such; ``n_estimators`` rounds are added to those
        of ``init_model``, a fitted estimator or the path of a saved one."""
        if not callable(self.loss) and self.loss not in REGRESSION_LOSSES:
            raise ValueError(
                f"loss must be a function or one of {sorted(REGRESSION_LOSSES)}, got {self.loss!r}"
            )
        start = self._start(init_model)
        if start is not None:
            before, alpha = start._fitted_loss
            if before != self.loss or (self.loss in WITH_ALPHA and alpha != self.alpha):
                raise ValueError(
                    f"the model to go on from has the loss {before!r} (alpha {alpha}), this one "
                    f"{self.loss!r} (alpha {self.alpha})"
                )
        features, labels, weight = self._training_set(
            X, y, sample_weight, numeric=True, reset=start is not self, multi_output=True
        )
        options = self._options()
        if not callable(self.loss):
            objective = REGRESSION_LOSSES[self.loss][0]
            options |= {"objective": objective, "objective_param": self.alpha}
        return self._fit(
            options,
            (features, _numbers(labels), weight),
            eval_set,
            _numbers,
            start,
            learnt={"_fitted_loss": (self.loss, self._loss_parameter())},
        )

    def _loss_parameter(self):
        if self.loss != "poisson":
            return self.alpha
        return 0.7 if self.max_delta_step is None else self.max_delta_step

    def predict(self, X):
        """(n_samples,) or (n_samples, n_outputs): a float32 tensor for a tensor, else a float64
        array."""
        found = self._predictions(X)
        return like_input(found[:, 0] if found.shape[1] == 1 else found, X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def score(self, X, y, sample_weight=None):
        """R^2 of the predictions: a float."""
        return super().score(on_cpu(X), as_array(y), as_array(sample_weight))


class GradientBoostingClassifier(ClassifierMixin, GradientBoostingBase):
    """Boosted trees for classes: the logistic loss for two, softmax for more, with a tree a class
    or, with ``multi_strategy="multi_output_tree"``, one tree for all of them.

    The parameters are those of :class:`GradientBoostingRegressor` without ``loss``, ``alpha`` and
    ``hessian``, and ``class_weight``: None, "balanced", or a dict from classes to what their rows
    weigh, as in scikit-learn.
    """

    @with_parameters_of(GradientBoostingBase)
    def __init__(self, *, class_weight=None, **common):
        super().__init__(**common)
        self.class_weight = class_weight

    @property
    def _link(self):
        return "sigmoid" if self.base_score_.numel() == 1 else "softmax"

    def _objective(self):
        # A file may have two classes with a score each.
        return "logistic" if self.base_score_.numel() == 1 else "softmax", 0.0

    def _attributes(self):
        return {CLASSES: json.dumps(self.classes_.tolist())}

    def _take(self, model):
        if model.objective not in ("logistic", "softmax"):
            raise ValueError(f"a model of {model.objective} is no classifier's")
        count = max(model.base_score.numel(), 2)
        classes = read_classes(model.attributes, count)
        self.classes_ = np.arange(count) if classes is None else classes

    @unchanged_on_failure
    def fit(self, X, y, sample_weight=None, eval_set=None, init_model=None):
        """X (n_samples, n_features), y (n_samples,) of labels; ``eval_set`` is (X, y), (X, y,
        sample_weight) or a list of such; ``n_estimators`` rounds are added to those of
        ``init_model``, a fitted estimator or the path of a saved one, whose classes stay."""
        start = self._start(init_model)
        features, labels, weight = self._training_set(
            X, y, sample_weight, numeric=False, reset=start is not self
        )
        check_labels(labels)
        if len(labels) == 0:
            raise ValueError("X and y must have at least one row, got none")
        try:
            classes = distinct(labels)
        except TypeError as error:  # numbers beside strings, or None
            raise ValueError(
                f"Unknown label type: y must hold labels of one kind ({error})"
            ) from None
        # scikit-learn's check makes copies of what it is given.
        check_classification_targets(classes if len(classes) <= 20 else labels)
        self.classes_ = classes if start is None else start.classes_
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least 2 classes, got 1 class: {self.classes_[0]!r}")
        codes = self._encode(labels)
        if self.class_weight is not None:
            by_class = torch.from_numpy(compute_sample_weight(self.class_weight, labels)).float()
            weight = by_class if weight is None else weight * by_class
        binary = len(self.classes_) == 2
        options = self._options() | {
            "objective": "logistic" if binary else "softmax",
            "num_class": len(self.classes_),
        }
        return self._fit(options, (features, codes, weight), eval_set, self._encode, start)

    def _encode(self, y):
        labels = np.asarray(as_array(y))
        codes = np.empty(labels.shape, np.float32)
        for first in range(0, len(labels), BLOCK_ROWS):
            some = labels[first : first + BLOCK_ROWS]
            places = np.searchsorted(self.classes_, some).clip(max=len(self.classes_) - 1)
            unknown = self.classes_[places] != some
            if unknown.any():
                row = first + int(np.flatnonzero(unknown)[0])
                raise ValueError(f"y of row {row} is {labels[row]!r}, which is not in classes_")
            codes[first : first + BLOCK_ROWS] = places
        return torch.from_numpy(codes)

    def predict_proba(self, X):
        """(n_samples, n_classes): a tensor for a tensor, else an array."""
        out = self._predictions(X)
        if out.shape[1] == 1:
            out = torch.cat([1 - out, out], 1)
        found = like_input(out, X)
        if isinstance(found, np.ndarray):  # float64, whose rows add up to 1 in float64
            found /= found.sum(1, keepdims=True)
        return found

    def predict(self, X):
        """(n_samples,) of ``classes_``; for a tensor of numbers a tensor."""
        return class_of(self.predict_proba(X), self.classes_, X)

    def score(self, X, y, sample_weight=None):
        """The share of right classes: a float."""
        return super().score(on_cpu(X), as_array(y), as_array(sample_weight))


def _numbers(y):
    values = tensor_of(np.asarray(as_array(y)))
    if values.dtype == torch.int64:
        values = values.double()
    if values.dtype == torch.float64:
        check_fits_float(values)
    return values.float()
