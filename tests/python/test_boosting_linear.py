"""Boosted linear models: steps by hand, what they converge to, threads, xgboost."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from tilewright.trees import (
    GradientBoostingClassifier,
    GradientBoostingRanker,
    GradientBoostingRegressor,
)


def linear(cls=GradientBoostingRegressor, **options):
    given = {"booster": "gblinear", "learning_rate": 0.5, "reg_lambda": 0.0} | options
    return cls(**given)


def table(rows=700, features=5):
    x = torch.randn(rows, features) * torch.arange(1, features + 1) + 1
    y = x[:, 0] - 0.5 * x[:, 1] + 0.25 * x[:, 2] + 3 + 0.1 * torch.randn(rows)
    return x, y


def test_a_round_by_hand():
    # Base 2; gradients 2 - y: 2, 0, -2. The bias stays. Of x: sum(g x) -6, sum(h x^2) 14.
    x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0.0, 2.0, 4.0])
    for l1, l2 in ((0.0, 0.0), (0.5, 2.0), (4.0, 0.0)):
        model = linear(n_estimators=1, reg_alpha=l1, reg_lambda=l2).fit(x, y)
        g = 2 * 1 + 0 * 2 - 2 * 3
        wanted = max(-(g + 3 * l1), 0) / (14 + 3 * l2)
        assert model.weight_.tolist() == [[pytest.approx(0.5 * wanted)]]
        assert model.bias_.tolist() == [0.0] and model.base_score_.tolist() == [2.0]
        assert model.predict(x).tolist() == pytest.approx([2 + 0.5 * wanted * v for v in (1, 2, 3)])


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.0, 0.7), (0.3, 0.0)])
@pytest.mark.parametrize("rows", [300, 40001])
def test_it_converges_to_the_least_loss(l1, l2, rows):
    x, y = table(rows)
    model = linear(n_estimators=150, learning_rate=1.0, reg_alpha=l1, reg_lambda=l2).fit(x, y)
    other = Lasso(alpha=l1, tol=1e-10) if l1 else Ridge(alpha=l2 * rows)
    other.fit(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(model.weight_[0], other.coef_, atol=1e-4)
    intercept = (model.bias_ + model.base_score_).item()
    assert intercept == pytest.approx(other.intercept_, abs=1e-3)


def test_weights_and_missing_values():
    x, y = table(200)
    weight = torch.randint(0, 3, (200,))
    rows = torch.arange(200).repeat_interleave(weight)
    options = {"n_estimators": 10, "reg_lambda": 0.1, "reg_alpha": 0.01}
    weighted = linear(**options).fit(x, y, sample_weight=weight)
    repeated = linear(**options).fit(x[rows], y[rows])
    torch.testing.assert_close(weighted.weight_, repeated.weight_, atol=1e-5, rtol=1e-5)
    x[::5, 1] = math.nan
    zeros = x.nan_to_num(0.0)
    model, filled = linear(**options).fit(x, y), linear(**options).fit(zeros, y)
    assert torch.equal(model.weight_, filled.weight_)
    assert torch.equal(model.predict(x), filled.predict(zeros))
    sparse = linear(**options).fit(zeros.to_sparse(), y)
    assert torch.equal(model.weight_, sparse.weight_)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes(classes):
    x, y = table(900)
    labels = np.digitize(y.numpy(), [3.0, 5.0][: classes - 1])
    model = linear(
        GradientBoostingClassifier, n_estimators=200, early_stopping_rounds=5, eval_metric="error"
    )
    model.fit(x[:600].numpy(), labels[:600], eval_set=(x[600:].numpy(), labels[600:]))
    errors = model.predict(x[600:].numpy()) != labels[600:]
    assert errors.mean() == pytest.approx(min(model.evals_result_), abs=0.011)
    assert errors.mean() < 0.12
    assert model.weight_.shape == (1 if classes == 2 else 3, 5)


def test_other_losses_and_ranking():
    x, y = table(500)
    poisson = linear(loss="poisson", n_estimators=60).fit(x / 4, (y / 4).exp())
    assert (poisson.predict(x / 4).log() - y / 4).square().mean() < 0.05
    own = linear(loss=lambda s, t: (s - t).square() / 2, n_estimators=20).fit(x, y)
    plain = linear(n_estimators=20).fit(x, y)
    torch.testing.assert_close(own.weight_, plain.weight_, atol=1e-3, rtol=1e-3)
    ranker = linear(GradientBoostingRanker, n_estimators=20)
    relevance = torch.bucketize(y, torch.tensor([2.0, 4.0, 6.0]))
    ranker.fit(x, relevance, group=[25] * 20)
    assert ranker.score(x, relevance, group=[25] * 20) > 0.97


def test_the_number_of_threads_does_not_show():
    x, y = table(70001)
    weights, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        weights.append(linear(n_estimators=3).fit(x, y).weight_)
    torch.set_num_threads(before)
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_serving():
    x, y = table(300)
    x[::7, 2] = math.nan
    model = linear(GradientBoostingClassifier, n_estimators=5).fit(x, (y > 3).long())
    expected = model.predict_proba(x)[:, 1:]
    assert torch.equal(torch.jit.script(model.to_module())(x), expected)
    exported = torch.export.export(model.to_module(), (x,)).module()
    torch.testing.assert_close(exported(x), expected)
    trees = model.set_params(booster="gbtree").fit(x, (y > 3).long())
    assert not hasattr(trees, "weight_") and trees.predict_proba(x).shape == (300, 2)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_files(tmp_path, classes):
    x, y = table(200)
    cls = GradientBoostingClassifier if classes > 1 else GradientBoostingRegressor
    labels = torch.bucketize(y, torch.tensor([3.0, 5.0][: classes - 1])) if classes > 1 else y
    model = linear(cls, n_estimators=6).fit(x, labels)
    model.save_model(tmp_path / "m.json")
    again = cls().load_model(tmp_path / "m.json")
    assert torch.equal(again.weight_, model.weight_) and again.booster == "gblinear"
    assert again.n_iter_ == 6
    a, b = (m.to_module()(x) for m in (again, model))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    broken = json.loads((tmp_path / "m.json").read_text())
    broken["learner"]["gradient_booster"]["model"]["weights"].pop()
    (tmp_path / "m.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="weights must be a list of"):
        cls().load_model(tmp_path / "m.json")


def test_xgboost_steps_the_same(tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, y = table(500)
    x[::6, 3] = math.nan
    shared = {"learning_rate": 0.5, "reg_lambda": 0.05, "reg_alpha": 0.01}
    for cls, labels, objective in (
        (GradientBoostingRegressor, y, {"objective": "reg:squarederror"}),
        (GradientBoostingClassifier, (y > 3).long(), {"objective": "binary:logistic"}),
        (
            GradientBoostingClassifier,
            torch.bucketize(y, torch.tensor([2.0, 4.0])),
            {"objective": "multi:softprob", "num_class": 3},
        ),
    ):
        model = cls(booster="gblinear", n_estimators=7, **shared).fit(x, labels)
        ours = model.predict(x) if labels is y else model.predict_proba(x)
        ours = ours[:, 1] if objective["objective"] == "binary:logistic" else ours
        options = {"booster": "gblinear", "updater": "coord_descent", **objective, **shared}
        data = xgboost.DMatrix(x.numpy(), labels.numpy())
        booster = xgboost.train(options, data, 7)
        theirs = booster.predict(data)
        if len(objective) == 1:  # xgboost 3.2 forgets the base scores of classes
            np.testing.assert_allclose(theirs, ours, atol=1e-4)
        model.save_model(tmp_path / "m.json")
        saved = xgboost.Booster(model_file=tmp_path / "m.json").predict(data)
        np.testing.assert_allclose(saved, ours, atol=1e-5)
        booster.save_model(tmp_path / "x.json")
        loaded = cls().load_model(tmp_path / "x.json")
        again = loaded.predict(x) if labels is y else loaded.predict_proba(x)
        again = again[:, 1] if objective["objective"] == "binary:logistic" else again
        np.testing.assert_allclose(theirs, again, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "absolute_error"}, "cannot be boosted on absolute errors or quantiles"),
        ({"reg_alpha": -1.0}, "must not be negative"),
        ({"warm_start": True}, "booster='gblinear' does not go on from a model"),
    ],
)
def test_bad_options_are_named(options, message):
    x, y = table(20)
    model = GradientBoostingRegressor(n_estimators=1).fit(x, y)
    with pytest.raises((ValueError, RuntimeError), match=message):
        model.set_params(booster="gblinear", n_estimators=2, **options).fit(x, y)
    assert model.predict(x).shape == (20,)


def test_predicting_other_features_is_an_error():
    x, y = table(20)
    model = linear(n_estimators=1).fit(x, y)
    with pytest.raises(ValueError, match="X has 4 features, but GradientBoostingRegressor"):
        model.predict(x[:, :4])


@parametrize_with_checks(
    [linear(), linear(GradientBoostingClassifier), linear(GradientBoostingRanker)]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)
