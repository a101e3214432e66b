"""Splits by categories in XGBoost's JSON: which fields say what goes right."""

import torch


def tree_categories(arrays, begin, order):
    """What a tree's file says of nodes that are split by categories, and the kind of each split.
    ``order``: the tree's nodes, counted from ``begin``, as the file has them."""
    kinds, nodes, segments, sizes, values = [0] * len(order), [], [], [], []
    if arrays.get("category_ptr") is not None:
        pointers = arrays["category_ptr"][begin : begin + len(order) + 1].tolist()
        for node, source in enumerate(order):
            first, last = pointers[source : source + 2]
            if first < last:
                kinds[node] = 1
                nodes.append(node)
                segments.append(len(values))
                sizes.append(last - first)
                values += arrays["categories"][first:last].tolist()
    return {
        "categories": values,
        "categories_nodes": nodes,
        "categories_segments": segments,
        "categories_sizes": sizes,
        "split_type": kinds,
    }


def feature_types(ensemble):
    """Categorical or numeric, where any feature is categorical."""
    pointers = ensemble.arrays.get("category_ptr")
    if pointers is None:
        return []
    types = ["q"] * ensemble.num_features
    for feature in ensemble.arrays["feature"][pointers.diff() > 0].unique().tolist():
        types[feature] = "c"
    return types


def read_categories(tree, nodes):
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
