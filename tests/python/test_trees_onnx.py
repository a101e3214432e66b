"""to_onnx: onnxruntime predicts the same from the file."""

import builtins
import json

import numpy as np
import pytest
import torch
from reference_trees import table
from sklearn.exceptions import NotFittedError
from test_predict_trees import predict, random_trees
from test_xgboost_json import MODEL

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor
from tilewright.trees.onnx_export import ensemble_to_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def run(model, x):
    """The outputs by name; model is a path or a ModelProto."""
    model = str(model) if hasattr(model, "exists") else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": np.asarray(x, np.float32)}), strict=True))


def close(theirs, ours):
    ours = np.asarray(ours)
    assert theirs.shape == ours.shape
    largest = max(np.abs(ours).max(initial=0), 1e-30)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson", "tweedie"])
@pytest.mark.parametrize("missing", [False, True])
def test_regression(tmp_path, loss, missing):
    x, y = table(400, missing=missing)
    model = GradientBoostingRegressor(n_estimators=30, loss=loss, alpha=1.5).fit(x, y.abs())
    written = model.to_onnx(tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == written
    for rows in (400, 1, 0):
        out = run(tmp_path / "m.onnx", x[:rows])
        assert out["prediction"].dtype == np.float32
        close(out["prediction"], model.predict(x[:rows]))


@pytest.mark.parametrize(
    "classes",
    [[0, 1], [-3, 5, 9], ["no", "yes"], ["x", "y", "zz"], [False, True], [1.0, 2.0, 7.0]],
    ids=str,
)
def test_classes(classes):
    x, y = table(300, missing=True)
    classes = np.array(classes)
    labels = classes[np.digitize(y, [-0.5, 1.0][: len(classes) - 1])]
    x = x.numpy()
    model = GradientBoostingClassifier(n_estimators=15).fit(x, labels)
    graph = model.to_onnx()
    for rows in (300, 1, 0):
        out = run(graph, x[:rows])
        assert list(out) == ["label", "probabilities"]
        proba = model.predict_proba(torch.from_numpy(x[:rows]))
        close(out["probabilities"], proba)
        assert (out["label"] == classes[proba.argmax(1).numpy()]).all()
        assert out["label"].shape == (rows,)


def test_a_value_at_the_threshold_goes_right():
    x = torch.arange(40.0)[:, None]
    model = GradientBoostingRegressor(n_estimators=3).fit(x, (x[:, 0] > 19).float())
    model.arrays_["threshold"] = model.arrays_["threshold"].round()
    close(run(model.to_onnx(), x)["prediction"], model.predict(x))


def test_categories_of_a_file_of_xgboost(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(MODEL))
    model = GradientBoostingClassifier().load_model(tmp_path / "m.json")
    x = np.array([[0.4, 1], [0.5, 4], [np.nan, 2], [9, np.nan], [0, -1], [0, 0], [1, 200]])
    out = run(model.to_onnx(tmp_path / "m.onnx"), x)
    close(out["probabilities"], model.predict_proba(torch.from_numpy(x)))


def random_categories(arrays, count):
    pointers, categories = [0], []
    for _ in range(arrays["feature"].numel()):
        if torch.rand(()) < 0.5:
            categories += sorted(torch.randperm(count)[: count // 2].tolist())
        pointers.append(len(categories))
    arrays["category_ptr"] = torch.tensor(pointers)
    arrays["categories"] = torch.tensor(categories, dtype=torch.int32)
    return arrays


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("count", [0, 6, 100])
def test_any_trees(vector, count):
    """Leaves that are vectors, trees of one leaf, sets of categories small and large."""
    arrays = random_trees(7, 5, 3, outputs=2, vector=vector)
    one = random_trees(1, 0, 3, outputs=2, vector=vector)
    arrays = {k: torch.cat([one[k], v]) for k, v in arrays.items() if k != "tree_ptr"} | {
        "tree_ptr": torch.cat([one["tree_ptr"][:1], arrays["tree_ptr"] + 1])
    }
    if count:
        random_categories(arrays, count)
    x = torch.randint(-1, max(count, 1) + 2, (60, 3)).float()
    if not count:
        x = torch.randn(60, 3)
    x[torch.rand(x.shape) < 0.2] = float("nan")
    base = torch.tensor([0.25, -1.0])
    graph = ensemble_to_onnx(arrays, base, "identity", 3)
    close(run(graph, x)["prediction"], predict(x, arrays, 2) + base)
    assert run(graph, x[:0])["prediction"].shape == (0, 2)


def test_no_trees_answer_the_base_score():
    arrays = {k: v[:0] for k, v in random_trees(1, 1, 2).items()}
    arrays["tree_ptr"] = torch.zeros(1, dtype=torch.int64)
    graph = ensemble_to_onnx(arrays, torch.tensor([1.5]), "exp", 2)
    close(run(graph, np.zeros((3, 2)))["prediction"], np.exp(np.full(3, 1.5, np.float32)))


def test_nodes_that_no_row_reaches_are_left_out():
    arrays = random_trees(2, 2, 2, full=True)
    arrays["left"][0], arrays["right"][0] = -1, -1  # the first tree is a leaf now
    x = torch.randn(20, 2)
    graph = ensemble_to_onnx(arrays, torch.zeros(1), "identity", 2)
    close(run(graph, x)["prediction"], predict(x, arrays, 1)[:, 0])


def test_errors(monkeypatch):
    with pytest.raises(NotFittedError):
        GradientBoostingRegressor().to_onnx()
    arrays = random_trees(1, 1, 2)
    with pytest.raises(ValueError, match=r"link must be one of .* got 'cauchit'"):
        ensemble_to_onnx(arrays, torch.zeros(1), "cauchit", 2)
    with pytest.raises(ValueError, match="labels that are numbers or strings, got object"):
        ensemble_to_onnx(arrays, torch.zeros(1), "sigmoid", 2, np.array([None, 1], dtype=object))
    real = builtins.__import__

    def without_onnx(name, *args, **kwargs):
        if name == "onnx":
            raise ImportError("No module named 'onnx'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    x, y = table(50)
    with pytest.raises(ImportError, match="to_onnx needs onnx: pip install onnx"):
        GradientBoostingRegressor(n_estimators=1).fit(x, y).to_onnx()
