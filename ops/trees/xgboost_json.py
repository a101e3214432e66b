"""Ensembles as XGBoost's JSON models (the schema of 3.x), written and read.

XGBoost keeps the base score behind the inverse link, a leaf's answer as its split condition, and
compares in float32. What a file says is checked before it is used; an error names the field.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tilewright.trees.json_categories import feature_types, read_categories, tree_categories
from tilewright.trees.json_objectives import (
    behind_link,
    read_base_score,
    read_objective,
    write_objective,
)
from tilewright.trees.json_reader import Reader
from tilewright.trees.json_vectors import leaf_size, most_outputs, read_vectors, vector_fields

ROOT_PARENT = 2147483647
LEAST = torch.finfo(torch.float32).min  # no value of xgboost's lies below: it takes no infinity


@dataclass
class Ensemble:
    """What both forms of a model have in common; base_score (K,) is a raw score."""

    arrays: dict[str, Tensor]
    base_score: Tensor
    objective: str
    objective_param: float
    num_features: int
    attributes: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)  # others of the objective
    linear: tuple[Tensor, Tensor] | None = None  # weight (K, F), bias (K,) in place of trees
    rounds: int = 0  # of a linear model


def _floats(values):
    """float32 as the shortest decimals that read as the same float32."""
    return [float(str(v)) for v in np.asarray(values, dtype=np.float32)]


OF_TREES = ("tree_ptr", "tree_output", "category_ptr", "categories")  # all other arrays: of nodes


def _siblings_adjacent(left, right):
    """The order of a tree's nodes in which each right child follows its left one, as xgboost takes
    for granted: theirs where it is such an order, else level by level."""
    if all(b == a + 1 for a, b in zip(left, right, strict=True) if a >= 0):
        return list(range(len(left)))
    order = [0]
    for node in order:
        if left[node] >= 0:
            order += [left[node], right[node]]
    return order


def _tree(arrays, index, begin, end, num_features):
    part = {k: v[begin:end] for k, v in arrays.items() if k not in OF_TREES}
    order = _siblings_adjacent(part["left"].tolist(), part["right"].tolist())
    places = torch.empty(end - begin + 1, dtype=torch.int64)
    places[order], places[-1] = torch.arange(len(order)), -1  # of leaves' children too
    part = {k: v[order] for k, v in part.items()}
    left, right = (places[part[side].long()].tolist() for side in ("left", "right"))
    leaf = part["left"] < 0
    parents = [ROOT_PARENT] * len(left)
    for node, children in enumerate(zip(left, right, strict=True)):
        for child in children:
            if child >= 0:
                parents[child] = node
    zeros, value = torch.zeros(len(left)), part["value"]
    # JSON has no infinity, and no other number is below the least.
    threshold = part["threshold"].clamp(LEAST, -LEAST)
    outputs = value[0].numel()
    if outputs == 1:
        value = value.flatten()
        own = {
            "base_weights": _floats(value),
            "right_children": right,
            "split_conditions": _floats(torch.where(leaf, value, threshold)),
        }
    else:
        own = vector_fields(leaf, torch.tensor(right), threshold, value, _floats)
    return {
        **own,
        **tree_categories(arrays, begin, order),
        "default_left": part["default_left"].int().tolist(),
        "id": index,
        "left_children": left,
        "loss_changes": _floats(part.get("gain", zeros)),
        "parents": parents,
        "split_indices": part["feature"].tolist(),
        "sum_hessian": _floats(part.get("cover", zeros)),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(num_features),
            "num_nodes": str(len(left)),
            "size_leaf_vector": str(outputs),
        },
    }


def _trees(ensemble):
    arrays, outputs = ensemble.arrays, ensemble.base_score.numel()
    of_round = 1 if arrays["value"].dim() == 2 else outputs
    pointers = arrays["tree_ptr"].tolist()
    trees = [
        _tree(arrays, i, pointers[i], pointers[i + 1], ensemble.num_features)
        for i in range(len(pointers) - 1)
    ]
    return {
        "model": {
            "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
            "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
            "iteration_indptr": list(range(0, len(trees) + 1, of_round)),
            "tree_info": arrays["tree_output"].tolist(),
            "trees": trees,
        },
        "name": "gbtree",
    }


def _linear(ensemble):
    weight, bias = ensemble.linear
    if ensemble.objective == "softmax":  # of which xgboost 3.2 does not read linear base scores
        bias = bias + ensemble.base_score
    values = torch.cat([weight.t(), bias[None]]).flatten()  # feature by feature, the bias last
    model = {"boosted_rounds": ensemble.rounds, "weights": _floats(values)}
    return {"model": model, "name": "gblinear"}


def save(ensemble: Ensemble, path):
    """Writes a file that xgboost loads."""
    if Path(path).suffix in (".ubj", ".bin", ".deprecated"):  # xgboost goes by it
        raise ValueError(f"what is written is JSON: {path} should end in .json")
    outputs, softmax = ensemble.base_score.numel(), ensemble.objective == "softmax"
    if outputs > 1 and not softmax and ensemble.linear is not None:
        raise ValueError("linear models of several outputs cannot be written as XGBoost's JSON")
    model = {
        "learner": {
            "attributes": ensemble.attributes,
            "feature_names": [],
            "feature_types": feature_types(ensemble),
            "gradient_booster": _trees(ensemble) if ensemble.linear is None else _linear(ensemble),
            "learner_model_param": {
                "base_score": "[" + ",".join(repr(v) for v in _floats(behind_link(ensemble))) + "]",
                "boost_from_average": "1",
                "num_class": str(outputs if softmax else 0),
                "num_feature": str(ensemble.num_features),
                "num_target": "1" if softmax else str(outputs),
            },
            "objective": write_objective(ensemble),
        },
        "version": [3, 2, 0],
    }
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder for {path}")
    whole = Path(f"{path}.part")  # a model that is there stays until the new one is
    whole.write_text(json.dumps(model, allow_nan=False))
    whole.replace(path)


def _read_tree(tree, num_features, outputs, size):
    nodes = len(tree["left_children"].items())
    if nodes == 0:
        tree["left_children"].fail("must not be empty")
    left = tree["left_children"].numbers(torch.int32, nodes, -1)
    leaf = left < 0
    if leaf_size(tree) != size:
        tree["tree_param"]["size_leaf_vector"].fail(f"must be {size}, as in other trees")
    if size > 1:
        right, condition, value = read_vectors(tree, left, outputs)
    else:
        right = tree["right_children"].numbers(torch.int32, nodes, -1)
        condition = tree["split_conditions"].numbers(torch.float32, nodes)
        value = torch.where(leaf, condition, 0.0)
    feature = tree["split_indices"].numbers(torch.int32, nodes, 0)
    if (feature >= num_features)[~leaf].any():
        tree["split_indices"].fail(f"must be less than num_feature, {num_features}")
    return {
        "feature": torch.where(leaf, 0, feature),
        "threshold": torch.where(leaf, 0.0, torch.where(condition > LEAST, condition, -torch.inf)),
        "left": left,
        "right": right,
        "default_left": tree["default_left"].numbers(torch.int32, nodes) != 0,
        "value": value,
        "gain": tree["loss_changes"].numbers(torch.float32, nodes),
        "cover": tree["sum_hessian"].numbers(torch.float32, nodes),
    }


def _read_arrays(model, num_features, outputs):
    trees = model["trees"].items()
    info = model["tree_info"].numbers(torch.int32, len(trees), 0)
    if (info >= outputs).any():
        model["tree_info"].fail(f"must be less than the number of outputs, {outputs}")
    size = leaf_size(trees[0]) if trees else 1
    if size not in (1, outputs):
        size_of = trees[0]["tree_param"]["size_leaf_vector"]
        size_of.fail(f"must be 1 or the number of outputs, {outputs}")
    read = [_read_tree(tree, num_features, outputs, size) for tree in trees]
    own = [
        c
        for tree, arrays in zip(trees, read, strict=True)
        for c in read_categories(tree, arrays["left"].numel())
    ]
    sizes = torch.tensor([0] + [arrays["left"].numel() for arrays in read])
    empty = {"feature": torch.int32, "left": torch.int32, "right": torch.int32}
    empty |= {"threshold": torch.float32, "value": torch.float32, "default_left": torch.bool}
    empty |= {"gain": torch.float32, "cover": torch.float32}
    arrays = {
        key: torch.cat([tree[key] for tree in read]) if read else torch.zeros(0, dtype=dtype)
        for key, dtype in empty.items()
    }
    arrays |= {"tree_ptr": sizes.cumsum(0), "tree_output": info}
    if any(own):
        arrays["category_ptr"] = torch.tensor([0] + [len(c) for c in own]).cumsum(0)
        arrays["categories"] = torch.tensor([v for c in own for v in c], dtype=torch.int32)
    return arrays


def load(path) -> Ensemble:
    """Reads a model of trees, or a linear one, that xgboost or :func:`save` wrote."""
    try:
        parsed = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a model of XGBoost: {path} is no JSON ({error})") from None
    learner = Reader(parsed, "model")["learner"]
    ours, param, parameters = read_objective(learner["objective"])
    booster, shape = learner["gradient_booster"], learner["learner_model_param"]
    kind = booster["name"].text()
    if kind not in ("gbtree", "dart", "gblinear"):
        booster["name"].fail(f"must be 'gbtree', 'dart' or 'gblinear', got {kind[:40]!r}")
    num_features = shape["num_feature"].whole(1)
    model = (booster["gbtree"] if kind == "dart" else booster)["model"]
    parts = model["weights" if kind == "gblinear" else "trees"].items()
    # As many outputs as the file has trees for: a number alone must not make tensors large.
    most = len(parts) if kind == "gblinear" else most_outputs(parts)
    if ours == "softmax":
        outputs = shape["num_class"].whole(2, max(most, 2))
    else:
        several = ours not in ("logistic", "lambdarank") and kind != "gblinear"
        targets = Reader(shape.value.get("num_target", "1"), f"{shape.path}.num_target")
        outputs = targets.whole(1, max(most, 1) if several else 1)
    arrays, linear, rounds = {}, None, 0
    if kind != "gblinear":
        arrays = _read_arrays(model, num_features, outputs)
        if kind == "dart":  # what each tree counts goes into its leaves
            counts = booster["weight_drop"].numbers(torch.float32, len(parts))
            of_nodes = counts.repeat_interleave(arrays["tree_ptr"].diff())
            arrays["value"] = (arrays["value"].t() * of_nodes).t().contiguous()
    else:
        values = model["weights"].numbers(torch.float32, (num_features + 1) * outputs)
        values = values.view(num_features + 1, outputs)
        linear = (values[:-1].t().contiguous(), values[-1].clone())
        rounds = model["boosted_rounds"].whole()
    base = read_base_score(shape["base_score"], ours, outputs, linear)
    attributes = learner["attributes"].value
    if not isinstance(attributes, dict):
        learner["attributes"].fail("must be an object")
    return Ensemble(arrays, base, ours, param, num_features, attributes, parameters, linear, rounds)
