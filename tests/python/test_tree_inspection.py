"""Importances by hand, partial dependence against its definition and scikit-learn's."""

import numpy as np
import pytest
import torch
from reference_trees import table
from sklearn import inspection as theirs
from sklearn.linear_model import LinearRegression

from tilewright.trees import (
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    TorchRegressor,
    importance,
    partial_dependence,
    permutation_importance,
)
from tilewright.trees import inspection as ours

pytestmark = pytest.mark.usefixtures("one_thread")


def test_importances_worked_by_hand():
    # Base 1; gradients 1, 1, -1, -1; x1 gains 2^2 / 3 on each side. Then x0 would gain
    # 1 / 2 + 1 / 2 - 4 / 3 < 0.
    x = torch.tensor([[0.0, 0.0, 9.0], [1.0, 0.0, 9.0], [0.0, 1.0, 9.0], [1.0, 1.0, 9.0]])
    y = torch.tensor([0.0, 0.0, 2.0, 2.0])
    model = GradientBoostingRegressor(n_estimators=1, max_depth=2).fit(x, y)
    gain = importance(model, "gain", normalize=False)
    assert gain.tolist() == pytest.approx([0, 8 / 3, 0])
    assert importance(model, "cover", normalize=False).tolist() == [0, 4, 0]
    assert importance(model, "split", normalize=False).tolist() == [0, 1, 0]
    for kind in ("gain", "cover", "split"):
        assert importance(model, kind).tolist() == [0, 1, 0]


def test_importances_are_sums_over_nodes():
    x, y = table(500, 5)
    model = GradientBoostingClassifier(n_estimators=7).fit(x, np.digitize(y.numpy(), [-1.0, 1.0]))
    arrays = model.arrays_
    for kind in ("gain", "cover", "split"):
        expected = [0.0] * 5
        for node in range(len(arrays["left"])):
            if arrays["left"][node] >= 0:
                worth = 1 if kind == "split" else arrays[kind][node].item()
                expected[arrays["feature"][node]] += worth
        found = importance(model, kind, normalize=False)
        assert found.dtype == torch.float64
        assert found.tolist() == pytest.approx(expected)
        shares = importance(model, kind)
        torch.testing.assert_close(shares, found / found.sum())
    np.testing.assert_allclose(importance(model), model.feature_importances_)


def test_a_model_without_splits_has_no_importance():
    model = GradientBoostingRegressor(n_estimators=2).fit(torch.zeros(9, 3), torch.randn(9))
    assert importance(model).tolist() == [0, 0, 0]


def test_what_importance_refuses():
    model = GradientBoostingRegressor(n_estimators=1)
    with pytest.raises(ValueError, match="needs a fitted model"):
        importance(model)
    model.fit(torch.randn(9, 3), torch.randn(9))
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'weight'"):
        importance(model, "weight")
    with pytest.raises(ValueError, match="permutation_importance takes any"):
        importance(TorchRegressor(epochs=1).fit(torch.randn(9, 3), torch.randn(9)))


@pytest.mark.parametrize("tensors", [False, True])
def test_permutation_importance(tensors):
    x, y = table(600, 5)  # x4 is noise
    x, y = (x, y) if tensors else (x.numpy(), y.numpy())
    for model in (
        GradientBoostingRegressor(n_estimators=30),
        BaggingRegressor(n_estimators=5, random_state=0),
        TorchRegressor(epochs=30, random_state=0),
    ):
        found = permutation_importance(model.fit(x, y), x, y, n_repeats=3, random_state=0)
        assert found.importances_mean.argmax() == 0
        assert found.importances_mean[4] < 0.1 < found.importances_mean[0]
    classifier = GradientBoostingClassifier(n_estimators=10).fit(x, y > 0)
    found = permutation_importance(classifier, x, y > 0, n_repeats=3, random_state=0)
    assert found.importances_mean[4] < 0.1 < found.importances_mean[0]


def test_partial_dependence_of_a_line_by_hand():
    # y = 2 a + 3 b: at a = 5 the mean is 10 + 3 * mean(b).
    x = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 6.0]])
    model = LinearRegression().fit(x, 2 * x[:, 0] + 3 * x[:, 1])
    found = partial_dependence(model, x, 0, grid=[[5.0, 7.0]], individual=True)
    np.testing.assert_allclose(found.average, [[19.0, 23.0]])
    np.testing.assert_allclose(found.individual, [[[13, 17], [16, 20], [28, 32]]])
    weighted = partial_dependence(model, x, [0], grid=[[5.0]], sample_weight=[1, 1, 0])
    np.testing.assert_allclose(weighted.average, [[14.5]])
    both = partial_dependence(model, x, [1, 0], grid=[[0.0, 1.0], [5.0, 6.0, 7.0]])
    np.testing.assert_allclose(both.average, [[[10, 12, 14], [13, 15, 17]]])


def models(x, y):
    return {
        "regression": GradientBoostingRegressor(n_estimators=10).fit(x, y),
        "two classes": GradientBoostingClassifier(n_estimators=10).fit(x, y > 0),
        "three classes": GradientBoostingClassifier(n_estimators=5).fit(
            x, np.digitize(y.numpy(), [-1.0, 1.0])
        ),
        "bagging": BaggingRegressor(n_estimators=3, random_state=0).fit(x, y),
        "net": TorchRegressor(epochs=2, random_state=0).fit(x, y),
    }


@pytest.mark.parametrize("batch", [65536, 1000, 50])
@pytest.mark.parametrize("features", [0, [2], [1, 3]])
def test_partial_dependence_is_scikit_learns(features, batch, monkeypatch):
    monkeypatch.setattr(ours, "BATCH_ROWS", batch)
    x, y = table(103, 4)
    x[:, 3] = x[:, 3].round()  # few values, so that all of them are the grid
    weight = torch.rand(103)
    for model in models(x, y).values():
        expected = theirs.partial_dependence(
            model,
            x.numpy(),
            [features] if isinstance(features, int) else [tuple(features)],
            sample_weight=weight.numpy(),
            grid_resolution=17,
            kind="both",
            method="brute",
        )
        options = {"individual": True, "sample_weight": weight, "grid_resolution": 17}
        for given in (x, x.numpy()):
            found = partial_dependence(model, given, features, **options)
            for mine, other in zip(found.grid, expected["grid_values"], strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-6)
            assert found.average.shape == expected["average"].shape
            np.testing.assert_allclose(found.average, expected["average"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                found.individual, expected["individual"], rtol=1e-5, atol=1e-6
            )


def test_values_are_answered_in_batches():
    x, y = table(100, 4)
    model = GradientBoostingRegressor(n_estimators=3).fit(x, y)
    calls, predict = [], model.predict
    model.predict = lambda x: calls.append(len(x)) or predict(x)
    partial_dependence(model, x, 0, grid_resolution=50)
    assert calls == [5000]
    calls.clear()
    partial_dependence(model, x.repeat(1000, 1), 0, grid_resolution=2)
    assert calls == [65536, 65536, 34464, 34464]


def test_missing_values_and_scores():
    x, y = table(200, 4, missing=True)
    model = GradientBoostingClassifier(n_estimators=5).fit(x, y > 0)
    found = partial_dependence(model, x, 1, response="score", grid=[torch.tensor([0.5, np.nan])])
    for k, value in enumerate((0.5, float("nan"))):
        rows = x.clone()
        rows[:, 1] = value
        expected = model.to_module().scores(rows).mean()
        assert found.average[0, k].item() == pytest.approx(expected.item(), rel=1e-5)
    grid = partial_dependence(model, x, 1, grid_resolution=5).grid[0]
    assert len(grid) == 5 and grid.isfinite().all()


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (3, {}, r"features must lie in \[0, 3\), got 3"),
        (0, {"grid_resolution": 1}, "grid_resolution must be at least 2, got 1"),
        (0, {"percentiles": (0.9, 0.1)}, "percentiles must be two increasing shares"),
        (0, {"percentiles": (0.5, 0.50001), "grid_resolution": 5}, "must be further apart"),
        (2, {}, "all values of feature 2 are missing"),
        ([0, 1], {"grid": [[0.0]]}, "grid must have values for 2 features, got 1"),
        (0, {"response": "margin"}, "response must be 'prediction' or 'score', got 'margin'"),
        (0, {"sample_weight": [1.0]}, r"sample_weight must have shape \(20,\), got \(1,\)"),
    ],
)
def test_what_partial_dependence_refuses(features, options, message):
    x = torch.randn(20, 3)
    model = GradientBoostingRegressor(n_estimators=1).fit(x, torch.randn(20))
    x[:, 2] = float("nan")
    x[:15, 0] = 0.25
    with pytest.raises(ValueError, match=message):
        partial_dependence(model, x, features, **options)
    with pytest.raises(ValueError, match=r"not be empty, got \(0, 3\)"):
        partial_dependence(model, x[:0], 0)
