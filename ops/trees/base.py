"""What the boosting estimators share: parameters, input, fitting, files."""

import numbers

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from tilewright._C import Booster
from tilewright.trees import xgboost_json
from tilewright.trees.ensemble import EnsembleModule
from tilewright.trees.explain import ExplainMixin
from tilewright.trees.onnx_export import OnnxMixin

# What scikit-learn's checks let through: numbers, NaN for missing.
ACCEPTED = {"dtype": [np.float64, np.float32], "ensure_all_finite": "allow-nan"}


def tensor_of(array):
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class GradientBoostingBase(ExplainMixin, OnnxMixin, BaseEstimator):
    def __init__(
        self,
        *,
        n_estimators=100,
        learning_rate=0.1,
        max_depth=6,
        max_leaf_nodes=None,
        grow_policy="depthwise",
        max_bin=255,
        min_child_weight=1.0,
        reg_lambda=1.0,
        reg_alpha=0.0,
        gamma=0.0,
        max_delta_step=0.0,
        subsample=1.0,
        colsample_bytree=1.0,
        colsample_bylevel=1.0,
        colsample_bynode=1.0,
        monotonic_cst=None,
        early_stopping_rounds=None,
        random_state=None,
        verbose=0,
    ):
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.max_leaf_nodes = max_leaf_nodes
        self.grow_policy = grow_policy
        self.max_bin = max_bin
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
        self.early_stopping_rounds = early_stopping_rounds
        self.random_state = random_state
        self.verbose = verbose

    def _options(self):
        if self.grow_policy not in ("depthwise", "lossguide"):
            raise ValueError(
                f"grow_policy must be 'depthwise' or 'lossguide', got {self.grow_policy!r}"
            )
        if isinstance(self.random_state, numbers.Integral):
            seed = int(self.random_state)
        else:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        options = {
            "n_estimators": self.n_estimators,
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth or 0,
            "max_leaves": self.max_leaf_nodes or 0,
            "loss_guided": self.grow_policy == "lossguide",
            "max_bin": self.max_bin,
            "min_child_weight": self.min_child_weight,
            "reg_lambda": self.reg_lambda,
            "reg_alpha": self.reg_alpha,
            "gamma": self.gamma,
            "max_delta_step": self.max_delta_step,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample_bytree,
            "colsample_bylevel": self.colsample_bylevel,
            "colsample_bynode": self.colsample_bynode,
            "early_stopping_rounds": self.early_stopping_rounds or 0,
            "seed": seed,
        }
        if self.monotonic_cst is not None:
            options["monotone"] = [int(sign) for sign in self.monotonic_cst]
        return options

    def _features(self, x):
        """x for prediction, as a tensor."""
        if isinstance(x, torch.Tensor):
            return self._tensor(x, reset=False)
        return tensor_of(validate_data(self, x, reset=False, **ACCEPTED))

    def _tensor(self, x, reset):
        if x.dim() != 2:
            raise ValueError(f"X must have shape (n_samples, n_features), got {tuple(x.shape)}")
        if reset:
            self.n_features_in_ = x.shape[1]
        elif x.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {x.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return x.detach() if x.is_floating_point() else x.detach().float()

    def _training_set(self, x, y, sample_weight, numeric):
        """X as a tensor, y as an array, weights as a tensor or None; remembers the features."""
        if isinstance(x, torch.Tensor):
            features = self._tensor(x, reset=True)
            labels = y.numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
        else:
            x, labels = validate_data(self, x, y, y_numeric=numeric, **ACCEPTED)
            features = tensor_of(x)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight,
                features,
                ensure_non_negative=True,
                ensure_same_device=False,
                allow_all_zero_weights=False,
            )
            sample_weight = torch.as_tensor(sample_weight, dtype=torch.float32)
        return features, labels, sample_weight

    def _fit(self, options, x, y, weight, eval_set, encode):
        eval_x = eval_y = None
        if eval_set is not None:
            eval_x = self._features(eval_set[0])
            eval_y = encode(eval_set[1])
        elif self.early_stopping_rounds:
            raise ValueError("early_stopping_rounds needs an eval_set=(X, y) in fit")
        after_round, bar = None, None
        if self.verbose:
            from tqdm import tqdm

            bar = tqdm(total=self.n_estimators, desc="boosting", unit="round")

            def after_round(_round, _scores):
                bar.update()
                return False

        loss = getattr(self, "loss", None)
        if callable(loss):
            self._booster = Booster(options, loss, hessian_bound=self.hessian or 0.0)
        else:
            self._booster = Booster(options)
        try:
            self._booster.fit(x, y, weight, eval_x, eval_y, after_round)
        finally:
            if bar is not None:
                bar.close()
        self.n_iter_ = self._booster.best_round + 1
        self.evals_result_ = list(self._booster.metrics)
        self.base_score_ = self._booster.base_score
        self.arrays_ = self._booster.arrays()
        return self

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_booster", None)  # the arrays are the model
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def to_module(self):
        """The fitted ensemble as an :class:`EnsembleModule`, for TorchScript and torch.export."""
        check_is_fitted(self, "arrays_")
        return EnsembleModule(self.arrays_, self.base_score_, self._link)

    def save_model(self, path):
        """Writes the model as XGBoost's JSON, which xgboost (3.2) loads and predicts the same from;
        classes that are not 0, 1, ... are kept in an attribute that it ignores."""
        check_is_fitted(self, "arrays_")
        objective, param = self._objective()
        xgboost_json.save(
            xgboost_json.Ensemble(
                self.arrays_,
                self.base_score_,
                objective,
                param,
                self.n_features_in_,
                self._attributes(),
            ),
            path,
        )

    def load_model(self, path):
        """Reads what :meth:`save_model` or xgboost wrote (trees of a numeric objective); returns
        the estimator, ready to predict. A file that is no such model is a ValueError."""
        model = xgboost_json.load(path)
        self._take(model)
        self.arrays_ = model.arrays
        self.base_score_ = model.base_score
        self.n_features_in_ = model.num_features
        self.n_iter_ = model.arrays["tree_output"].numel() // model.base_score.numel()
        return self

    def _predictions(self, x):
        check_is_fitted(self, "arrays_")
        return self.to_module()(self._features(x))

    @property
    def feature_importances_(self):
        """The gain of each feature's splits, as shares: (n_features,)."""
        check_is_fitted(self, "arrays_")
        gains = torch.zeros(self.n_features_in_, dtype=torch.float64)
        split = self.arrays_["left"] >= 0
        gains.index_add_(
            0, self.arrays_["feature"][split].long(), self.arrays_["gain"][split].double()
        )
        total = gains.sum()
        return (gains / total if total > 0 else gains).numpy()
