"""GOSS and DART: rows and trees that rounds leave out, by definition."""

import numpy as np
import pytest
import torch
from reference_trees import table

from tilewright._C import Booster
from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


def covers(arrays):
    """The weight of rows in each tree's root."""
    return arrays["cover"][arrays["tree_ptr"][:-1]]


@pytest.mark.parametrize("rows", [3001, 40001])
def test_goss_keeps_large_gradients(rows):
    # Constant x: a tree is one leaf, whose cover is the sum of hessians, 1 a row.
    y = torch.randn(rows) ** 3
    model = GradientBoostingRegressor(
        sampling_method="goss", top_rate=0.3, other_rate=0.2, n_estimators=1, learning_rate=1.5,
        reg_lambda=0.0, random_state=7,
    )  # fmt: skip
    model.fit(torch.zeros(rows, 1), y)
    top = int(rows * 0.3)
    order = (y.double() - y.double().mean()).abs().argsort(descending=True)
    # The others count 0.7 / 0.2 times each.
    others = (model.arrays_["cover"][0].double() - top) / 3.5
    assert others.item() == pytest.approx(round(others.item()), abs=1e-2)
    assert others.item() == pytest.approx(0.2 * rows, rel=0.1)
    # Amplified, they stand for all: the step is nearly that of all rows, 0.
    rest = y.double() - y.double().mean()
    scatter = rest[order[top:]].std() * 0.7 / (0.2 * rows) ** 0.5
    step = model.arrays_["value"][0].item() / 1.5
    assert abs(step) < 4 * scatter.item()
    assert step != 0


def test_goss_takes_so_many_of_equal_gradients():
    y = (torch.arange(1000) % 2).float() * 2 - 1
    model = GradientBoostingRegressor(
        sampling_method="goss", top_rate=0.3, other_rate=1e-9, n_estimators=1, learning_rate=1.5
    ).fit(torch.zeros(1000, 1), y)
    # None of the others: the first 300 rows, of which as many are 1 as -1.
    assert model.arrays_["cover"].tolist() == [300] and model.arrays_["value"].item() == 0


def test_goss_begins_after_the_first_rounds():
    x, y = table(2000)
    plain, goss = (
        GradientBoostingRegressor(
            sampling_method=method,
            top_rate=0.1,
            other_rate=0.1,
            n_estimators=8,
            learning_rate=0.2,
        )
        .fit(x, y)
        .arrays_
        for method in ("uniform", "goss")
    )
    begun = int(goss["tree_ptr"][5])
    assert plain["tree_ptr"][:6].equal(goss["tree_ptr"][:6])
    assert plain["threshold"][:begun].equal(goss["threshold"][:begun])
    assert plain["value"][:begun].equal(goss["value"][:begun])
    found = covers(goss)
    assert (found[:5] == 2000).all()
    # 200 rows count once, each of about 200 others, whose number is drawn, 9 times.
    assert not (found[5:] == 2000).all()
    assert found[5:].mean().item() == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize("classes", [2, 4])
def test_goss_learns_nearly_as_much(classes):
    x, y = table(12000)
    edges = np.quantile(y.numpy(), np.arange(1, classes) / classes)
    labels = np.digitize(y.numpy(), edges)
    errors = []
    for method in ("uniform", "goss"):
        model = GradientBoostingClassifier(
            sampling_method=method, n_estimators=30, learning_rate=0.3, max_depth=4
        ).fit(x[:8000].numpy(), labels[:8000])
        errors.append((model.predict(x[8000:].numpy()) != labels[8000:]).mean())
    assert errors[1] < errors[0] + 0.02


@pytest.mark.parametrize(
    "options",
    [
        {"sampling_method": "goss", "learning_rate": 0.9},
        {"booster": "dart", "rate_drop": 0.4, "one_drop": True},
    ],
)
@pytest.mark.parametrize("rows", [3000, 70000])
def test_the_number_of_threads_does_not_show(rows, options):
    x, y = table(rows, 9, missing=True)
    models, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        model = GradientBoostingRegressor(n_estimators=5, max_depth=4, random_state=3, **options)
        models.append(model.fit(x, y))
    torch.set_num_threads(before)
    for model in models[1:]:
        for name, array in models[0].arrays_.items():
            assert torch.equal(array, model.arrays_[name]), name
    other = GradientBoostingRegressor(n_estimators=5, max_depth=4, random_state=4, **options)
    assert not torch.equal(other.fit(x, y).predict(x), models[0].predict(x))


def leaf_fit(y, rounds, rate, forest):
    """DART with single leaves, without regularisation, that drops all trees in every round: what
    each tree answers in the end."""
    values = []
    for _ in range(rounds):
        # Gradients are those of the base score alone.
        new = rate * (y.mean() - 0.0)
        k = len(values)
        if k:
            factor = 1 / (1 + rate) if forest else k / (k + rate)
            values = [v * factor for v in values]
            new *= 1 / (1 + rate) if forest else 1 / (k + rate)
        values.append(new)
    return values


@pytest.mark.parametrize("normalize_type", ["tree", "forest"])
def test_dart_by_definition(normalize_type):
    y = torch.randn(50).abs() + 1
    booster = Booster(
        {
            "n_estimators": 6,
            "learning_rate": 0.3,
            "reg_lambda": 0.0,
            "dart": True,
            "rate_drop": 1.0,
            "drop_forest": normalize_type == "forest",
        }
    )
    none = {
        "feature": torch.zeros(0, dtype=torch.int32),
        "threshold": torch.zeros(0),
        "left": torch.zeros(0, dtype=torch.int32),
        "right": torch.zeros(0, dtype=torch.int32),
        "default_left": torch.zeros(0, dtype=torch.bool),
        "value": torch.zeros(0),
        "tree_ptr": torch.zeros(1, dtype=torch.int64),
        "tree_output": torch.zeros(0, dtype=torch.int32),
    }
    x = torch.zeros(50, 1)
    booster.fit(
        x, y, start=(none, torch.zeros(1)), evaluation=[(x, y, None, None)], metrics=["rmse"]
    )
    expected = leaf_fit(y.double(), 6, 0.3, normalize_type == "forest")
    assert booster.arrays()["value"].tolist() == pytest.approx([v.item() for v in expected])
    # What was measured on the way is the model of then; the last one is this.
    rest = (booster.scores(x)[:, 0] - y).square().mean().sqrt()
    assert booster.history[0][0][-1] == pytest.approx(rest.item(), rel=1e-5)


def test_dart_options():
    x, y = table(1000)
    options = {"n_estimators": 12, "max_depth": 3, "random_state": 0}
    plain = GradientBoostingRegressor(**options).fit(x, y)

    def dart(**given):
        return GradientBoostingRegressor(booster="dart", **options, **given).fit(x, y)

    same = (dart(), dart(rate_drop=0.9, skip_drop=1.0), dart(one_drop=True, skip_drop=1.0))
    for model in same:
        assert torch.equal(model.arrays_["value"], plain.arrays_["value"])
    half, weighted = dart(rate_drop=0.5), dart(rate_drop=0.5, sample_type="weighted")
    one = (dart(one_drop=True), dart(one_drop=True, sample_type="weighted"))
    for model in (half, weighted, *one):
        assert not torch.equal(model.arrays_["value"], plain.arrays_["value"])
        assert (model.predict(x) - y).square().mean() < 0.5 * y.var()
    assert not torch.equal(half.predict(x), weighted.predict(x))


def test_dart_stops_early_with_the_trees_of_then():
    x, y = table(600)
    model = GradientBoostingRegressor(
        booster="dart", rate_drop=0.3, n_estimators=200, learning_rate=0.6, random_state=1,
        early_stopping_rounds=4,
    )  # fmt: skip
    model.fit(x[:300], y[:300], eval_set=(x[300:], y[300:]))
    assert model.n_iter_ == int(np.argmin(model.evals_result_)) + 1 < 196
    error = (model.predict(x[300:]) - y[300:]).square().mean().sqrt().item()
    assert error == pytest.approx(min(model.evals_result_), rel=1e-4)


@pytest.mark.parametrize("rate_drop", [0.0, 0.5])
def test_dart_goes_on(rate_drop):
    x, y = table(400)
    options = {"booster": "dart", "rate_drop": rate_drop, "max_depth": 2, "random_state": 0}
    once = GradientBoostingRegressor(n_estimators=8, **options).fit(x, y)
    steps = GradientBoostingRegressor(n_estimators=5, warm_start=True, **options).fit(x, y)
    steps.set_params(n_estimators=8).fit(x, y)
    torch.testing.assert_close(steps.predict(x), once.predict(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("normalize_type", ["tree", "forest"])
@pytest.mark.parametrize("classes", [0, 3])
def test_dart_is_xgboosts(tmp_path, normalize_type, classes):
    """Where all trees are dropped in every round, nothing is left to chance."""
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, y = table(2000)
    x = x.round(decimals=1)  # few values: the same cuts
    x, y = x.numpy(), y.numpy()
    shared = {"max_depth": 3, "learning_rate": 0.3}
    given = {"booster": "dart", "rate_drop": 1.0, "normalize_type": normalize_type}
    if classes:
        y = np.digitize(y, [-1.0, 1.0])
        model = GradientBoostingClassifier(n_estimators=6, **shared, **given).fit(x, y)
        ours = model.predict_proba(x)
        objective = {"objective": "multi:softprob", "num_class": 3}
    else:
        model = GradientBoostingRegressor(n_estimators=6, **shared, **given).fit(x, y)
        ours = model.predict(x)
        objective = {"objective": "reg:squarederror"}
    booster = xgboost.train(shared | given | objective, xgboost.DMatrix(x, y), 6)
    np.testing.assert_allclose(booster.predict(xgboost.DMatrix(x)), ours, atol=2e-3)
    model.save_model(tmp_path / "m.json")
    saved = xgboost.Booster(model_file=tmp_path / "m.json").predict(xgboost.DMatrix(x))
    np.testing.assert_allclose(saved, ours, atol=1e-6 * np.abs(ours).max())
    booster.save_model(tmp_path / "x.json")
    again = type(model)().load_model(tmp_path / "x.json")
    again = again.predict_proba(x) if classes else again.predict(x)
    theirs = booster.predict(xgboost.DMatrix(x))
    np.testing.assert_allclose(again, theirs, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_method": "top"}, "sampling_method must be one of .* got 'top'"),
        ({"sampling_method": "goss", "top_rate": 1.0}, "top_rate must not be negative, .* got 1"),
        ({"sampling_method": "goss", "other_rate": 0.0}, "other_rate positive .* 0.2 and 0"),
        ({"sampling_method": "goss", "subsample": 0.5}, "subsample must be 1, got 0.5"),
        ({"booster": "gbm"}, "booster must be one of .* got 'gbm'"),
        ({"booster": "dart", "rate_drop": 1.5}, r"must lie in \[0, 1\], got 1.5"),
        ({"booster": "dart", "skip_drop": -0.5}, r"must lie in \[0, 1\], got 0 and -0.5"),
        ({"normalize_type": "sum"}, "normalize_type must be one of"),
        ({"sample_type": "none"}, "sample_type must be one of"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        GradientBoostingRegressor(**options).fit(torch.randn(20, 3), torch.randn(20))
