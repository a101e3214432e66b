"""SHAP values of the estimators: they add up to scores, and are xgboost's."""

import numpy as np
import pytest
import torch
from reference_trees import table
from sklearn.exceptions import NotFittedError

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


def test_values_add_up_to_raw_scores():
    x, y = table(300, missing=True)
    model = GradientBoostingRegressor(n_estimators=20, loss="huber", alpha=1.0).fit(x, y)
    values = model.shap_values(x)
    assert values.shape == (300, 6) and values.dtype == torch.float32
    torch.testing.assert_close(values.sum(1), model.predict(x), rtol=0, atol=2e-6 * y.abs().max())
    assert values[:, 4].abs().mean() < 0.2 * values[:, 0].abs().mean()  # y does not depend on it
    array = model.shap_values(x.numpy())
    assert array.dtype == np.float64 and np.array_equal(array, values.double().numpy())


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_classes(classes):
    x, y = table(300)
    labels = torch.bucketize(
        y, torch.linspace(-1, 1, classes - 1) if classes > 2 else y.mean()[None]
    )
    model = GradientBoostingClassifier(n_estimators=10).fit(x, labels)
    values = model.shap_values(x)
    assert values.shape == ((300, 6) if classes == 2 else (300, 3, 6))
    scores = model.to_module().scores(x)
    torch.testing.assert_close(values.sum(-1), scores.squeeze(1), rtol=0, atol=1e-5)
    assert values[..., -1].reshape(300, -1).std(0).max() < 1e-6


def test_interactions_add_up_to_values():
    x, _ = table(1000)
    model = GradientBoostingRegressor(n_estimators=20).fit(x, x[:, 0] + 3 * x[:, 2] * x[:, 3])
    pairs = model.shap_interaction_values(x[:100])
    assert pairs.shape == (100, 6, 6)
    torch.testing.assert_close(pairs.sum(2), model.shap_values(x[:100]), rtol=0, atol=1e-5)
    assert pairs[:, 2, 3].abs().mean() > 3 * pairs[:, 0, 1].abs().mean()


def test_what_cannot_be_explained():
    with pytest.raises(NotFittedError):
        GradientBoostingRegressor().shap_values(torch.zeros(2, 2))
    x, y = table(50)
    model = GradientBoostingRegressor(n_estimators=2).fit(x, y)
    with pytest.raises(ValueError, match="X has 3 features"):
        model.shap_values(x[:, :3])
    model.arrays_.pop("cover")
    with pytest.raises(ValueError, match="need the cover of each node"):
        model.shap_values(x)


def test_xgboost_gives_the_same_contributions(tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, y = table(1000, missing=True)
    labels = torch.bucketize(y, torch.tensor([-1.0, 1.0]))
    fitted = [
        GradientBoostingRegressor(n_estimators=20).fit(x, y),
        GradientBoostingRegressor(n_estimators=5, loss="poisson").fit(x, y.abs()),
        GradientBoostingClassifier(n_estimators=10).fit(x, labels > 0),
        GradientBoostingClassifier(n_estimators=5).fit(x, labels),
    ]
    for model in fitted:
        model.save_model(tmp_path / "m.json")
        theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(
            xgboost.DMatrix(x.numpy()), pred_contribs=True
        )
        ours = model.shap_values(x.numpy())
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())
        theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(
            xgboost.DMatrix(x[:50].numpy()), pred_interactions=True
        )
        ours = model.shap_interaction_values(x[:50].numpy())
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-5 * np.abs(theirs).max())


def test_a_model_of_xgboost_with_categories(tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    rng = np.random.default_rng(0)
    x = np.stack([rng.standard_normal(600), rng.integers(0, 12, 600)], 1).astype(np.float32)
    x[::11] = np.nan
    y = np.nan_to_num(x[:, 0]) + np.isin(x[:, 1], [1, 4, 7]) * 2
    data = xgboost.DMatrix(x, y, feature_types=["q", "c"], enable_categorical=True)
    theirs = xgboost.train({"max_cat_to_onehot": 1, "max_depth": 4}, data, 10)
    theirs.save_model(tmp_path / "m.json")
    model = GradientBoostingRegressor().load_model(tmp_path / "m.json")
    assert model.arrays_["categories"].numel() > 0
    expected = theirs.predict(data, pred_contribs=True)
    np.testing.assert_allclose(
        model.shap_values(x), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )
