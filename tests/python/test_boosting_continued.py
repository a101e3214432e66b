"""Fits that go on: by warm_start, from an estimator, from a file, all as one fit of all rounds."""

import numpy as np
import pytest
import torch
from reference_trees import table

from tilewright._C import Booster
from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor

OPTIONS = [
    {},
    {"subsample": 0.6, "colsample_bynode": 0.5},
    {"sampling_method": "goss", "learning_rate": 0.4},
]


def assert_same_arrays(a, b):
    assert torch.equal(a.base_score_, b.base_score_)
    for name, array in a.arrays_.items():
        assert torch.equal(array, b.arrays_[name]), name


@pytest.mark.parametrize("rows", [701, 40000])
@pytest.mark.parametrize("options", OPTIONS)
def test_two_steps_are_one(rows, options):
    x, y = table(rows, missing=True)
    once = GradientBoostingRegressor(n_estimators=9, max_depth=4, random_state=5, **options)
    once.fit(x, y)
    steps = GradientBoostingRegressor(
        n_estimators=4, max_depth=4, random_state=5, warm_start=True, **options
    ).fit(x, y)
    assert steps.n_iter_ == 4
    steps.set_params(n_estimators=9).fit(x, y)
    assert steps.n_iter_ == 9
    assert_same_arrays(once, steps)
    first = GradientBoostingRegressor(n_estimators=4, max_depth=4, random_state=5, **options)
    second = GradientBoostingRegressor(n_estimators=5, max_depth=4, random_state=5, **options)
    second.fit(x, y, init_model=first.fit(x, y))
    assert first.n_iter_ == 4
    assert_same_arrays(once, second)


@pytest.mark.parametrize("loss", ["absolute_error", "poisson"])
def test_other_losses_go_on(loss):
    x, y = table(500)
    once = GradientBoostingRegressor(loss=loss, n_estimators=6).fit(x, y.abs())
    steps = GradientBoostingRegressor(loss=loss, n_estimators=3, warm_start=True).fit(x, y.abs())
    assert_same_arrays(once, steps.set_params(n_estimators=6).fit(x, y.abs()))


@pytest.mark.parametrize("count", [2, 3])
def test_classes_go_on_from_a_file(tmp_path, count):
    x, y = table(600)
    names = np.array(["a", "b", "c"])[np.digitize(y.numpy(), [-1.0, 1.0])]
    if count == 2:
        names[names == "c"] = "a"
    once = GradientBoostingClassifier(n_estimators=7).fit(x.numpy(), names)
    first = GradientBoostingClassifier(n_estimators=3).fit(x.numpy(), names)
    first.save_model(tmp_path / "m.json")
    second = GradientBoostingClassifier(n_estimators=4)
    second.fit(x.numpy(), names, init_model=tmp_path / "m.json")
    assert second.n_iter_ == 7 and second.classes_.tolist() == once.classes_.tolist()
    # A file holds the base score as a probability, so its last bits may differ.
    np.testing.assert_allclose(
        second.predict_proba(x.numpy()), once.predict_proba(x.numpy()), atol=1e-4
    )
    loaded = GradientBoostingClassifier(n_estimators=7, warm_start=True)
    loaded.load_model(tmp_path / "m.json").fit(x.numpy(), names)
    assert_same_arrays(loaded, second)
    # Rows of some of the classes only.
    some = names != "b"
    second.set_params(warm_start=True, n_estimators=8).fit(x.numpy()[some], names[some])
    assert second.predict_proba(x.numpy()).shape == (600, count)
    names[5] = "d"
    with pytest.raises(ValueError, match=r"y of row 5 is .*'d'.*, which is not in classes_"):
        second.set_params(n_estimators=9).fit(x.numpy(), names)


def test_history_goes_on_and_stops_early():
    x, y = table(800)
    once = GradientBoostingRegressor(n_estimators=10)
    once.fit(x[:400], y[:400], eval_set=(x[400:], y[400:]))
    steps = GradientBoostingRegressor(n_estimators=6, warm_start=True)
    steps.fit(x[:400], y[:400], eval_set=(x[400:], y[400:]))
    steps.set_params(n_estimators=10).fit(x[:400], y[:400], eval_set=(x[400:], y[400:]))
    assert steps.evals_result_ == once.evals_result_
    steps.set_params(n_estimators=500, early_stopping_rounds=3, learning_rate=0.5)
    steps.fit(x[:400], y[:400], eval_set=(x[400:], y[400:]))
    assert steps.n_iter_ == 11 + int(np.argmin(steps.evals_result_[10:])) < 500
    error = (steps.predict(x[400:]) - y[400:]).square().mean().sqrt().item()
    assert error == pytest.approx(min(steps.evals_result_[10:]), rel=1e-4)


def test_trees_with_categories_stay():
    """Of a model that another library trained."""
    arrays = {
        "feature": torch.tensor([1, 0, 0], dtype=torch.int32),
        "threshold": torch.zeros(3),
        "left": torch.tensor([1, -1, -1], dtype=torch.int32),
        "right": torch.tensor([2, -1, -1], dtype=torch.int32),
        "default_left": torch.tensor([True, False, False]),
        "value": torch.tensor([0.0, -1.0, 1.0]),
        "tree_ptr": torch.tensor([0, 3]),
        "tree_output": torch.tensor([0], dtype=torch.int32),
        "category_ptr": torch.tensor([0, 2, 2, 2]),
        "categories": torch.tensor([1, 4], dtype=torch.int32),
    }
    x = torch.stack([torch.randn(200), torch.randint(0, 6, (200,)).float()], 1)
    known = torch.where((x[:, 1] == 1) | (x[:, 1] == 4), 1.0, -1.0) + 0.5
    booster = Booster({"n_estimators": 3, "learning_rate": 1.0, "min_child_weight": 0.0})
    booster.fit(x, known, start=(arrays, torch.tensor([0.5])))
    # Nothing is left to learn: the new trees answer 0.
    assert torch.equal(booster.scores(x)[:, 0], known)
    assert booster.arrays()["category_ptr"].tolist()[:4] == [0, 2, 2, 2]
    booster.fit(x, known + x[:, 0], start=(booster.arrays(), booster.base_score))
    assert (booster.scores(x)[:, 0] - known - x[:, 0]).square().mean() < 0.1
    arrays["right"][0] = 1
    with pytest.raises(RuntimeError, match="tree 0, node"):
        booster.fit(x, known, start=(arrays, torch.tensor([0.5])))


def test_what_cannot_go_on(tmp_path):
    x, y = table(100)
    fitted = GradientBoostingRegressor(n_estimators=3).fit(x, y)
    with pytest.raises(ValueError, match="n_estimators=2 must be at least the 3 rounds"):
        fitted.set_params(warm_start=True, n_estimators=2).fit(x, y)
    before = fitted.arrays_
    assert fitted.set_params(n_estimators=3).fit(x, y).arrays_ is before
    with pytest.raises(ValueError, match="X has 4 features, but GradientBoostingRegressor is"):
        fitted.set_params(n_estimators=4).fit(x[:, :4], y)
    with pytest.raises(ValueError, match="X has 4 features, but init_model was fitted on 5"):
        GradientBoostingRegressor().fit(x[:, :4], y, init_model=fitted)
    with pytest.raises(ValueError, match=r"has the loss 'squared_error' .*, this one 'hub"):
        GradientBoostingRegressor(loss="huber").fit(x, y, init_model=fitted)
    with pytest.raises(ValueError, match="init_model must be a GradientBoostingClassifier or"):
        GradientBoostingClassifier().fit(x, (y > 0).long(), init_model=fitted)
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(ValueError, match="not a model of XGBoost"):
        GradientBoostingRegressor().fit(x, y, init_model=str(tmp_path / "m.json"))
    booster = Booster({"objective": "softmax", "num_class": 3})
    with pytest.raises(RuntimeError, match="must have 3 outputs, got 1"):
        booster.fit(x, y > 0, start=(fitted.arrays_, fitted.base_score_))
    vectors = fitted.arrays_ | {"value": fitted.arrays_["value"][:, None].repeat(1, 2)}
    with pytest.raises(RuntimeError, match="value must have shape"):
        Booster({}).fit(x, y, start=(vectors, fitted.base_score_))
