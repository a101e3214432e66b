"""Labels of several columns: losses column by column, serving, bad input."""

import pickle

import numpy as np
import pytest
import torch
from test_boosting_vectors import VECTORS, table

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor

STRATEGIES = pytest.mark.parametrize("strategy", [{}, VECTORS])


@pytest.mark.parametrize(
    ("loss", "alpha"),
    [
        ("squared_error", 0.9),
        ("absolute_error", 0.9),
        ("quantile", 0.3),
        ("huber", 0.7),
        ("poisson", 0.9),
        ("gamma", 0.9),
        ("tweedie", 1.4),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_tree_an_output_is_a_fit_of_each_column(loss, alpha, weighted):
    x, y = table(800, 3, missing=True)
    if loss in ("poisson", "gamma", "tweedie"):
        y = y.abs() + 0.1
    weight = torch.rand(800) + 0.5 if weighted else None
    options = {"n_estimators": 15, "loss": loss, "alpha": alpha}
    model = GradientBoostingRegressor(**options).fit(x, y, weight, eval_set=(x, y))
    assert model.arrays_["tree_output"].tolist() == [0, 1, 2] * 15
    found, losses = model.predict(x), []
    for k in range(3):
        one = GradientBoostingRegressor(**options).fit(x, y[:, k], weight, eval_set=(x, y[:, k]))
        assert model.base_score_[k] == one.base_score_[0]
        assert torch.allclose(found[:, k], one.predict(x), rtol=1e-4, atol=1e-4)
        losses.append(one.evals_result_[-1])
    mean = np.mean(losses)
    if loss == "squared_error":  # a root
        mean = np.sqrt(np.mean(np.square(losses)))
    assert model.evals_result_[-1] == pytest.approx(mean, rel=1e-4)


@STRATEGIES
def test_metrics_are_over_all_outputs(strategy):
    x, y = table(300, 3)
    weight = torch.rand(300)
    valid = table(200, 3)

    def median(labels, predictions):
        assert labels.shape == predictions.shape == (200, 3)
        return np.median(np.abs(labels - predictions))

    model = GradientBoostingRegressor(
        n_estimators=5, eval_metric=["rmse", "mae", median], **strategy
    )
    model.fit(x, y, eval_set=(*valid, weight[:200]))
    rest, w = (model.predict(valid[0]) - valid[1]).double(), weight[:200, None].double()
    history = {name: values[-1] for name, values in model.eval_history_[0].items()}
    assert history["mae"] == pytest.approx(((rest.abs() * w).sum() / w.sum() / 3).item())
    expected = ((rest**2 * w).sum() / w.sum() / 3).sqrt().item()
    assert history["rmse"] == pytest.approx(expected)
    assert history["median"] == pytest.approx(np.median(rest.abs().numpy()))


def test_monotone_constraints_hold_for_each_output():
    x, y = table(500, 2)
    model = GradientBoostingRegressor(monotonic_cst=[1, 0, 0, 0, 0, 0]).fit(x, y)
    line = x[:1].repeat(50, 1)
    line[:, 0] = torch.linspace(-3, 3, 50)
    assert (model.predict(line).diff(dim=0) >= 0).all()


@STRATEGIES
@pytest.mark.parametrize("depth", [4, 10])  # trees in whole levels, linked ones
def test_one_model_in_every_form(strategy, depth):
    x, y = table(700, 3, missing=True)
    model = GradientBoostingRegressor(n_estimators=12, max_depth=depth, **strategy).fit(x, y)
    expected = model.predict(x)
    assert expected.shape == (700, 3)
    module = model.to_module()
    assert torch.allclose(module(x), expected)
    assert torch.equal(torch.jit.script(module)(x), module(x))
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), module(x))
    assert torch.equal(module.to_ensemble(6).predict(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model)).predict(x), expected)
    shap = model.shap_values(x)
    assert shap.shape == (700, 3, 7)
    assert torch.allclose(shap.sum(2), expected, atol=1e-3)
    pairs = model.shap_interaction_values(x[:20])
    assert torch.allclose(pairs.sum(3), shap[:20], atol=1e-3)
    assert model.score(x, y) > 0.5


@STRATEGIES
def test_onnx(strategy):
    onnxruntime = pytest.importorskip("onnxruntime")
    x, y = table(400, 3, missing=True)
    model = GradientBoostingRegressor(n_estimators=8, **strategy).fit(x, y)
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    (found,) = session.run(["prediction"], {"X": x.numpy()})
    assert np.allclose(found, model.predict(x).numpy(), rtol=1e-5, atol=1e-4)


def test_linear_models_of_several_outputs():
    x = torch.randn(300, 4)
    y = x @ torch.randn(4, 2) + 1
    model = GradientBoostingRegressor(booster="gblinear", reg_lambda=0.0, learning_rate=0.5)
    model.fit(x, y)
    assert model.weight_.shape == (2, 4)
    assert (model.predict(x) - y).abs().max() < 0.01


def test_frames_arrays_and_columns():
    pandas = pytest.importorskip("pandas")
    x, y = table(200, 2)
    expected = GradientBoostingRegressor(n_estimators=3).fit(x, y).predict(x)
    model = GradientBoostingRegressor(n_estimators=3)
    frames = pandas.DataFrame(x.numpy()).add_prefix("f"), pandas.DataFrame(y.numpy())
    assert np.allclose(model.fit(*frames).predict(frames[0]), expected.numpy())
    assert np.allclose(model.fit(x.numpy(), y.numpy()).predict(x.numpy()), expected.numpy())
    from sklearn.exceptions import DataConversionWarning

    for column in (y[:, :1], y[:, :1].numpy()):
        given = x if isinstance(column, torch.Tensor) else x.numpy()
        with pytest.warns(DataConversionWarning):
            found = model.fit(given, column).predict(given)
        assert found.shape == (200,)


def test_bad_labels():
    x, y = table(60, 3)
    bad = y.clone()
    bad[17, 2] = float("nan")
    regressor = GradientBoostingRegressor(n_estimators=2)
    with pytest.raises((ValueError, RuntimeError), match="row 17, column 2 is nan"):
        regressor.fit(x, bad)
    with pytest.raises(ValueError, match="row 17, column 2 is nan"):
        regressor.fit(x.numpy(), bad.numpy())
    with pytest.raises(RuntimeError, match=r"y must have shape \(60, 3\), got \(59, 3\)"):
        regressor.fit(x, y[:59])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        regressor.fit(x.numpy(), y[:59].numpy())
    with pytest.raises(RuntimeError, match=r"evaluation set's y must have shape \(60, 3\)"):
        regressor.fit(x, y, eval_set=(x, y[:, :2]))
    with pytest.raises(RuntimeError, match="must not be negative; that of row 0, column 1 is -1"):
        labels = y.abs()
        labels[0, 1] = -1
        GradientBoostingRegressor(loss="poisson").fit(x, labels)
    with pytest.raises(RuntimeError, match="auc takes labels of one column, got 3"):
        GradientBoostingRegressor(eval_metric="auc").fit(x, y, eval_set=(x, y))
    with pytest.raises(RuntimeError, match="one value for each row"):
        GradientBoostingRegressor(loss=lambda scores, y: (scores - y) ** 2).fit(x, y)
    for given in (x, x.numpy()):
        labels = (y > 0).long() if given is x else (y > 0).numpy()
        with pytest.raises(ValueError, match="shape"):
            GradientBoostingClassifier().fit(given, labels)
