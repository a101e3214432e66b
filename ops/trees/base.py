"""What the boosting estimators share: parameters, input, fitting, files."""

import os

import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from tilewright._C import Booster, LinearBooster
from tilewright.trees.categories import CategoricalMixin
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.evaluation import (
    evaluation_sets,
    history_of,
    metrics_of,
    returning_tensors,
)
from tilewright.trees.explain import ExplainMixin
from tilewright.trees.files import FilesMixin
from tilewright.trees.inputs import InputMixin, check_same_names, dense_blocks
from tilewright.trees.inspection import importance
from tilewright.trees.linear import LinearModule
from tilewright.trees.onnx_export import OnnxMixin
from tilewright.trees.parameters import (
    check_number,
    checked_parameters,
    drawing_options,
    one_of,
    seed_of,
)
from tilewright.trees.serving import ServingMixin, check_trees


class GradientBoostingBase(
    ServingMixin, InputMixin, CategoricalMixin, FilesMixin, ExplainMixin, OnnxMixin, BaseEstimator
):
    def __init__(
        self,
        *,
        n_estimators=100,
        learning_rate=0.1,
        max_depth=6,
        max_leaf_nodes=None,
        grow_policy="depthwise",
        tree_method="hist",
        max_bin=255,
        multi_strategy="one_output_per_tree",
        min_child_weight=1.0,
        reg_lambda=1.0,
        reg_alpha=0.0,
        gamma=0.0,
        max_delta_step=None,
        subsample=1.0,
        colsample_bytree=1.0,
        colsample_bylevel=1.0,
        colsample_bynode=1.0,
        monotonic_cst=None,
        categorical_features=None,
        max_cat_to_onehot=4,
        max_cat_threshold=64,
        sampling_method="uniform",
        top_rate=0.2,
        other_rate=0.1,
        booster="gbtree",
        rate_drop=0.0,
        skip_drop=0.0,
        one_drop=False,
        normalize_type="tree",
        sample_type="uniform",
        eval_metric=None,
        greater_is_better=False,
        early_stopping_rounds=None,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.max_leaf_nodes = max_leaf_nodes
        self.grow_policy = grow_policy
        self.tree_method = tree_method
        self.max_bin = max_bin
        self.multi_strategy = multi_strategy
        self.min_child_weight = min_child_weight
        self.reg_lambda = reg_lambda
        self.reg_alpha = reg_alpha
        self.gamma = gamma
        self.max_delta_step = max_delta_step
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.colsample_bylevel = colsample_bylevel
        self.colsample_bynode = colsample_bynode
        self.monotonic_cst = monotonic_cst
        self.categorical_features = categorical_features
        self.max_cat_to_onehot = max_cat_to_onehot
        self.max_cat_threshold = max_cat_threshold
        self.sampling_method = sampling_method
        self.top_rate = top_rate
        self.other_rate = other_rate
        self.booster = booster
        self.rate_drop = rate_drop
        self.skip_drop = skip_drop
        self.one_drop = one_drop
        self.normalize_type = normalize_type
        self.sample_type = sample_type
        self.eval_metric = eval_metric
        self.greater_is_better = greater_is_better
        self.early_stopping_rounds = early_stopping_rounds
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _options(self):
        if self.grow_policy not in ("depthwise", "lossguide"):
            raise ValueError(
                f"grow_policy must be 'depthwise' or 'lossguide', got {self.grow_policy!r}"
            )
        check_number("max_delta_step", self.max_delta_step, 0, "a number that is not negative")
        check_number("hessian", getattr(self, "hessian", None), 0, "a bound that is not negative")
        options = {
            "n_estimators": self.n_estimators,
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth or 0,
            "max_leaves": self.max_leaf_nodes or 0,
            "loss_guided": self.grow_policy == "lossguide",
            "tree_method": one_of("tree_method", self.tree_method, ("hist", "exact")),
            "max_bin": self.max_bin,
            "multi_strategy": self.multi_strategy,
            "min_child_weight": self.min_child_weight,
            "reg_lambda": self.reg_lambda,
            "reg_alpha": self.reg_alpha,
            "gamma": self.gamma,
            "max_delta_step": -1.0 if self.max_delta_step is None else self.max_delta_step,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample_bytree,
            "colsample_bylevel": self.colsample_bylevel,
            "colsample_bynode": self.colsample_bynode,
            "early_stopping_rounds": self.early_stopping_rounds or 0,
            "seed": seed_of(self.random_state),
        } | drawing_options(self)
        if isinstance(self.monotonic_cst, dict):
            raise ValueError("monotonic_cst must list a sign for each feature, got a dict")
        if self.monotonic_cst is not None:
            if any(sign not in (-1, 0, 1) for sign in self.monotonic_cst):
                raise ValueError(f"monotonic_cst must be of -1, 0 and 1, got {self.monotonic_cst}")
            options["monotone"] = [int(sign) for sign in self.monotonic_cst]
        categorical = self._mark_categorical()
        if categorical is not None:
            if self.tree_method == "exact":
                raise ValueError("tree_method='exact' takes no columns of categories; 'hist' does")
            options["categorical"] = categorical.astype(int).tolist()
            options["max_cat_to_onehot"] = self.max_cat_to_onehot
            options["max_cat_threshold"] = self.max_cat_threshold
        return options

    def _start(self, init_model):
        """The fitted estimator that fit goes on from: this one by ``warm_start``; or None."""
        if init_model is None:
            return self if self.warm_start and hasattr(self, "arrays_") else None
        if isinstance(init_model, (str, os.PathLike)):
            init_model = type(self)().load_model(init_model)
        if not isinstance(init_model, type(self)):
            raise ValueError(
                f"init_model must be a {type(self).__name__} or the path of one's file, got a "
                f"{type(init_model).__name__}"
            )
        init_model.to_module()  # says where nothing is fitted
        return init_model

    def _check_goes_on(self, start):
        """``start``, another fitted model, has to know columns and categories as X has them."""
        if start.n_features_in_ != self.n_features_in_:
            raise ValueError(
                f"X has {self.n_features_in_} features, but init_model was fitted on "
                f"{start.n_features_in_}"
            )
        check_same_names(self, getattr(start, "feature_names_in_", None), "init_model")
        own, theirs = (getattr(model, "categories_", {}) for model in (self, start))
        if own != theirs and (own or "category_ptr" in start.arrays_):
            raise ValueError(
                f"init_model must know X's categories, {own or 'numbers alone'}; it knows "
                f"{theirs or 'numbers alone'}: astype(pandas.CategoricalDtype(...)) gives X those"
            )

    def _metrics(self):
        return metrics_of(
            self.eval_metric, self.greater_is_better, isinstance(self, ClassifierMixin)
        )

    def _fit(self, options, training, eval_set, encode, start=None, eval_groups=None, learnt=None):
        """training: X, labels, weights, sizes of groups; the last two may be None. ``learnt``:
        attributes to set once all has gone well."""
        sets = evaluation_sets(eval_set)
        if not sets and self.early_stopping_rounds:
            raise ValueError("early_stopping_rounds needs an eval_set=(X, y) in fit")
        groups = eval_groups or [None] * len(sets)
        if len(groups) != len(sets):
            raise ValueError(f"{len(sets)} evaluation sets have {len(groups)} lists of groups")
        if start is self:
            options["n_estimators"] = self.n_estimators - self.n_iter_
            if options["n_estimators"] < 0:
                raise ValueError(
                    f"n_estimators={self.n_estimators} must be at least the {self.n_iter_} rounds "
                    "there are when warm_start is true"
                )
            if options["n_estimators"] == 0:
                return self
        elif start is not None:
            self._check_goes_on(start)
        evaluation = []
        for (x, y, weight), group in zip(sets, groups, strict=True):
            table = self._table(x)
            evaluation.append(
                (table, encode(y), self._weights(weight, table.shape[0], group), group)
            )
        after_round, bar = None, None
        if self.verbose:
            from tqdm import tqdm

            bar = tqdm(total=options["n_estimators"], desc="boosting", unit="round")

            def after_round(_round, _scores):
                bar.update()
                return False

        linear = self.booster == "gblinear"
        if linear and self.is_categorical_ is not None:
            raise ValueError("booster='gblinear' takes no columns of categories")
        if start is not None and (linear or not hasattr(start, "arrays_")):
            raise ValueError("booster='gblinear' does not go on from a model")
        loss, kind = getattr(self, "loss", None), LinearBooster if linear else Booster
        outputs = 1 if training[1].dim() == 1 else training[1].shape[1]
        own = (returning_tensors(loss), outputs, self.hessian or 0.0) if callable(loss) else ()
        try:
            with checked_parameters():
                booster = kind(options, *own)
                booster.fit(
                    *training,
                    evaluation=evaluation,
                    metrics=self._metrics(),
                    start=None if start is None else (start.arrays_, start.base_score_),
                    after_round=after_round,
                )
        finally:
            if bar is not None:
                bar.close()
        before = getattr(self, "eval_history_", None) if start is self else None
        self.n_iter_ = booster.best_round + 1
        self.eval_history_ = history_of(booster, before)
        # What early stopping looks at: the last metric on the last set.
        self.evals_result_ = list(self.eval_history_[-1].values())[-1] if sets else []
        self.base_score_ = booster.base_score
        self._forget()
        if linear:
            self.weight_, self.bias_ = booster.weight, booster.bias
        else:
            self.arrays_ = booster.arrays()
            counts = booster.bin_counts.tolist()
            columns = [] if self.is_categorical_ is None else self.is_categorical_.nonzero()[0]
            known = {} if start is None else getattr(start, "category_counts_", {})
            self.category_counts_ = {int(f): max(counts[f] + 1, known.get(f, 0)) for f in columns}
        self.__dict__.update(learnt or {})
        if not linear:
            self._pack()
        return self

    def _forget(self):
        for name in ("arrays_", "weight_", "bias_", "_packed"):
            self.__dict__.pop(name, None)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def to_module(self):
        """The fitted ensemble as an :class:`EnsembleModule`, or a :class:`LinearModule`, for
        TorchScript and torch.export."""
        if hasattr(self, "weight_"):
            return LinearModule(self.weight_, self.bias_ + self.base_score_, self._link)
        check_is_fitted(self, "arrays_")
        return EnsembleModule(self.arrays_, self.base_score_, self._link, self.n_features_in_)

    def _predictions(self, x):
        table = self._table(x)
        if hasattr(self, "arrays_"):
            return self._served(table)
        module = self.to_module()
        if table.layout == torch.strided:
            return module(table)
        return torch.cat([module(block) for block in dense_blocks(table)])

    @property
    def feature_importances_(self):
        """The gain of each feature's splits, as shares: (n_features,)."""
        check_trees(self, "feature_importances_", AttributeError)
        return importance(self).numpy()
