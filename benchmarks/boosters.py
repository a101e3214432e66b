"""Gradient boosting of several libraries behind one face, at the same hyperparameters."""

import importlib.util
import os

# Peers look for loky's count of cores and warn where the system does not tell.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(os.cpu_count()))

import numpy as np
import torch
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.metrics import roc_auc_score

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor

TREES, DEPTH, RATE = 100, 6, 0.1
NAMES = ["xgboost", "lightgbm", "catboost", "scikit-learn", "tilewright"]
PACKAGES = ["xgboost", "lightgbm", "catboost"]


class Contender:
    """Fits, and predicts probabilities of class 1 or values; xgboost and lightgbm have their
    boosters as `model`. `categorical`: (F,) bool, or None."""

    def __init__(self, name, classify, threads, categorical=None):
        self.name, self.classify, self.threads = name, classify, threads
        self.categorical = categorical

    def fit(self, x, y):
        fit = {
            "xgboost": self._xgboost,
            "lightgbm": self._lightgbm,
            "catboost": self._catboost,
            "scikit-learn": self._sklearn,
            "tilewright": self._tilewright,
        }[self.name]
        self.predict = fit(x, y)
        return self

    def quality(self, x, y):
        """AUC, or the root of the mean squared error."""
        found = self.predict(x)
        if self.classify:
            return roc_auc_score(y, found)
        return float(np.sqrt(np.mean((found - y) ** 2)))

    def _xgboost(self, x, y):
        import xgboost

        kinds = {"nthread": self.threads}
        if self.categorical is not None:
            types = ["c" if c else "q" for c in self.categorical]
            kinds |= {"feature_types": types, "enable_categorical": True}
        data = xgboost.QuantileDMatrix(x, y, max_bin=256, **kinds)
        options = {"max_depth": DEPTH, "eta": RATE, "nthread": self.threads, "max_bin": 256}
        options["objective"] = "binary:logistic" if self.classify else "reg:squarederror"
        booster = self.model = xgboost.train(options, data, TREES)
        if self.categorical is None:
            return booster.inplace_predict
        return lambda t: booster.predict(xgboost.DMatrix(t, **kinds))

    def _lightgbm(self, x, y):
        import lightgbm

        options = {"num_leaves": 2**DEPTH, "max_depth": DEPTH, "learning_rate": RATE}
        options |= {"num_threads": self.threads, "max_bin": 255, "verbose": -1}
        options |= {"lambda_l2": 1.0, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 1.0}
        options |= {"objective": "binary" if self.classify else "regression"}
        options |= {"feature_pre_filter": False}
        kinds = {}
        if self.categorical is not None:
            kinds["categorical_feature"] = np.flatnonzero(self.categorical).tolist()
        data = lightgbm.Dataset(x, y, params=options, **kinds)
        self.model = lightgbm.train(options, data, TREES)
        return self.model.predict

    def _catboost(self, x, y):
        import catboost

        kind = catboost.CatBoostClassifier if self.classify else catboost.CatBoostRegressor
        model = kind(
            iterations=TREES,
            depth=DEPTH,
            learning_rate=RATE,
            l2_leaf_reg=1.0,
            border_count=254,
            bootstrap_type="No",
            random_strength=0,
            thread_count=self.threads,
            allow_writing_files=False,
            verbose=False,
        ).fit(x, y)
        if not self.classify:
            return lambda t: model.predict(t, thread_count=self.threads)
        return lambda t: model.predict_proba(t, thread_count=self.threads)[:, 1]

    def _sklearn(self, x, y):
        kind = HistGradientBoostingClassifier if self.classify else HistGradientBoostingRegressor
        model = kind(
            max_iter=TREES,
            max_depth=DEPTH,
            max_leaf_nodes=2**DEPTH,
            learning_rate=RATE,
            min_samples_leaf=1,
            l2_regularization=1.0,
            early_stopping=False,
            categorical_features=self.categorical,
        ).fit(x, y)
        return (lambda t: model.predict_proba(t)[:, 1]) if self.classify else model.predict

    def _tilewright(self, x, y):
        kind = GradientBoostingClassifier if self.classify else GradientBoostingRegressor
        model = kind(
            n_estimators=TREES,
            max_depth=DEPTH,
            learning_rate=RATE,
            categorical_features=self.categorical,
        ).fit(torch.from_numpy(x), y)
        ensemble = model.to_module().to_ensemble(x.shape[1])
        return lambda t: ensemble.predict(torch.from_numpy(t))[:, 0].numpy()


def contenders(classify, threads, categorical=None):
    """Of those that are installed."""
    names = [n for n in NAMES if n not in PACKAGES or importlib.util.find_spec(n)]
    if categorical is not None and "catboost" in names:
        names.remove("catboost")  # it takes no table of floats with categories
    return [Contender(name, classify, threads, categorical) for name in names]
