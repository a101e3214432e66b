"""Trees whose leaves are vectors, in XGBoost's JSON (3.2): leaves stand apart from nodes, in
"leaf_weights", and a leaf's right child is its place there."""

import torch

from tilewright.trees.json_reader import Reader


def vector_fields(leaf, right, threshold, value, floats):
    """What such a tree says otherwise than one of numbers; value is (nodes, K), leaf a mask."""
    places = torch.where(leaf, leaf.int().cumsum(0) - 1, right)
    return {
        "base_weights": floats(value.flatten()),
        "leaf_weights": floats(value[leaf].flatten()),
        "right_children": places.tolist(),
        "split_conditions": floats(torch.where(leaf, 0.0, threshold)),
    }


def leaf_size(tree):
    """How many numbers a leaf of this tree has."""
    param = tree.value.get("tree_param") if isinstance(tree.value, dict) else None
    if not isinstance(param, dict) or "size_leaf_vector" not in param:
        return 1
    return max(tree["tree_param"]["size_leaf_vector"].whole(), 1)  # 0 in old files


def most_outputs(trees):
    """How many outputs the trees can have, by the lengths of their lists."""
    if not trees or leaf_size(trees[0]) == 1:
        return len(trees)
    if "leaf_weights" not in trees[0].value:
        trees[0].fail("has vector leaves in another form than xgboost 3.2 writes: no leaf_weights")
    return len(trees[0]["leaf_weights"].items())


def read_vectors(tree, left, outputs):
    """right, split_conditions and value (nodes, K) as trees of numbers have them: right is -1 and
    the condition 0 at leaves."""
    leaf = left < 0
    nodes, leaves = left.numel(), int(leaf.sum())
    right = tree["right_children"].numbers(torch.int32, nodes, 0)
    if (right >= leaves)[leaf].any():
        tree["right_children"].fail(f"of leaves must be less than their number, {leaves}")
    weights = tree["leaf_weights"].numbers(torch.float32, leaves * outputs).view(leaves, outputs)
    conditions = tree["split_conditions"]
    if isinstance(conditions.value, list) and len(conditions.value) == nodes:  # NaN at leaves
        pairs = zip(conditions.value, leaf.tolist(), strict=True)
        conditions = Reader([0.0 if is_leaf else v for v, is_leaf in pairs], conditions.path)
    value = torch.zeros(nodes, outputs)
    value[leaf] = weights[right[leaf].long()]
    right[leaf] = -1
    return right, conditions.numbers(torch.float32, nodes), value
