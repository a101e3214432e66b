"""Boosting on columns of categories: splits by definition, what is refused, files, exports."""

import itertools
import json

import numpy as np
import pytest
import torch

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


def table(rows=3000, categories=12, seed=0, missing=0.1):
    """A column of categories with a level each, one of numbers, one of few categories."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, categories, rows).astype(float)
    few = rng.integers(0, 3, rows).astype(float)
    number = rng.standard_normal(rows)
    level = rng.standard_normal(categories)
    y = level[kind.astype(int)] * 3 + number + 2 * (few == 1) + 0.1 * rng.standard_normal(rows)
    kind[rng.random(rows) < missing] = np.nan
    return np.stack([kind, number, few], 1), y


def best_split_by_definition(kind, gradient, reg_lambda=1.0):
    """The gain of the best division of categories in two, with missing values on either side."""
    values = np.unique(kind[~np.isnan(kind)])
    missing = np.isnan(kind)

    def score(rows):
        return gradient[rows].sum() ** 2 / (rows.sum() + reg_lambda)

    parent = score(np.ones_like(missing))
    best = -np.inf
    for size in range(1, len(values)):
        for chosen in itertools.combinations(values, size):
            right = np.isin(kind, chosen)
            for side in (right, right | missing):
                if side.all() or not side.any():
                    continue
                best = max(best, score(side) + score(~side) - parent)
    return best


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_one_split_is_the_best_of_all_divisions(missing):
    x, y = table(400, 7, missing=missing)
    x = x[:, :1]
    model = GradientBoostingRegressor(
        n_estimators=1, max_depth=1, learning_rate=1.0, categorical_features=[0]
    ).fit(x, y)
    gradient = float(model.base_score_[0]) - y
    expected = best_split_by_definition(x[:, 0], gradient)
    assert model.arrays_["gain"][0].item() == pytest.approx(expected, rel=1e-4)
    # Both leaves answer with their rows' shrunken mean.
    found = model.predict(x)
    for value in np.unique(found):
        rows = found == value
        answer = -gradient[rows].sum() / (rows.sum() + 1)
        assert value - float(model.base_score_[0]) == pytest.approx(answer, abs=1e-4)


def test_few_categories_are_split_one_against_all_others():
    x, y = table(600)
    x = x[:, 2:]
    model = GradientBoostingRegressor(n_estimators=1, max_depth=1, categorical_features=[0])
    model.fit(x, y)
    assert model.arrays_["categories"].tolist() == [1]
    many = model.set_params(max_cat_to_onehot=1).fit(x, y)
    assert sorted(many.arrays_["categories"].tolist()) in ([1], [0, 2])


@pytest.mark.parametrize("rows", [3000, 40_000])
def test_categories_beat_their_numbers_and_threads_do_not_show(rows):
    x, y = table(rows, 60)
    options = {"n_estimators": 10, "max_depth": 3, "random_state": 0}
    plain = GradientBoostingRegressor(**options).fit(x, y)
    model = GradientBoostingRegressor(**options, categorical_features=[0, 2]).fit(x, y)
    errors = [np.sqrt(np.mean((m.predict(x) - y) ** 2)) for m in (plain, model)]
    assert errors[1] < 0.8 * errors[0]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        other = GradientBoostingRegressor(**options, categorical_features=[0, 2]).fit(x, y)
    finally:
        torch.set_num_threads(threads)
    for name, array in model.arrays_.items():
        assert torch.equal(array, other.arrays_[name]), name


def test_sampled_rows_and_wide_codes():
    x, y = table(3000, 400)
    options = {"n_estimators": 5, "max_depth": 4, "random_state": 0, "max_bin": 1000}
    model = GradientBoostingRegressor(
        **options, subsample=0.5, categorical_features=[0], grow_policy="lossguide"
    ).fit(x, y)
    largest = model.arrays_["category_ptr"].diff().max()
    assert largest > 0
    # Scores of the training rows are those of prediction: leaves found by codes and by values.
    history = model.set_params(eval_metric="rmse").fit(x, y, eval_set=[(x, y)]).evals_result_
    assert history[-1] == pytest.approx(np.sqrt(np.mean((model.predict(x) - y) ** 2)), rel=1e-5)


def test_scripted_exported_and_by_default_to_the_left():
    x, y = table(1000)
    model = GradientBoostingRegressor(n_estimators=4, categorical_features=[True, False, True])
    model.fit(x, y)
    tensor = torch.from_numpy(x[:50])
    module = model.to_module()
    expected = model.predict(tensor)
    assert torch.equal(torch.jit.script(module)(tensor)[:, 0], expected)
    assert torch.equal(torch.export.export(module, (tensor,)).module()(tensor)[:, 0], expected)


def test_files_of_xgboost_both_ways(tmp_path):
    x, y = table(2000)
    model = GradientBoostingRegressor(n_estimators=6, categorical_features=[0, 2]).fit(x, y)
    path = tmp_path / "m.json"
    model.save_model(path)
    assert json.loads(path.read_text())["learner"]["feature_types"] == ["c", "q", "c"]
    again = GradientBoostingRegressor().load_model(path)
    assert np.array_equal(again.predict(x), model.predict(x))
    xgboost = pytest.importorskip("xgboost")
    types = ["c", "q", "c"]
    data = xgboost.DMatrix(x, feature_types=types, enable_categorical=True)
    theirs = xgboost.Booster(model_file=str(path)).predict(data)
    assert np.abs(theirs - model.predict(x)).max() <= 1e-6 * np.abs(theirs).max()
    labelled = xgboost.DMatrix(x, y, feature_types=types, enable_categorical=True)
    trained = xgboost.train({"max_depth": 4, "max_cat_to_onehot": 4}, labelled, 8)
    trained.save_model(tmp_path / "x.json")
    found = GradientBoostingRegressor().load_model(tmp_path / "x.json").predict(x)
    assert np.abs(trained.predict(data) - found).max() <= 1e-6 * np.abs(found).max()
    # Trained alike, they are alike.
    ours = GradientBoostingRegressor(
        n_estimators=8, max_depth=4, learning_rate=0.3, categorical_features=[0, 2]
    ).fit(x, y)
    errors = [np.sqrt(np.mean((p - y) ** 2)) for p in (ours.predict(x), trained.predict(data))]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def test_a_data_frame_brings_its_categories():
    pandas = pytest.importorskip("pandas")
    x, y = table(800)
    names = np.array([f"kind {i}" for i in range(12)])
    kind = [None if np.isnan(v) else names[int(v)] for v in x[:, 0]]
    frame = pandas.DataFrame({"kind": pandas.Categorical(kind), "number": x[:, 1]})
    model = GradientBoostingRegressor(n_estimators=5, categorical_features="from_dtype")
    model.fit(frame, y)
    assert model.is_categorical_.tolist() == [True, False]
    by_number = GradientBoostingRegressor(n_estimators=5, categorical_features=["kind"])
    codes = frame.assign(kind=frame["kind"].cat.codes.replace(-1, np.nan).astype(float))
    assert np.array_equal(model.predict(frame), by_number.fit(codes, y).predict(codes))
    # Other codes for the same names are the same rows.
    turned = frame.assign(kind=pandas.Categorical(kind, categories=names[::-1]))
    assert np.array_equal(model.predict(turned), model.predict(frame))
    unknown = frame.assign(kind=pandas.Categorical(["other"] * len(frame)))
    with pytest.raises(ValueError, match="column 'kind': 'other' in row 0 is no category that fit"):
        model.predict(unknown)
    with pytest.raises(ValueError, match="say categorical_features='from_dtype'"):
        GradientBoostingRegressor().fit(frame, y)


def test_bad_categories_are_errors():
    x, y = table(200)
    model = GradientBoostingRegressor(n_estimators=2, categorical_features=[0])
    for value in (-1.0, 1.5, 255.0):
        bad = x.copy()
        bad[7, 0] = value
        with pytest.raises(RuntimeError, match=f"column 0 holds categories.*row 7 is {value:g}"):
            model.fit(bad, y)
    model.fit(x, y)
    bad = x.copy()
    bad[5, 0] = 12
    with pytest.raises(ValueError, match=r"column 0 holds categories.*0 to 11.*row 5 is 12"):
        model.predict(bad)
    with pytest.raises(RuntimeError, match="column 0 holds categories, those of training"):
        model.fit(x, y, eval_set=[(bad, y)])
    for wanted, message in [
        ([3], "positions from 0 to 2, got \\[3\\]"),
        ([True], "mask must have shape \\(3,\\)"),
        (["a"], "names 'a', which X does not have"),
        ("all", "'from_dtype', a mask, or a list of columns, got 'all'"),
    ]:
        with pytest.raises(ValueError, match=message):
            GradientBoostingRegressor(categorical_features=wanted).fit(x, y)
    with pytest.raises(RuntimeError, match="column 0 holds categories: its answers cannot be mono"):
        GradientBoostingRegressor(categorical_features=[0], monotonic_cst=[1, 0, 0]).fit(x, y)


def test_classes_from_categories():
    x, y = table(1500)
    labels = np.digitize(y, [-1, 2])
    model = GradientBoostingClassifier(n_estimators=10, categorical_features=[0, 2]).fit(x, labels)
    assert model.score(x, labels) > 0.9
