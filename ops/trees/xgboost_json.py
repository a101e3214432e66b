"""Ensembles as XGBoost's JSON models (the schema of 3.x), written and read.

XGBoost keeps the base score behind the inverse link, a leaf's answer as its split condition, and
compares in float32. What a file says is checked before it is used; an error names the field.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Ours: XGBoost's name, its parameters' place and name where it has one.
OBJECTIVES = {
    "squared_error": ("reg:squarederror", None, None),
    "absolute_error": ("reg:absoluteerror", None, None),
    "quantile": ("reg:quantileerror", "quantile_loss_param", "quantile_alpha"),
    "huber": ("reg:pseudohubererror", "pseudo_huber_param", "huber_slope"),
    "logistic": ("binary:logistic", None, None),
    "softmax": ("multi:softprob", None, None),
    "poisson": ("count:poisson", None, None),
    "gamma": ("reg:gamma", None, None),
    "tweedie": ("reg:tweedie", "tweedie_regression_param", "tweedie_variance_power"),
}
READ = {names[0]: ours for ours, names in OBJECTIVES.items()} | {"multi:softmax": "softmax"}
LOGARITHMIC = ("poisson", "gamma", "tweedie")
ROOT_PARENT = 2147483647


@dataclass
class Ensemble:
    """What both forms of a model have in common; base_score (K,) is a raw score."""

    arrays: dict[str, Tensor]
    base_score: Tensor
    objective: str
    objective_param: float
    num_features: int
    attributes: dict[str, str]


def _floats(values):
    """float32 as the shortest decimals that read as the same float32."""
    return [float(str(v)) for v in np.asarray(values, dtype=np.float32)]


def _tree(arrays, index, begin, end, num_features):
    part = {k: v[begin:end] for k, v in arrays.items() if k not in ("tree_ptr", "tree_output")}
    left, right = part["left"].tolist(), part["right"].tolist()
    leaf = part["left"] < 0
    parents = [ROOT_PARENT] * len(left)
    for node, children in enumerate(zip(left, right, strict=True)):
        for child in children:
            if child >= 0:
                parents[child] = node
    zeros = torch.zeros(len(left))
    return {
        "base_weights": _floats(part["value"]),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": part["default_left"].int().tolist(),
        "id": index,
        "left_children": left,
        "loss_changes": _floats(part.get("gain", zeros)),
        "parents": parents,
        "right_children": right,
        "split_conditions": _floats(torch.where(leaf, part["value"], part["threshold"])),
        "split_indices": part["feature"].tolist(),
        "split_type": [0] * len(left),
        "sum_hessian": _floats(part.get("cover", zeros)),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(num_features),
            "num_nodes": str(len(left)),
            "size_leaf_vector": "1",
        },
    }


def save(ensemble: Ensemble, path):
    """Writes a file that xgboost loads; leaves that are vectors or nodes with categories are not
    written yet."""
    arrays, outputs = ensemble.arrays, ensemble.base_score.numel()
    if arrays["value"].dim() != 1 or arrays.get("category_ptr") is not None:
        raise ValueError("vector leaves and categories cannot be written as XGBoost's JSON yet")
    name, place, parameter = OBJECTIVES[ensemble.objective]
    objective = {"name": name}
    if ensemble.objective == "softmax":
        objective["softmax_multiclass_param"] = {"num_class": str(outputs)}
    elif place is not None:
        text = str(ensemble.objective_param)
        objective[place] = {parameter: f"[{text}]" if ensemble.objective == "quantile" else text}
    elif ensemble.objective == "poisson":
        objective["poisson_regression_param"] = {"max_delta_step": "0.7"}
    else:
        objective["reg_loss_param"] = {"scale_pos_weight": "1"}
    base = ensemble.base_score.double()
    if ensemble.objective == "logistic":
        base = base.sigmoid()
    elif ensemble.objective in LOGARITHMIC:
        base = base.exp()
    pointers = arrays["tree_ptr"].tolist()
    trees = [
        _tree(arrays, i, pointers[i], pointers[i + 1], ensemble.num_features)
        for i in range(len(pointers) - 1)
    ]
    model = {
        "learner": {
            "attributes": ensemble.attributes,
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                    "iteration_indptr": list(range(0, len(trees) + 1, outputs)),
                    "tree_info": arrays["tree_output"].tolist(),
                    "trees": trees,
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": "[" + ",".join(repr(v) for v in _floats(base)) + "]",
                "boost_from_average": "1",
                "num_class": str(outputs if ensemble.objective == "softmax" else 0),
                "num_feature": str(ensemble.num_features),
                "num_target": "1",
            },
            "objective": objective,
        },
        "version": [3, 2, 0],
    }
    Path(path).write_text(json.dumps(model, allow_nan=False))


class _Reader:
    """Walks a parsed file; what is not there or of another kind is an error with its path."""

    def __init__(self, value, path):
        self.value, self.path = value, path

    def fail(self, what):
        raise ValueError(f"not a model of XGBoost: {self.path} {what}")

    def __getitem__(self, key):
        if not isinstance(self.value, dict) or key not in self.value:
            self.fail(f"has no {key!r}")
        return _Reader(self.value[key], f"{self.path}.{key}")

    def items(self):
        if not isinstance(self.value, list):
            self.fail("must be a list")
        return [_Reader(v, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

    def text(self):
        if not isinstance(self.value, str):
            self.fail("must be a string")
        return self.value

    def whole(self, low=0, high=2**31 - 1):
        """An integer, or a string of one."""
        value = self.value
        if isinstance(value, str) and value.strip("-").isdigit() and len(value) < 12:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(f"must be an integer in [{low}, {high}], got {str(value)[:40]!r}")
        return value

    def numbers(self, dtype, count, low=None):
        """A list of `count` finite numbers as a tensor."""
        values = self.value
        if not isinstance(values, list) or len(values) != count:
            self.fail(f"must be a list of {count} numbers")
        for i, v in enumerate(values):
            if not isinstance(v, (int, float)) or not abs(v) < 3.5e38:
                self.fail(f"must hold finite numbers, [{i}] is {str(v)[:40]!r}")
            if not dtype.is_floating_point and (v != int(v) or not -(2**31) <= v < 2**31):
                self.fail(f"must hold integers, [{i}] is {str(v)[:40]!r}")
            if low is not None and v < low:
                self.fail(f"must not be less than {low}, [{i}] is {v}")
        return torch.tensor(values, dtype=torch.float64).to(dtype)


def _read_categories(tree, nodes):
    """The categories of each node: a list of lists; empty for nodes that compare."""
    kinds = tree["split_type"].numbers(torch.int32, nodes)
    own = [[] for _ in range(nodes)]
    if not kinds.any():
        return own
    which = tree["categories_nodes"].items()
    values = tree["categories"].items()
    begins, sizes = tree["categories_segments"].items(), tree["categories_sizes"].items()
    if not len(which) == len(begins) == len(sizes):
        tree["categories_nodes"].fail("must be as long as categories_segments and categories_sizes")
    for node, begin, size in zip(which, begins, sizes, strict=True):
        first = begin.whole(0, len(values))
        last = first + size.whole(0, len(values) - first)
        own[node.whole(0, nodes - 1)] = sorted({v.whole() for v in values[first:last]})
    return own


def _read_tree(tree, num_features):
    nodes = len(tree["left_children"].items())
    if nodes == 0:
        tree["left_children"].fail("must not be empty")
    left = tree["left_children"].numbers(torch.int32, nodes, -1)
    right = tree["right_children"].numbers(torch.int32, nodes, -1)
    condition = tree["split_conditions"].numbers(torch.float32, nodes)
    feature = tree["split_indices"].numbers(torch.int32, nodes, 0)
    leaf = left < 0
    if (feature >= num_features)[~leaf].any():
        tree["split_indices"].fail(f"must be less than num_feature, {num_features}")
    return {
        "feature": torch.where(leaf, 0, feature),
        "threshold": torch.where(leaf, 0.0, condition),
        "left": left,
        "right": right,
        "default_left": tree["default_left"].numbers(torch.int32, nodes) != 0,
        "value": torch.where(leaf, condition, 0.0),
        "gain": tree["loss_changes"].numbers(torch.float32, nodes),
        "cover": tree["sum_hessian"].numbers(torch.float32, nodes),
    }


def load(path) -> Ensemble:
    """Reads a model of trees that xgboost or :func:`save` wrote."""
    try:
        parsed = json.loads(Path(path).read_text())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not a model of XGBoost: {path} is no JSON ({error})") from None
    learner = _Reader(parsed, "model")["learner"]
    name = learner["objective"]["name"].text()
    if name not in READ:
        learner["objective"]["name"].fail(f"must be one of {sorted(READ)}, got {name[:40]!r}")
    ours = READ[name]
    _, place, parameter = OBJECTIVES[ours]
    param = 0.0
    if place is not None:
        param = _read_floats(learner["objective"][place][parameter], (1,))[0].item()
    booster = learner["gradient_booster"]
    if booster["name"].text() != "gbtree":
        booster["name"].fail("must be 'gbtree'")
    shape = learner["learner_model_param"]
    num_features = shape["num_feature"].whole(1)
    model = booster["model"]
    trees = model["trees"].items()
    # As many classes as the file has trees for: a number alone must not make tensors large.
    outputs = shape["num_class"].whole(2, max(len(trees), 2)) if ours == "softmax" else 1
    info = model["tree_info"].numbers(torch.int32, len(trees), 0)
    if (info >= outputs).any():
        model["tree_info"].fail(f"must be less than the number of outputs, {outputs}")
    read = [_read_tree(tree, num_features) for tree in trees]
    own = [
        c
        for tree, arrays in zip(trees, read, strict=True)
        for c in _read_categories(tree, arrays["left"].numel())
    ]
    sizes = torch.tensor([0] + [arrays["left"].numel() for arrays in read])
    empty = {"feature": torch.int32, "left": torch.int32, "right": torch.int32}
    empty |= {"threshold": torch.float32, "value": torch.float32, "default_left": torch.bool}
    empty |= {"gain": torch.float32, "cover": torch.float32}
    arrays = {
        key: torch.cat([torch.zeros(0, dtype=dtype)] + [tree[key] for tree in read])
        for key, dtype in empty.items()
    }
    arrays |= {"tree_ptr": sizes.cumsum(0), "tree_output": info}
    if any(own):
        arrays["category_ptr"] = torch.tensor([0] + [len(c) for c in own]).cumsum(0)
        arrays["categories"] = torch.tensor([v for c in own for v in c], dtype=torch.int32)
    base = _read_floats(shape["base_score"], (1, outputs)).expand(outputs)
    if ours == "logistic":
        base = base.logit()
    elif ours in LOGARITHMIC:
        base = base.log()
    attributes = learner["attributes"].value
    if not isinstance(attributes, dict):
        learner["attributes"].fail("must be an object")
    return Ensemble(arrays, base.float(), ours, param, num_features, attributes)


def _read_floats(reader, counts):
    """Finite numbers in a string: one, or since 3.1 a list; there must be one of `counts`."""
    try:
        values = [float(v) for v in reader.text().strip("[]").split(",")]
    except ValueError:
        reader.fail("must be a number or a list of numbers")
    if len(values) not in counts:
        reader.fail(f"must hold {counts[-1]} numbers, got {len(values)}")
    found = torch.tensor(values, dtype=torch.float64)
    if not found.isfinite().all():
        reader.fail("must be finite")
    return found
