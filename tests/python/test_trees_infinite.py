"""Infinite values are ordinary ones at the ends: prediction sends training's rows where training
had them, also where all that is there parts from what is missing."""

import numpy as np
import pytest
import torch
from test_predict_trees import predict, random_trees

from tilewright.trees import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

INF, GREATEST = float("inf"), torch.finfo(torch.float32).max
ENDS = {
    "none": [],
    "above": [INF],
    "below": [-INF],
    "both": [INF, -INF],
    "next to them": [INF, -INF, GREATEST, -GREATEST],
}
kernels = pytest.mark.kernels


def table(ends, values=1000, rows=400):
    """Two features with both ends and missing values, which y asks for."""
    x = torch.randn(rows, 2).mul(values / 4).round()
    for i, end in enumerate(ends):
        x[i :: 3 * len(ends), 0] = end
    x[torch.rand(rows) < 0.3, 0] = float("nan")
    x[:, 1] = torch.where(torch.rand(rows) < 0.5, INF, float("nan"))  # one value, or none
    y = 3.0 * x[:, 0].isnan() + 2.0 * x[:, 1].isnan() + x[:, 0].nan_to_num(0).clamp(-1, 1)
    return x, y + 0.1 * torch.randn(rows)


def leaves_of(arrays, x, tree):
    """The leaf of each row, by definition."""
    first, rows = arrays["tree_ptr"][tree].item(), torch.arange(len(x))
    node = torch.full((len(x),), first)
    while (arrays["left"][node] >= 0).any():
        value = x[rows, arrays["feature"][node].long()]
        left = torch.where(
            value.isnan(), arrays["default_left"][node], value < arrays["threshold"][node]
        )
        child = torch.where(left, arrays["left"][node], arrays["right"][node])
        node = torch.where(child >= 0, first + child, node)
    return node


def assert_covers_are_counts(arrays, x):
    """Each leaf weighs what training sent there: its rows, of squared errors."""
    for tree in range(len(arrays["tree_ptr"]) - 1):
        begin, end = arrays["tree_ptr"][tree : tree + 2].tolist()
        counts = torch.bincount(leaves_of(arrays, x, tree), minlength=end)[begin:end]
        leaf = arrays["left"][begin:end] < 0
        assert torch.equal(counts[leaf].float(), arrays["cover"][begin:end][leaf])


def asks_what_is_missing(arrays):
    """The nodes that all there is leaves by the right."""
    return (arrays["left"] >= 0) & (arrays["threshold"] == -INF)


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize(("values", "max_bin"), [(1000, 255), (1000, 16), (8, 16), (1000, 1000)])
def test_boosting(ends, values, max_bin):
    x, y = table(ends, values)
    options = {"n_estimators": 5, "learning_rate": 0.5, "max_bin": max_bin, "max_depth": 4}
    model = GradientBoostingRegressor(**options).fit(x, y)
    assert asks_what_is_missing(model.arrays_).any()
    assert model.arrays_["default_left"][asks_what_is_missing(model.arrays_)].all()
    assert_covers_are_counts(model.arrays_, x)
    # Trees that go on from what prediction says are those of one fit.
    more = GradientBoostingRegressor(**options).fit(x, y, init_model=model)
    whole = GradientBoostingRegressor(**options | {"n_estimators": 10}).fit(x, y)
    for name, array in whole.arrays_.items():
        assert torch.equal(array, more.arrays_[name]), name


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("kind", [RandomForestRegressor, ExtraTreesRegressor])
@pytest.mark.parametrize("max_bin", [16, 300, 16383])
def test_forests(ends, kind, max_bin):
    x, y = table(ends)
    model = kind(n_estimators=4, bootstrap=False, max_bin=max_bin, max_depth=5).fit(x, y)
    assert asks_what_is_missing(model.arrays_).any()
    assert_covers_are_counts(model.arrays_, x)


def test_adaboost_weighs_the_rows_that_prediction_gets_wrong():
    x, y = table(ENDS["both"])
    labels = (y > 2).long()
    model = AdaBoostClassifier(n_estimators=1, max_depth=3).fit(x, labels)
    wrong = (model.predict(x) != labels).double().mean().item()
    assert model.estimator_errors_[0] == pytest.approx(wrong)


def test_a_split_worked_by_hand():
    x = torch.tensor([[1.0], [INF], [-INF], [float("nan")]])
    y = torch.tensor([0.0, 0.0, 0.0, 4.0])
    model = GradientBoostingRegressor(
        n_estimators=1, max_depth=1, learning_rate=1.0, reg_lambda=0.0
    ).fit(x, y)
    assert model.arrays_["threshold"][0] == -INF
    assert model.predict(x).tolist() == [0, 0, 0, 4]
    # What is less than infinity is not infinite.
    model.fit(x, torch.tensor([0.0, 4.0, 0.0, 0.0]))
    assert model.arrays_["threshold"][0] == GREATEST
    assert model.predict(x).tolist() == [0, 4, 0, 0]
    assert model.predict(torch.tensor([[3.4e38]])).tolist() == [0]


@kernels
def test_the_greatest_number_is_beside_infinity(device):
    """No cut lies between the two: they are one value."""
    x = torch.tensor([[1.0], [GREATEST], [INF]], device=device)
    cuts, count = torch.ops.tilewright.feature_cuts(x, None, 16)
    assert count.tolist() == [1] and 1 < cuts[0, 0] <= GREATEST
    cuts, count = torch.ops.tilewright.feature_cuts(x[::2], None, 16)
    assert cuts[0, :2].tolist() == [GREATEST, INF] and count.tolist() == [1]


@pytest.mark.parametrize("classes", [2, 3])
def test_files_keep_it(tmp_path, classes):
    x, y = table(ENDS["both"])
    labels = torch.bucketize(y, torch.tensor([1.5, 3.5])[: classes - 1])
    model = GradientBoostingClassifier(n_estimators=5).fit(x, labels)
    assert asks_what_is_missing(model.arrays_).any()
    model.save_model(tmp_path / "m.json")
    again = GradientBoostingClassifier().load_model(tmp_path / "m.json")
    assert asks_what_is_missing(again.arrays_).sum() == asks_what_is_missing(model.arrays_).sum()
    torch.testing.assert_close(again.predict_proba(x), model.predict_proba(x))
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    finite = ~x.isinf().any(1)  # others are an error of xgboost's
    theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(xgboost.DMatrix(x[finite]))
    ours = model.predict_proba(x[finite]).numpy()
    np.testing.assert_allclose(theirs, ours if classes > 2 else ours[:, 1], atol=1e-6)


@pytest.mark.parametrize("kind", [GradientBoostingClassifier, RandomForestClassifier])
def test_onnxruntime_sends_rows_there_too(kind):
    pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    x, y = table(ENDS["both"])
    model = kind(n_estimators=5, max_depth=4).fit(x, y > 2)
    session = onnxruntime.InferenceSession(
        model.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(["probabilities"], {"X": x.numpy()})
    np.testing.assert_allclose(theirs, model.predict_proba(x).numpy(), atol=1e-6)


@kernels
def test_infinite_thresholds(device):
    """Nothing is less than -infinity; all but infinity is less than that."""
    arrays = random_trees(1, 1, 1, full=True)
    arrays["feature"][:] = 0
    arrays["value"] = torch.tensor([0.0, 1.0, 2.0])
    x = torch.tensor([[-INF], [0.0], [INF], [float("nan")]], device=device)
    for threshold, expected in ((-INF, [2, 2, 2]), (INF, [1, 1, 2])):
        for default, missing in ((True, 1), (False, 2)):
            arrays["threshold"][0], arrays["default_left"][0] = threshold, default
            found = predict(x, arrays, 1)[:, 0].tolist()
            assert found == [*expected, missing]
