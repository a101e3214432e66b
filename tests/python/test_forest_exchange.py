"""Fitted forests and AdaBoost: SHAP values, ONNX, XGBoost's files, sparse tables, packed once."""

import copy
import json
import pickle

import numpy as np
import pytest
import reference_shap
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeClassifier

from tilewright.trees import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    importance,
    inputs,
    partial_dependence,
)

CLASSIFIERS = [RandomForestClassifier, ExtraTreesClassifier, AdaBoostClassifier]
REGRESSORS = [RandomForestRegressor, ExtraTreesRegressor, AdaBoostRegressor]
FORESTS = CLASSIFIERS[:2] + REGRESSORS[:2]
SUMS = CLASSIFIERS + REGRESSORS[:2]  # of trees; AdaBoostRegressor's are medians


def table(rows=300, features=4, classes=3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    z = np.abs(x[:, 0]) + x[:, 1] * (x[:, 2] > 0)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, np.digitize(z, np.quantile(z, np.linspace(0, 1, classes + 1)[1:-1])), z


def fitted(kind, x, labels, z, **options):
    options = {"n_estimators": 7, "max_depth": 4, "random_state": 0} | options
    return kind(**options).fit(x, labels if kind in CLASSIFIERS else z)


def raw(model, x):
    """What rows score before any link: (rows, outputs)."""
    if isinstance(model, AdaBoostClassifier):
        return model.to_module().scores(torch.from_numpy(x))
    if hasattr(model, "classes_"):
        return torch.from_numpy(model.predict_proba(x))
    return torch.from_numpy(model.predict(x)).reshape(len(x), -1)


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("classes", [2, 3])
def test_shap_values_by_definition(kind, classes):
    x, labels, z = table(classes=classes)
    model = fitted(kind, x, labels, z, n_estimators=3)
    found = model.shap_values(torch.from_numpy(x[:6]))
    scores = raw(model, x[:6])
    outputs = scores.shape[1]
    assert found.shape == ((6, 5) if outputs == 1 else (6, outputs, 5))
    assert isinstance(model.shap_values(x[:6]), np.ndarray)
    found = found.reshape(6, outputs, 5)
    torch.testing.assert_close(found.sum(2).double(), scores.double(), atol=1e-5, rtol=1e-5)
    expected = reference_shap.shap(torch.from_numpy(x[:6]), model.arrays_, outputs)
    expected[:, :, -1] += model.base_score_
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    pairs = model.shap_interaction_values(torch.from_numpy(x[:6])).reshape(6, outputs, 5, 5)
    torch.testing.assert_close(pairs.sum(3), found, atol=1e-5, rtol=1e-5)


def test_shap_values_of_several_values():
    x, _, z = table()
    model = RandomForestRegressor(n_estimators=5, max_depth=3).fit(x, np.stack([z, -z, z**2], 1))
    found = model.shap_values(x[:9])
    assert found.shape == (9, 3, 5)
    np.testing.assert_allclose(found.sum(2), model.predict(x[:9]), atol=1e-5)


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("labels", [[0, 1], ["a", "b", "c"]], ids=str)
def test_onnxruntime_predicts_the_same(kind, labels, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    x, codes, z = table(classes=len(labels))
    model = fitted(kind, x, np.array(labels)[codes], z)
    written = model.to_onnx(tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == written
    session = onnxruntime.InferenceSession(
        str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"X": x})
    if kind in CLASSIFIERS:
        np.testing.assert_allclose(found[1], model.predict_proba(x), atol=1e-6)
        assert (found[0] == model.predict(x)).mean() > 0.99  # but ties
    else:
        np.testing.assert_allclose(found[0], model.predict(x), atol=1e-6 * np.abs(z).max())


def test_onnx_of_several_values():
    pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    x, _, z = table()
    model = ExtraTreesRegressor(n_estimators=5).fit(x, np.stack([z, -z], 1))
    session = onnxruntime.InferenceSession(
        model.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"X": x})
    np.testing.assert_allclose(found, model.predict(x), atol=1e-6 * np.abs(z).max())


@pytest.mark.parametrize("kind", FORESTS)
def test_xgboost_predicts_the_mean(kind, tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, labels, z = table(classes=2)
    labels = np.array(["no", "yes"])[labels]
    model = fitted(kind, x, labels, z, n_estimators=20, max_depth=None)
    model.save_model(tmp_path / "m.json")
    theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(xgboost.DMatrix(x))
    ours = model.predict_proba(x)[:, 1] if kind in CLASSIFIERS else model.predict(x)
    np.testing.assert_allclose(theirs, ours, atol=1e-6 * np.abs(ours).max())
    again = kind().load_model(tmp_path / "m.json")
    if kind in CLASSIFIERS:
        assert again.classes_.tolist() == ["no", "yes"]
        np.testing.assert_allclose(again.predict_proba(x), model.predict_proba(x), atol=1e-6)
    else:
        assert (again.predict(x) == ours).all()
    np.testing.assert_allclose(again.shap_values(x), model.shap_values(x), atol=1e-5)
    np.testing.assert_allclose(again.feature_importances_, model.feature_importances_, atol=1e-6)


def test_a_forest_of_xgboosts(tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, _, z = table()
    theirs = xgboost.XGBRFRegressor(n_estimators=10, max_depth=4, random_state=0).fit(x, z + 5)
    theirs.get_booster().save_model(tmp_path / "m.json")
    ours = RandomForestRegressor().load_model(tmp_path / "m.json")
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-6)
    # The base score is part of what each tree answers.
    more = ours.set_params(warm_start=True, n_estimators=20, random_state=0).fit(x, z + 5)
    assert np.abs(more.predict(x) - z - 5).mean() < np.abs(theirs.predict(x) - z - 5).mean()


def test_what_xgboosts_files_cannot_hold(tmp_path):
    x, labels, z = table()
    path = tmp_path / "m.json"
    with pytest.raises(NotFittedError):
        RandomForestRegressor().save_model(path)
    with pytest.raises(ValueError, match=r"more than two classes cannot be written .* got 3"):
        fitted(RandomForestClassifier, x, labels, z).save_model(path)
    with pytest.raises(ValueError, match=r"several values cannot be written .* got 2"):
        RandomForestRegressor(n_estimators=2).fit(x, np.stack([z, z], 1)).save_model(path)
    GradientBoostingRegressor(n_estimators=2, loss="huber").fit(x, z).save_model(path)
    with pytest.raises(ValueError, match="a model of huber is no forest's"):
        RandomForestRegressor().load_model(path)
    GradientBoostingRegressor(n_estimators=2).fit(x, z).save_model(path)
    with pytest.raises(ValueError, match="is no classifier's: it has no attribute"):
        RandomForestClassifier().load_model(path)
    model = json.loads(path.read_text())
    model["learner"]["attributes"] = {"tilewright_classes": "[0, 1"}
    path.write_text(json.dumps(model))
    with pytest.raises(ValueError, match="attribute tilewright_classes must list 2 classes"):
        RandomForestClassifier().load_model(path)
    GradientBoostingRegressor(booster="gblinear", n_estimators=2).fit(x, z).save_model(path)
    with pytest.raises(ValueError, match="holds no trees"):
        RandomForestRegressor().load_model(path)


def sparse_table(rows=200, features=6):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, features)) * (rng.random((rows, features)) < 0.4)
    x[rng.random(x.shape) < 0.05] = np.nan
    z = np.nan_to_num(x[:, 0]) + (np.nan_to_num(x[:, 1]) > 0) + 0.1 * rng.standard_normal(rows)
    return x, (z > 0.3).astype(int), z


def assert_same(dense, model, x, given):
    for name, array in dense.arrays_.items():
        assert torch.equal(array, model.arrays_[name]), name
    ours = dense.predict_proba if hasattr(dense, "classes_") else dense.predict
    theirs = model.predict_proba if hasattr(dense, "classes_") else model.predict
    assert np.array_equal(ours(x), theirs(given))
    assert np.array_equal(ours(x), theirs(x))


@pytest.mark.parametrize("kind", CLASSIFIERS + REGRESSORS)
@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array"])
def test_sparse_is_dense_with_zeros(kind, form, monkeypatch):
    x, labels, z = sparse_table()
    given = getattr(sparse, form)(x)
    weight = np.random.default_rng(2).random(len(x))
    y = labels if kind in CLASSIFIERS else z
    dense = kind(n_estimators=4, random_state=0).fit(x, y, sample_weight=weight)
    model = kind(n_estimators=4, random_state=0).fit(given, y, sample_weight=weight)
    assert_same(dense, model, x, given)
    monkeypatch.setattr(inputs, "BLOCK_CELLS", 100)
    assert_same(dense, model, x, given)
    if kind is not AdaBoostRegressor:
        assert np.array_equal(model.shap_values(given[:9] if form != "coo_array" else x[:9]),
                              dense.shap_values(x[:9]))  # fmt: skip


@pytest.mark.parametrize("kind", FORESTS)
def test_tables_of_several_blocks(kind):
    """4 M values are dense at a time: here 100 columns, of which 41,943 rows or 83 columns are."""
    x = sparse.random_array((50000, 100), density=0.02, format="csr", rng=np.random.default_rng(3))
    z = x[:, [0]].toarray()[:, 0] - x[:, [99]].toarray()[:, 0]
    y = (z > 0).astype(int) if kind in CLASSIFIERS else z
    options = {"n_estimators": 8, "max_depth": 4, "random_state": 0}
    options |= {"bootstrap": True, "oob_score": True, "max_samples": 5000}
    dense = kind(**options).fit(x.toarray(), y)
    model = kind(**options).fit(x, y)
    assert_same(dense, model, x.toarray(), x)
    assert model.oob_score_ == dense.oob_score_


@pytest.mark.parametrize("resample", [False, True])
def test_sparse_tables_of_any_estimator(resample):
    x, labels, z = sparse_table()
    x, given = np.nan_to_num(x), sparse.csr_matrix(np.nan_to_num(x))
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    options = {"n_estimators": 4, "random_state": 0, "resample": resample}
    dense = AdaBoostClassifier(tree, **options).fit(x, labels)
    model = AdaBoostClassifier(tree, **options).fit(given, labels)
    assert np.array_equal(dense.predict_proba(x), model.predict_proba(given))
    lines = Ridge(fit_intercept=False, solver="lsqr", tol=1e-10)
    dense = AdaBoostRegressor(lines, n_estimators=4, random_state=0).fit(x, z)
    model = AdaBoostRegressor(lines, n_estimators=4, random_state=0).fit(given, z)
    np.testing.assert_allclose(model.predict(given), dense.predict(x), atol=1e-6)
    classifier = AdaBoostClassifier(DecisionTreeClassifier(), n_estimators=2).fit(x, labels)
    for call in (classifier.to_onnx, lambda: classifier.shap_values(x)):
        with pytest.raises(ValueError, match="only an ensemble of trees"):
            call()


@pytest.mark.parametrize("kind", CLASSIFIERS + REGRESSORS)
def test_trees_are_packed_once_and_changes_show(kind):
    x, labels, z = table(classes=2)
    model = fitted(kind, x, labels, z)
    call = "predict_proba" if kind in CLASSIFIERS else "predict"
    before = getattr(model, call)(x)
    packed = model._ensemble()
    assert model._ensemble() is packed
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(getattr(other, call)(x), before)
    model.arrays_["value"].mul_(2)
    if kind is RandomForestRegressor:
        assert np.allclose(model.predict(x), 2 * before)
    assert model._ensemble() is not packed


@pytest.mark.parametrize("kind", CLASSIFIERS + REGRESSORS)
def test_inspection(kind):
    x, labels, z = table(classes=2)
    model = fitted(kind, x, labels, z, n_estimators=20)
    shares = importance(model, "gain")
    assert shares.shape == (4,) and shares[:3].max() > 2 * shares[3]
    average, grid, _ = partial_dependence(model, x, [0], grid_resolution=5)
    assert average.shape[-1] == 5 and len(grid[0]) == 5
