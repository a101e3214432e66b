"""tree_shap against Shapley values by definition: depths, missing values, categories, outputs."""

import pytest
import reference_shap
import torch
from checks import export_and_run, opcheck, threads
from conftest import DTYPES
from test_predict_trees import ORDER as PREDICT_ORDER
from test_predict_trees import predict, random_trees

ORDER = [*PREDICT_ORDER[:6], "cover", *PREDICT_ORDER[6:]]


def random_covered_trees(*args, **kwargs):
    """Random trees with covers: those of leaves are random, the others their sums."""
    trees = random_trees(*args, **kwargs)
    cover = torch.rand(trees["left"].numel()) + 0.05
    for first, last in zip(trees["tree_ptr"][:-1], trees["tree_ptr"][1:], strict=True):
        for node in range(int(last) - 1, int(first) - 1, -1):  # children stand behind their parent
            if trees["left"][node] >= 0:
                children = [first + trees["left"][node], first + trees["right"][node]]
                cover[node] = cover[children[0]] + cover[children[1]]
    return trees | {"cover": cover}


def shap(x, arrays, outputs=1, operator=torch.ops.tilewright.tree_shap):
    return operator(
        x,
        *(arrays[name] for name in ORDER),
        outputs,
        arrays.get("category_ptr"),
        arrays.get("categories"),
    )


def check(x, arrays, outputs=1):
    out = shap(x, arrays, outputs)
    assert out.dtype == torch.float32
    expected = reference_shap.shap(x.float(), arrays, outputs)
    largest = expected.abs().max().item()
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6 * largest)
    scores = predict(x, arrays, outputs).double()
    torch.testing.assert_close(out.double().sum(-1), scores, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("trees", "depth", "full"), [(3, 3, True), (2, 7, False)])
def test_shapley_values_by_definition(dtype, missing, trees, depth, full):
    x = torch.randn(11, 4).to(dtype)
    if missing:
        x[torch.rand(x.shape) < 0.2] = float("nan")
    arrays = random_covered_trees(trees, depth, 4, full=full)
    check(x, arrays)
    assert torch.equal(shap(x.t().contiguous().t(), arrays), shap(x, arrays))


def pairs(x, arrays, outputs=1):
    return shap(x, arrays, outputs, torch.ops.tilewright.tree_shap_interactions)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("depth", "features"), [(3, 4), (7, 3), (2, 1), (3, 5)])
def test_interactions_by_definition(missing, depth, features):
    x = torch.randn(9, features)
    if missing:
        x[torch.rand(x.shape) < 0.2] = float("nan")
    arrays = random_covered_trees(4, depth, features, outputs=2)
    out = pairs(x, arrays, 2)
    expected = reference_shap.interactions(x, arrays, 2)
    largest = expected.abs().max().item()
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6 * largest)
    assert torch.equal(out, out.transpose(2, 3))
    values = shap(x, arrays, 2)
    torch.testing.assert_close(out.sum(3), values, rtol=0, atol=1e-5 * largest)


def test_interactions_of_blocks_and_threads():
    arrays = random_covered_trees(9, 6, 5, outputs=3, vector=True)
    x = torch.randn(131, 7)
    whole = threads(1, lambda: pairs(x, arrays, 3))
    assert torch.equal(whole, threads(3, lambda: pairs(x, arrays, 3)))
    assert torch.equal(whole[70:71], pairs(x[70:71], arrays, 3))
    assert pairs(x[:0], arrays, 3).shape == (0, 3, 8, 8)
    torch.testing.assert_close(whole.sum(3), shap(x, arrays, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("features", [1, 2, 8])
def test_paths_of_few_and_many_features(features):
    check(torch.randn(3, features), random_covered_trees(2, 9, features))


@pytest.mark.parametrize("vector", [False, True])
def test_several_outputs(vector):
    arrays = random_covered_trees(5, 4, 3, outputs=3, vector=vector)
    check(torch.randn(9, 3), arrays, 3)


@pytest.mark.parametrize("outputs", [1, 3])
def test_vectors_do_not_ask_for_tree_output(outputs):
    arrays = random_covered_trees(5, 4, 3, outputs=outputs, vector=True)
    x = torch.randn(9, 3)
    expected = shap(x, arrays, outputs)
    assert torch.equal(
        shap(x, arrays | {"tree_output": arrays["tree_output"] + 7}, outputs), expected
    )


def test_categories():
    arrays = random_covered_trees(4, 5, 3)
    nodes = arrays["feature"].numel()
    pointers, categories = [0], []
    for _ in range(nodes):
        if torch.rand(()) < 0.5:
            categories += sorted(torch.randperm(6)[:3].tolist())
        pointers.append(len(categories))
    arrays["category_ptr"] = torch.tensor(pointers)
    arrays["categories"] = torch.tensor(categories, dtype=torch.int32)
    x = torch.randint(-1, 8, (20, 3)).float()
    x[::7, 1] = float("nan")
    check(x, arrays)


def test_a_stump_by_hand():
    arrays = random_trees(1, 1, 2, full=True)
    arrays["feature"][0], arrays["threshold"][0] = 1, 0.5
    arrays["value"] = torch.tensor([0.0, 8.0, 4.0])
    arrays["cover"] = torch.tensor([0.0, 3.0, 1.0])  # the root's is not read
    out = shap(torch.tensor([[9.0, 0.0], [9.0, 0.5]]), arrays)
    assert out.tolist() == [[[0.0, 1.0, 7.0]], [[0.0, -3.0, 7.0]]]


def chain(features):
    """One tree that asks for each feature once: a row whose value is not negative goes on."""
    count = len(features)
    nodes = torch.arange(2 * count + 1)
    inner = (nodes % 2 == 0) & (nodes < 2 * count)  # 2 k asks for feature k; 2 k + 1 is a leaf
    return {
        "feature": torch.where(
            inner, torch.cat([features.repeat_interleave(2), nodes[:1]]), 0
        ).int(),
        "threshold": torch.zeros(len(nodes)),
        "left": torch.where(inner, nodes + 1, -1).int(),
        "right": torch.where(inner, nodes + 2, -1).int(),
        "default_left": torch.zeros(len(nodes), dtype=torch.bool),
        "value": torch.randn(len(nodes)),
        "cover": torch.rand(len(nodes)) + 0.1,
        "tree_ptr": torch.tensor([0, len(nodes)]),
        "tree_output": torch.zeros(1, dtype=torch.int32),
    }


def test_a_path_of_forty_features():
    """The one leaf that is not 0 is the last; some features send the row away."""
    arrays = chain(torch.arange(40))
    arrays["value"].zero_()[-1] = 1e6
    away = torch.zeros(40, dtype=torch.bool)
    away[[5, 17, 30]] = True
    cover = arrays["cover"].double()
    stay = cover[2::2] / (cover[1::2] + cover[2::2])
    x = torch.where(away, -1.0, 1.0)[None]
    expected = reference_shap.leaf_by_sizes(1e6, (~away).double().tolist(), stay.tolist())
    expected = torch.tensor(expected, dtype=torch.float64)
    out = shap(x, arrays)[0, 0].double()
    torch.testing.assert_close(out[:-1], expected, rtol=2e-7, atol=1e-40)
    torch.testing.assert_close(out[-1].item(), 1e6 * stay.prod().item(), rtol=2e-7, atol=0)


def test_a_child_without_cover_is_never_expected():
    arrays = random_covered_trees(2, 3, 3, full=True)
    arrays["cover"][arrays["left"][0]] = 0.0
    check(torch.randn(12, 3), arrays)


def test_rows_stand_alone_and_threads_do_not_matter():
    arrays = random_covered_trees(20, 6, 5)
    x = torch.randn(301, 5)
    whole = threads(1, lambda: shap(x, arrays))
    assert torch.equal(whole, threads(3, lambda: shap(x, arrays)))
    for count in (1, 7, 9, 65):
        assert torch.equal(whole[:count], shap(x[:count], arrays))
    assert torch.equal(whole[100:101], shap(x[100:101], arrays))
    assert shap(x[:0], arrays).shape == (0, 1, 6)


def test_rows_of_deep_trees_walk_in_smaller_blocks():
    deep = chain(torch.randperm(60))
    x = torch.randn(70, 60)
    whole = shap(x, deep)
    assert torch.equal(whole, torch.cat([shap(row[None], deep) for row in x]))
    scores = predict(x, deep, 1).double()
    torch.testing.assert_close(whole.double().sum(-1), scores, rtol=0, atol=1e-5)


def test_features_that_no_tree_asks_for():
    arrays = random_covered_trees(3, 4, 3)
    x = torch.randn(10, 1000)
    out = shap(x, arrays)
    assert torch.equal(out[:, :, :3], shap(x[:, :3], arrays)[:, :, :3])
    assert out[:, :, 3:-1].count_nonzero() == 0


def test_no_tree_and_trees_of_one_leaf():
    arrays = random_covered_trees(1, 1, 2)
    none = {name: value[:0] for name, value in arrays.items()}
    none["tree_ptr"] = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(shap(torch.randn(3, 2), none, 2), torch.zeros(3, 2, 3))
    leaf = {name: value[1:2] for name, value in arrays.items()}
    leaf |= {"tree_ptr": torch.tensor([0, 1]), "tree_output": arrays["tree_output"]}
    out = shap(torch.randn(3, 2), leaf)
    assert torch.equal(out, torch.tensor([0, 0, leaf["value"][0].item()]).expand(3, 1, 3))


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("left", 0, 9, "tree_shap: tree 0, node 0: child 9 is not one of its 3 nodes"),
        ("feature", 0, 2, "feature 2 is not one of x's 2"),
        ("threshold", 0, float("nan"), "threshold must be a number, got nan"),
        ("tree_output", 0, 1, r"tree_output must lie in \[0, 1\), that of tree 0 is 1"),
        ("tree_ptr", 1, 2, "tree_ptr must go from 0 to the number of nodes, 3"),
        ("cover", 1, -1.0, "tree 0, node 0: covers of children must be finite and not negative"),
        ("cover", 2, float("nan"), "covers of children must be finite and not negative, got nan"),
        ("cover", 2, float("inf"), "covers of children must be finite and not negative, got inf"),
        ("cover", slice(1, 3), 0.0, "cover must be positive for a child at least, got 0 for both"),
        ("value", 1, float("inf"), "tree 0, node 1: value must be finite, got inf"),
    ],
)
def test_what_is_no_tree_or_cover_is_named(name, place, value, message):
    arrays = random_covered_trees(1, 1, 2, full=True)
    arrays[name][place] = value
    with pytest.raises(RuntimeError, match=message):
        shap(torch.zeros(4, 2), arrays)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cover", lambda t: t.double(), "tree_shap: cover must be Float, got Double"),
        ("cover", lambda t: t[:-1], r"cover must have shape \(3,\) as feature has, got \(2,\)"),
        ("left", lambda t: t[:-1], r"tree_shap: left must have shape \(3,\) as feature has"),
    ],
)
def test_shapes_and_dtypes_are_named(name, change, message):
    arrays = random_covered_trees(1, 1, 2, full=True)
    arrays[name] = change(arrays[name])
    with pytest.raises(RuntimeError, match=message):
        shap(torch.zeros(4, 2), arrays)


def test_a_tree_too_deep_to_hold_is_named():
    arrays = chain(torch.arange(3000))
    with pytest.raises(RuntimeError, match="tree 0 is too deep: of depth 3000 with 3000 features"):
        shap(torch.zeros(1, 3000), arrays)


def test_shapes_without_data():
    arrays = {k: v.to("meta") for k, v in random_covered_trees(2, 3, 4, outputs=2).items()}
    out = shap(torch.empty(5, 4, device="meta"), arrays, 2)
    assert (out.shape, out.dtype) == ((5, 2, 5), torch.float32)
    assert pairs(torch.empty(5, 4, device="meta"), arrays, 2).shape == (5, 2, 5, 5)


@pytest.mark.smoke
def test_opcheck_and_export():
    arrays = random_covered_trees(3, 4, 2)
    x = torch.randn(5, 2)
    for op in (torch.ops.tilewright.tree_shap, torch.ops.tilewright.tree_shap_interactions):
        opcheck(op.default, (x, *(arrays[name] for name in ORDER), 1))
    rows = torch.export.Dim("rows")
    exported = export_and_run(
        lambda x: shap(x, arrays), x, dynamic_shapes=((({0: rows},),)), other_args=(x[:4],)
    )
    assert torch.equal(exported, shap(x[:4], arrays))
