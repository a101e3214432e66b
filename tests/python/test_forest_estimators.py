"""Forests as estimators: quality, serving, labels, bad input, scikit-learn's checks."""

import pickle

import numpy as np
import pytest
import sklearn.ensemble
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_forest import CLASSIFIERS, REGRESSORS, table

import tilewright.trees
from tilewright.trees import RandomForestClassifier, RandomForestRegressor


def smooth(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 8)).astype(np.float32)
    z = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + 0.5 * x[:, 3]
    return x, z + 0.3 * rng.standard_normal(rows)


@pytest.mark.parametrize("name", ["RandomForest", "ExtraTrees"])
def test_quality_is_scikit_learns(name):
    ours, theirs = [], []
    for seed in range(3):
        x, z = smooth(1600, seed)
        for into, module in ((ours, vars(tilewright.trees)), (theirs, vars(sklearn.ensemble))):
            model = module[name + "Classifier"](n_estimators=40, random_state=seed, n_jobs=1)
            model.fit(x[:800], z[:800] > 0)
            into.append(model.score(x[800:], z[800:] > 0))
            model = module[name + "Regressor"](n_estimators=40, random_state=seed, n_jobs=1)
            model.fit(x[:800], z[:800])
            into.append(model.score(x[800:], z[800:]))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.016)


def test_importances_are_those_of_scikit_learn():
    x, z = smooth(1000, 0)
    ours = RandomForestRegressor(n_estimators=60, random_state=0).fit(x, z).feature_importances_
    theirs = sklearn.ensemble.RandomForestRegressor(n_estimators=60, random_state=0).fit(x, z)
    assert ours.sum() == pytest.approx(1)
    np.testing.assert_allclose(ours, theirs.feature_importances_, atol=0.02)


@pytest.mark.parametrize("kind", CLASSIFIERS + REGRESSORS)
def test_serving(kind, tmp_path):
    x, y, _ = table(300, missing=True)
    model = kind(n_estimators=5).fit(x, y)
    call = model.predict_proba if kind in CLASSIFIERS else model.predict
    module = model.to_module()
    expected = module(x)
    shares = call(x) if kind in CLASSIFIERS else call(x)[:, None]
    torch.testing.assert_close(shares, expected)
    assert isinstance(call(x.numpy()), np.ndarray)
    torch.jit.script(module).save(str(tmp_path / "m.pt"))
    assert torch.equal(torch.jit.load(str(tmp_path / "m.pt"))(x), expected)
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), expected)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.to_module()(x), expected)


def test_labels_of_any_kind_and_several_values():
    x, y, z = table(200)
    names = np.array(["low", "middle", "high"])[y]
    model = RandomForestClassifier(n_estimators=20).fit(x.numpy(), names)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    assert (model.predict(x.numpy()) == names).mean() > 0.95
    several = RandomForestRegressor(n_estimators=20).fit(x, z)
    assert several.predict(x).shape == (200, 2)
    assert several.score(x.numpy(), z.numpy()) > 0.9


def test_a_progress_bar_on_demand(capsys):
    x, y, _ = table(50)
    RandomForestClassifier(n_estimators=4, verbose=1).fit(x, y)
    assert "4/4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "variance"}, "criterion must be gini, entropy or log_loss, got 'variance'"),
        ({"n_estimators": 0}, "n_estimators must be a positive integer, got 0"),
        ({"max_features": "many"}, "max_features must be None, 'sqrt'.* got 'many'"),
        ({"max_features": 0}, "max_features must be"),
        ({"max_depth": 0}, "max_depth must be a positive integer, got 0"),
        ({"max_leaf_nodes": 1}, "max_leaf_nodes must be 2 or more, got 1"),
        ({"min_samples_leaf": 0}, "min_samples_leaf must be an integer from 1 or a share"),
        ({"min_samples_split": 1}, "min_samples_split must be an integer from 2"),
        ({"min_weight_fraction_leaf": 0.6}, r"min_weight_fraction_leaf must lie in \[0, 0.5\]"),
        ({"max_samples": 0}, "max_samples must be a positive integer or share, got 0"),
        ({"bootstrap": False, "max_samples": 3}, "max_samples needs bootstrap"),
        ({"bootstrap": False, "oob_score": True}, "only available if bootstrap=True"),
        ({"class_weight": "heavy"}, "class_weight must be a dict, 'balanced'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RandomForestClassifier(**options).fit(torch.randn(20, 3), torch.arange(20) % 2)


def test_bad_input_is_named():
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    with pytest.raises(ValueError, match="as many rows, at least one, got 20 and 19"):
        RandomForestClassifier().fit(x, y[:-1])
    with pytest.raises(ValueError, match="as many rows, at least one, got 0 and 0"):
        RandomForestClassifier().fit(x[:0], y[:0])
    with pytest.raises(ValueError, match="at least 2 classes, got 1 class"):
        RandomForestClassifier().fit(x, torch.ones(20))
    many = torch.arange((1 << 15) + 1)
    with pytest.raises(ValueError, match=r"lie in \[2, 32768\], got 32769"):
        RandomForestClassifier().fit(many[:, None].float(), many)
    bad = y.double()
    bad[7] = float("inf")
    with pytest.raises(ValueError, match="y must be finite; that of row 7 is inf"):
        RandomForestRegressor().fit(x, bad)
    with pytest.raises(ValueError, match=r"max_bin must be an integer in \[2, 32767\], got 1"):
        RandomForestRegressor(max_bin=1).fit(x, y)
    with pytest.raises(NotFittedError):
        RandomForestRegressor().predict(x)
    model = RandomForestClassifier(n_estimators=1).fit(x, y)
    with pytest.raises(ValueError, match="X has 4 features, but RandomForestClassifier"):
        model.predict(torch.zeros(2, 4))
    assert model.predict_proba(torch.zeros(0, 3)).shape == (0, 2)


# scikit-learn's own forests with bags fail these as well: draws differ.
DRAWN = {
    "check_sample_weight_equivalence_on_dense_data": "rows are drawn otherwise",
    "check_sample_weight_equivalence_on_sparse_data": "rows are drawn otherwise",
}


@parametrize_with_checks(
    [kind(n_estimators=5) for kind in CLASSIFIERS + REGRESSORS],
    expected_failed_checks=lambda model: DRAWN if model.bootstrap else {},
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)
