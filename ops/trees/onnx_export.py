"""Fitted ensembles as ONNX models: the tree operator of ai.onnx.ml, then the link as plain nodes.

Trees that only compare become a TreeEnsembleRegressor (ai.onnx.ml 3, which every runtime has),
those with categories a TreeEnsemble (ai.onnx.ml 5), whose nodes ask whether a value is in a set.
"""

import numpy as np

from tilewright.trees.serving import check_trees

# Of ai.onnx.ml: the version of ai.onnx that was current beside it, and that of the file format.
PLAIN, WITH_SETS = 3, 5
VERSIONS = {PLAIN: (18, 8), WITH_SETS: (21, 10)}
LESS, MEMBER = 1, 6  # of ai.onnx.ml 5's nodes_modes
PER_NODE = ("feature", "threshold", "left", "right", "default_left", "value")


class OnnxMixin:
    """Needs a fitted estimator's ``arrays_``, ``base_score_``, ``_link`` and ``n_features_in_``."""

    def to_onnx(self, path=None):
        """The fitted model as an ``onnx.ModelProto``, also written to ``path`` where one is given.

        Input "X" is (N, n_features) float32, NaN missing. A regressor's output is "prediction",
        (N,) float32; a classifier's are "label", (N,) of ``classes_`` as int64, double, bool or
        string, and "probabilities", (N, n_classes) float32. Models with categories use TreeEnsemble
        of ai.onnx.ml 5, others TreeEnsembleRegressor of ai.onnx.ml 3. Needs the package onnx.
        """
        check_trees(self, "to_onnx")
        onnx = _onnx()
        model = ensemble_to_onnx(
            self.arrays_,
            self.base_score_,
            self._link,
            self.n_features_in_,
            getattr(self, "classes_", None),
        )
        if path is not None:
            onnx.save(model, path)
        return model


def _onnx():
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"to_onnx needs onnx: pip install onnx ({error})") from None
    return onnx


def ensemble_to_onnx(arrays, base_score, link, num_features, classes=None):
    """An ``onnx.ModelProto`` of the arrays of ``predict_trees``; arguments are those of
    ``EnsembleModule``, ``num_features`` is how many X has, ``classes`` makes it a classifier."""
    onnx = _onnx()
    helper, kinds = onnx.helper, onnx.TensorProto
    outputs = base_score.numel()
    tables = _tables(arrays, outputs)
    sets = "members" in tables
    base = onnx.numpy_helper.from_array(base_score.float().numpy(), "base_score")
    constants = [base]
    nodes = [
        (_tree_ensemble if sets else _regressor)(onnx, tables, outputs),
        helper.make_node("Add", ["raw", "base_score"], ["scores"]),
        _link_node(helper, link),
    ]
    if classes is None:
        nodes += [helper.make_node("Identity", ["linked"], ["prediction"])]
        shape = ["N", outputs]
        if outputs == 1:
            constants.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
            nodes[-1] = helper.make_node("Squeeze", ["linked", "axis"], ["prediction"])
            shape = ["N"]
        results = [helper.make_tensor_value_info("prediction", kinds.FLOAT, shape)]
    else:
        labels = _labels(onnx, classes)
        constants.append(labels)
        nodes += _class_nodes(onnx, outputs, constants)
        results = [
            helper.make_tensor_value_info("label", labels.data_type, ["N"]),
            helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", len(classes)]),
        ]
    ml = WITH_SETS if sets else PLAIN
    opset, ir_version = VERSIONS[ml]
    graph = helper.make_graph(
        nodes,
        "tilewright_trees",
        [helper.make_tensor_value_info("X", kinds.FLOAT, ["N", num_features])],
        results,
        initializer=constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)],
        ir_version=ir_version,
        producer_name="tilewright",
    )
    onnx.checker.check_model(model)
    return model


def _link_node(helper, link):
    links = {"identity": "Identity", "sigmoid": "Sigmoid", "softmax": "Softmax", "exp": "Exp"}
    if link not in links:
        raise ValueError(f"link must be one of {sorted(links)}, got {link!r}")
    axis = {"axis": 1} if link == "softmax" else {}
    return helper.make_node(links[link], ["scores"], ["linked"], **axis)


def _labels(onnx, classes):
    classes = np.asarray(classes)
    kind = classes.dtype.kind
    if kind == "O" and all(isinstance(c, str) for c in classes):
        kind = "U"
    if kind not in "biufU":
        raise ValueError(f"ONNX has labels that are numbers or strings, got {classes.dtype}")
    if kind == "U":
        text = [str(c).encode() for c in classes]
        return onnx.helper.make_tensor("classes", onnx.TensorProto.STRING, [len(text)], text)
    wide = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}[kind]
    return onnx.numpy_helper.from_array(classes.astype(wide), "classes")


def _class_nodes(onnx, outputs, constants):
    make = onnx.helper.make_node
    if outputs == 1:  # the probability of the second class
        constants.append(onnx.numpy_helper.from_array(np.array(1, np.float32), "one"))
        nodes = [
            make("Sub", ["one", "linked"], ["other"]),
            make("Concat", ["other", "linked"], ["probabilities"], axis=1),
        ]
    else:
        nodes = [make("Identity", ["linked"], ["probabilities"])]
    return [
        *nodes,
        make("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
        make("Gather", ["classes", "best"], ["label"]),
    ]


def _tables(arrays, outputs):
    """The trees' nodes that rows can reach, as NumPy arrays: children and `node` are counted in
    their tree, `target` and `value` are (nodes, 1), or (nodes, outputs) for vectors."""
    t = {k: arrays[k].numpy() for k in PER_NODE}
    pointers, tree_output = arrays["tree_ptr"].numpy(), arrays["tree_output"].numpy()
    if len(tree_output) == 0:  # no runtime takes an ensemble without trees
        t = {k: np.zeros((1, *v.shape[1:]), v.dtype) for k, v in t.items()}
        t["left"] -= 1
        t["right"] -= 1
        pointers, tree_output = np.array([0, 1]), np.zeros(1, np.int32)
    tree = np.repeat(np.arange(len(tree_output)), np.diff(pointers))
    first = pointers[tree]
    reached = np.zeros(len(tree), bool)
    level = pointers[:-1]
    while len(level):
        reached[level] = True
        inner = level[t["left"][level] >= 0]
        level = np.concatenate([first[inner] + t[side][inner] for side in ("left", "right")])
    kept = np.cumsum(reached) - 1  # places among the nodes that are left
    own = np.flatnonzero(reached)
    leaf = t["left"][own] < 0
    offset = kept[first[own]]
    children = {
        side: kept[first[own] + np.where(leaf, 0, t[side][own])] for side in ("left", "right")
    }
    value = t["value"][own]
    vectors = value.ndim == 2
    if not vectors:
        value = value[:, None]
    out = {
        "tree": tree[own],
        "node": np.arange(len(own)) - offset,
        "root": kept[pointers[:-1]],
        "leaf": leaf,
        "feature": np.where(leaf, 0, t["feature"][own]),
        "threshold": np.where(leaf, 0, t["threshold"][own]).astype(np.float32),
        "default_left": t["default_left"][own] & ~leaf,
        "left": children["left"] - offset,
        "right": children["right"] - offset,
        "value": value,
        "target": np.broadcast_to(np.arange(outputs), value.shape)
        if vectors
        else tree_output[tree[own]][:, None],
    }
    begins = arrays.get("category_ptr")
    if begins is not None and len(own):
        begins, categories = begins.numpy(), arrays["categories"].numpy()
        members = [
            () if is_leaf else categories[begins[n] : begins[n + 1]]
            for n, is_leaf in zip(own, leaf, strict=True)
        ]
        if any(len(m) for m in members):
            out["members"] = members
    return out


def _regressor(onnx, t, outputs):
    """The node X -> raw, (N, outputs), of trees that only compare."""
    leaf, own = t["leaf"], np.flatnonzero(t["leaf"])
    votes = t["value"].shape[1]
    return onnx.helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=t["tree"].tolist(),
        nodes_nodeids=t["node"].tolist(),
        nodes_featureids=t["feature"].tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LT").tolist(),
        nodes_values=t["threshold"].tolist(),
        nodes_truenodeids=np.where(leaf, 0, t["left"]).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, t["right"]).tolist(),
        nodes_missing_value_tracks_true=t["default_left"].astype(int).tolist(),
        target_treeids=np.repeat(t["tree"][own], votes).tolist(),
        target_nodeids=np.repeat(t["node"][own], votes).tolist(),
        target_ids=t["target"][own].ravel().tolist(),
        target_weights=t["value"][own].ravel().tolist(),
    )


def _tree_ensemble(onnx, t, outputs):
    """The same of trees with categories: a node that has some sends its members right. A leaf has
    one target there, so a tree whose leaves are vectors stands once for each."""
    places = t["root"][t["tree"]]  # where a node's tree begins
    single = t["leaf"] & (t["node"] == 0)  # a tree of one leaf asks, and goes there either way
    asks = ~t["leaf"] | single
    among_nodes, among_leaves = np.cumsum(asks) - 1, np.cumsum(t["leaf"]) - 1
    target = {}
    for side, flag in (("left", "left_is_leaf"), ("right", "right_is_leaf")):
        child = places + np.where(single, 0, t[side])
        target[flag] = t["leaf"][child][asks]
        target[side] = np.where(t["leaf"][child], among_leaves[child], among_nodes[child])[asks]
    sets = [t["members"][n] for n in np.flatnonzero(asks)]
    member = np.array([len(s) > 0 for s in sets])
    # Where it is true that a value is less, or a member.
    true, false = np.where(member, "right", "left"), np.where(member, "left", "right")

    def side(which, names, suffix=""):
        return np.where(which == "left", names["left" + suffix], names["right" + suffix])

    copies = t["value"].shape[1]
    nodes, leaves = int(asks.sum()), int(t["leaf"].sum())
    shift = {True: leaves, False: nodes}

    def repeated(children, are_leaves):
        step = np.where(are_leaves, shift[True], shift[False])
        return np.concatenate([children + copy * step for copy in range(copies)]).tolist()

    values = [float(v) for s in sets if len(s) for v in (*s, np.nan)] * copies
    true_leaf, false_leaf = side(true, target, "_is_leaf"), side(false, target, "_is_leaf")
    default_left = t["default_left"][asks]
    from_array = onnx.numpy_helper.from_array
    return onnx.helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=outputs,
        aggregate_function=1,
        post_transform=0,
        tree_roots=np.concatenate(
            [among_nodes[t["root"]] + copy * nodes for copy in range(copies)]
        ).tolist(),
        nodes_featureids=np.tile(t["feature"][asks], copies).tolist(),
        nodes_modes=from_array(np.tile(np.where(member, MEMBER, LESS), copies).astype(np.uint8)),
        nodes_splits=from_array(np.tile(np.where(member, 0, t["threshold"][asks]), copies)),
        nodes_missing_value_tracks_true=np.tile(default_left ^ member, copies).astype(int).tolist(),
        nodes_truenodeids=repeated(side(true, target), true_leaf),
        nodes_trueleafs=np.tile(true_leaf, copies).astype(int).tolist(),
        nodes_falsenodeids=repeated(side(false, target), false_leaf),
        nodes_falseleafs=np.tile(false_leaf, copies).astype(int).tolist(),
        leaf_targetids=t["target"][t["leaf"]].T.ravel().tolist(),
        leaf_weights=from_array(t["value"][t["leaf"]].T.ravel().astype(np.float32)),
        membership_values=from_array(np.array(values, np.float32)),
    )
