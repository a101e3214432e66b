"""XGBoost's JSON as methods of forests whose trees' answers are numbers: a boosted sum of their
shares of the mean, which begins at 0."""

import json

import torch
from sklearn.utils.validation import check_is_fitted

from tilewright.trees import xgboost_json
from tilewright.trees.files import CLASSES, read_classes, read_trees
from tilewright.trees.parameters import seed_of


class ForestFilesMixin:
    def save_model(self, path):
        """Writes the forest as XGBoost's JSON of the objective ``reg:squarederror``, from which
        xgboost's ``Booster`` (3.2) predicts the mean, or of a classifier the second class's
        probability. Forests of several values or more than two classes are a ValueError: what they
        answer is no sum of numbers behind a link that XGBoost has."""
        check_is_fitted(self, "arrays_")
        arrays, base = dict(self.arrays_), self.base_score_
        value, attributes = arrays["value"], {}
        if hasattr(self, "classes_"):
            if len(self.classes_) > 2:
                raise ValueError(
                    "forests of more than two classes cannot be written as XGBoost's JSON, got "
                    f"{len(self.classes_)}"
                )
            arrays["value"], base = value[:, 1], base[1:]
            attributes = {CLASSES: json.dumps(self.classes_.tolist())}
        elif value.dim() != 1:
            raise ValueError(
                "forests of several values cannot be written as XGBoost's JSON, got "
                f"{value.shape[1]}"
            )
        xgboost_json.save(
            xgboost_json.Ensemble(
                arrays, base, "squared_error", 0.0, self.n_features_in_, attributes
            ),
            path,
        )

    def load_model(self, path):
        """Reads what :meth:`save_model` wrote, or of regressors any of xgboost's models of trees
        with squared errors; returns the estimator, ready to predict. A file that is no such model
        is a ValueError."""
        model = read_trees(path)
        trees = 0 if model.linear is not None else model.arrays["tree_output"].numel()
        if trees == 0:
            raise ValueError(f"{path} holds no trees")
        if model.objective != "squared_error":
            raise ValueError(f"a model of {model.objective} is no forest's")
        if "category_ptr" in model.arrays:
            raise ValueError("forests do not split by categories, which the model does")
        leaf, value = model.arrays["left"] < 0, model.arrays["value"].double()
        # What each tree adds to the mean; a base score is part of all of them.
        value = torch.where(leaf, value + model.base_score.double() / trees, 0.0)
        if hasattr(self, "_take_classes"):
            classes = read_classes(model.attributes, 2)
            if classes is None:
                raise ValueError(f"{path} is no classifier's: it has no attribute {CLASSES}")
            self._take_classes(classes)
            value = torch.stack([torch.where(leaf, 1 / trees - value, 0.0), value], 1)
        else:
            self.n_outputs_, self._columns = 1, False
        for name in ("feature_names_in_", "oob_score_", "oob_prediction_"):
            self.__dict__.pop(name, None)
        self.__dict__.pop("oob_decision_function_", None)
        self.arrays_ = model.arrays | {"value": value.float()}
        self.base_score_ = torch.zeros(1 if value.dim() == 1 else 2)
        self.n_features_in_ = model.num_features
        self._seed = seed_of(self.random_state)
        self.__dict__.pop("_grown_on", None)
        self._pack()
        return self
