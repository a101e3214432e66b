"""predict_trees against a walk by definition: all shapes of trees, missing values, categories."""

import pytest
import reference_trees
import torch
from checks import NoSynchronisation
from conftest import DTYPES

kernels = pytest.mark.kernels
no_launch = pytest.mark.no_launch

ORDER = ["feature", "threshold", "left", "right", "default_left"]
ORDER += ["value", "tree_ptr", "tree_output"]


def random_trees(trees, depth, features, outputs=1, vector=False, full=False):
    """Random arrays; deep trees are long on one side unless `full`."""
    arrays = {name: [] for name in ORDER}
    arrays["tree_ptr"] = [0]

    def grow(level):
        node = len(rows)
        rows.append(None)
        split = level < depth and (full or level == 0 or torch.rand(()) < 0.7)
        if split:
            left = grow(level + 1)
            right = grow(level + 1)
            rows[node] = (left, right)
        else:
            rows[node] = (-1, -1)
        return node

    for t in range(trees):
        rows = []
        grow(0)
        for left, right in rows:
            arrays["left"].append(left)
            arrays["right"].append(right)
        arrays["tree_ptr"].append(len(arrays["left"]))
        arrays["tree_output"].append(t % outputs)
    nodes = len(arrays["left"])
    return {
        "feature": torch.randint(0, features, (nodes,), dtype=torch.int32),
        "threshold": torch.randn(nodes),
        "left": torch.tensor(arrays["left"], dtype=torch.int32),
        "right": torch.tensor(arrays["right"], dtype=torch.int32),
        "default_left": torch.rand(nodes) < 0.5,
        "value": torch.randn(nodes, outputs) if vector else torch.randn(nodes),
        "tree_ptr": torch.tensor(arrays["tree_ptr"]),
        "tree_output": torch.tensor(arrays["tree_output"], dtype=torch.int32),
    }


def predict(x, arrays, outputs):
    """x on any device, arrays on the CPU."""
    there = {name: value.to(x.device) for name, value in arrays.items()}
    return torch.ops.tilewright.predict_trees(
        x,
        *(there[name] for name in ORDER),
        outputs,
        there.get("category_ptr"),
        there.get("categories"),
    )


def check(x, arrays, outputs=1):
    out = predict(x, arrays, outputs)
    expected = reference_trees.predict(x.float().cpu(), arrays, outputs)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double().cpu(), expected, atol=1e-5, rtol=1e-5)


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("trees", "depth", "full"), [(5, 3, True), (4, 6, False), (3, 14, False)])
def test_rows_walk_to_their_leaves(device, dtype, missing, trees, depth, full):
    x = torch.randn(70, 5).to(dtype)
    if missing:
        x[torch.rand(x.shape) < 0.2] = float("nan")
    x = x.to(device)
    check(x, random_trees(trees, depth, 5, full=full))
    check(x.t().contiguous().t(), random_trees(trees, depth, 5, full=full))


@kernels
@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("depth", [4, 10])
def test_several_outputs(device, vector, depth):
    check(torch.randn(33, 4, device=device), random_trees(7, depth, 4, outputs=3, vector=vector), 3)


@kernels
@pytest.mark.parametrize("outputs", [1, 3])
def test_vectors_do_not_ask_for_tree_output(device, outputs):
    arrays = random_trees(5, 4, 4, outputs=outputs, vector=True)
    arrays["tree_output"] += 7
    check(torch.randn(33, 4, device=device), arrays, outputs)


@kernels
@pytest.mark.parametrize("depth", [3, 10])
def test_categories_go_right(device, depth):
    arrays = random_trees(6, depth, 3)
    nodes = arrays["feature"].numel()
    pointers, categories = [0], []
    for _ in range(nodes):
        if torch.rand(()) < 0.5:
            categories += sorted(torch.randperm(6)[:3].tolist())
        pointers.append(len(categories))
    arrays["category_ptr"] = torch.tensor(pointers)
    arrays["categories"] = torch.tensor(categories, dtype=torch.int32)
    x = torch.randint(-1, 8, (60, 3)).float()
    x[::7, 1] = float("nan")
    check(x.to(device), arrays)


@kernels
def test_a_value_at_the_threshold_goes_right(device):
    arrays = random_trees(1, 1, 1, full=True)
    arrays["threshold"][0] = 0.5
    out = predict(torch.tensor([[0.5], [0.49999997]], device=device), arrays, 1)
    assert out[:, 0].tolist() == [arrays["value"][2].item(), arrays["value"][1].item()]


@kernels
def test_one_row_at_a_time_is_the_same(device):
    arrays = random_trees(20, 6, 4)
    x = torch.randn(300, 4, device=device)
    whole = predict(x, arrays, 1)
    assert torch.equal(whole, torch.cat([predict(row[None], arrays, 1) for row in x]))
    assert predict(x[:0], arrays, 1).shape == (0, 1)


@kernels
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("full", [True, False])  # False: of many depths
def test_few_rows_are_the_same(device, full, vector, outputs):
    # On the CPU trees walk side by side, eight of one depth, where there are few rows.
    arrays = random_trees(21, 4, 4, outputs=outputs, full=full, vector=vector)
    x = torch.randn(60, 4, device=device)
    x[torch.rand(x.shape, device=device) < 0.2] = float("nan")
    whole = predict(x, arrays, outputs)
    for count in (1, 2, 3, 4, 5, 6):
        parts = [predict(rows, arrays, outputs) for rows in x.split(count)]
        assert torch.equal(whole, torch.cat(parts))


@kernels
def test_no_tree_scores_nothing(device):
    arrays = {name: value[:0] for name, value in random_trees(1, 1, 2).items()}
    arrays["tree_ptr"] = torch.zeros(1, dtype=torch.int64)
    scores = predict(torch.randn(3, 2, device=device), arrays, 2)
    assert torch.equal(scores.cpu(), torch.zeros(3, 2))


@kernels
@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("left", 0, 9, "tree 0, node 0: child 9 is not one of its 3 nodes"),
        ("left", 0, 0, "child 0 is not one of its 3 nodes or has another parent"),
        ("right", 0, 1, "child 1 is not one of its 3 nodes or has another parent"),
        ("right", 0, -1, "child -1"),
        ("feature", 0, 2, "feature 2 is not one of x's 2"),
        ("feature", 0, -1, "feature -1"),
        ("threshold", 0, float("nan"), "threshold must be a number, got nan"),
        ("tree_output", 0, 1, r"tree_output must lie in \[0, 1\), that of tree 0 is 1"),
        ("tree_ptr", 1, 4, "tree_ptr must go from 0 to the number of nodes, 3"),
        ("tree_ptr", 0, -1, "tree_ptr must go from 0 to the number of nodes, 3"),
    ],
)
def test_what_is_no_tree_is_named(device, data_raises, name, place, value, message):
    """On CUDA the rows that meet it score NaN."""
    arrays = random_trees(1, 1, 2, full=True)
    arrays["threshold"][0] = -1.0 if name == "right" else 1.0
    arrays["feature"][0] = 0
    arrays[name][place] = value
    x = torch.zeros(4, 2, device=device)
    if not data_raises:
        if (name, value) == ("right", 1):  # a leaf of two parents harms nobody
            assert torch.equal(predict(x, arrays, 1).cpu(), arrays["value"][1].expand(4, 1))
        else:
            assert predict(x, arrays, 1).isnan().all()
        return
    with pytest.raises(RuntimeError, match=message):
        predict(x, arrays, 1)


def test_categories_that_do_not_ascend_are_named():
    """They are searched by halves. Those of leaves are not read."""
    arrays = random_trees(2, 1, 2, full=True)
    pointers, x = torch.tensor([0, 0, 0, 0, 3, 5, 5]), torch.zeros(4, 2)
    for given, message in (([1, 2, 2], "got 2 before 2"), ([4, 1, 2], "got 4 before 1")):
        categories = torch.tensor([*given, 7, 6], dtype=torch.int32)
        with pytest.raises(
            RuntimeError, match=f"tree 1, node 0: categories must ascend, {message}"
        ):
            predict(x, arrays | {"category_ptr": pointers, "categories": categories}, 1)
    categories = torch.tensor([0, 4, 5, 7, 6], dtype=torch.int32)
    predict(x, arrays | {"category_ptr": pointers, "categories": categories}, 1)


@kernels
@no_launch
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("threshold", lambda t: t.double(), "threshold must be Float, got Double"),
        ("left", lambda t: t[:-1], r"left must have shape \(3,\) as feature has, got \(2,\)"),
        ("value", lambda t: t[:, None].repeat(1, 2), r"value must have shape \(3,\) or \(3, 1\)"),
        ("tree_ptr", lambda t: t[:-1], "tree_ptr must have shape"),
    ],
)
def test_shapes_and_dtypes_are_named(device, name, change, message):
    arrays = random_trees(1, 1, 2, full=True)
    arrays[name] = change(arrays[name])
    with pytest.raises(RuntimeError, match=message):
        predict(torch.zeros(4, 2, device=device), arrays, 1)


@kernels
@pytest.mark.smoke
def test_opcheck(device):
    arrays = random_trees(3, 4, 2)
    torch.library.opcheck(
        torch.ops.tilewright.predict_trees.default,
        (torch.randn(5, 2, device=device), *(arrays[name].to(device) for name in ORDER), 1),
    )


@kernels
def test_it_asks_the_device_for_nothing(device):
    arrays = {name: value.to(device) for name, value in random_trees(3, 4, 2).items()}
    x = torch.randn(5, 2, device=device)
    with NoSynchronisation():
        predict(x, arrays, 1)


def test_no_features():
    leaf = {
        "feature": torch.zeros(1, dtype=torch.int32),
        "threshold": torch.zeros(1),
        "left": torch.full((1,), -1, dtype=torch.int32),
        "right": torch.full((1,), -1, dtype=torch.int32),
        "default_left": torch.zeros(1, dtype=torch.bool),
        "value": torch.full((1,), 2.5),
        "tree_ptr": torch.tensor([0, 1]),
        "tree_output": torch.zeros(1, dtype=torch.int32),
    }
    assert predict(torch.zeros(3, 0), leaf, 1).tolist() == [[2.5]] * 3
