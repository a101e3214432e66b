"""XGBoost's JSON as methods of the boosting estimators."""

import json

import numpy as np

from tilewright.trees import xgboost_json
from tilewright.trees.ensemble import EnsembleModule

CLASSES = "tilewright_classes"  # the attribute of a saved model


def read_classes(attributes, count):
    """The classes that an attribute of a file lists; None where it has none."""
    if CLASSES not in attributes:
        return None
    listed = attributes[CLASSES]
    try:
        classes = np.asarray(json.loads(listed) if isinstance(listed, str) else None)
    except json.JSONDecodeError:
        classes = np.asarray(None)
    if classes.shape != (count,):
        raise ValueError(f"attribute {CLASSES} must list {count} classes")
    return classes


def read_trees(path):
    """A model of trees or a linear one; a file that is neither is a ValueError."""
    model = xgboost_json.load(path)
    if model.linear is None:
        try:
            EnsembleModule(model.arrays, model.base_score).to_ensemble(model.num_features)
        except RuntimeError as error:
            raise ValueError(f"{path} holds no trees: {error}") from error
    return model


class FilesMixin:
    def save_model(self, path):
        """Writes the model as XGBoost's JSON, which xgboost (3.2) loads and predicts the same from;
        classes that are not 0, 1, ... are kept in an attribute that it ignores."""
        self.to_module()  # says where nothing is fitted
        objective, param = self._objective()
        linear = hasattr(self, "weight_")
        xgboost_json.save(
            xgboost_json.Ensemble(
                {} if linear else self.arrays_,
                self.base_score_,
                objective,
                param,
                self.n_features_in_,
                self._attributes(),
                self._parameters(),
                (self.weight_, self.bias_) if linear else None,
                self.n_iter_,
            ),
            path,
        )

    def _parameters(self):
        """What a file says of the objective beside its one parameter, under XGBoost's names."""
        return {}

    def load_model(self, path):
        """Reads what :meth:`save_model` or xgboost wrote (trees or a linear model); returns
        the estimator, ready to predict. A file that is no such model is a ValueError."""
        model = read_trees(path)
        self._take(model)
        self._forget()
        self._forget_inputs()
        for name in ("eval_history_", "evals_result_"):
            self.__dict__.pop(name, None)
        self.base_score_ = model.base_score
        self.n_features_in_ = model.num_features
        if model.linear is not None:
            self.booster, self.n_iter_ = "gblinear", model.rounds
            self.weight_, self.bias_ = model.linear
            return self
        self.arrays_ = model.arrays
        outputs, trees = model.base_score.numel(), model.arrays["tree_output"].numel()
        vectors = model.arrays["value"].dim() == 2
        if outputs > 1:
            self.multi_strategy = "multi_output_tree" if vectors else "one_output_per_tree"
        self.n_iter_ = trees if vectors else trees // outputs
        self._pack()
        return self
