"""Exact split finding in whole fits: threads, rows left out, fits that go on, tables, files."""

import numpy as np
import pytest
import torch
from reference_trees import table
from scipy import sparse

from tilewright._C import Booster
from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor, plot_tree


def exact(**options):
    return GradientBoostingRegressor(tree_method="exact", **options)


def assert_same_model(one, other):
    assert one.arrays_.keys() == other.arrays_.keys()
    for name, array in one.arrays_.items():
        assert torch.equal(array, other.arrays_[name]), name


@pytest.mark.parametrize("rows", [900, 40000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsample": 0.5, "colsample_bynode": 0.5},
        {"grow_policy": "lossguide", "max_leaf_nodes": 20, "max_depth": None},
        {"sampling_method": "goss", "learning_rate": 0.9},
        {"loss": "absolute_error", "max_depth": 8},
    ],
)
def test_the_number_of_threads_does_not_show(rows, options):
    x, y = table(rows, 9, missing=True)
    models, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        models.append(exact(n_estimators=4, random_state=3, **options).fit(x, y))
    torch.set_num_threads(before)
    for model in models[1:]:
        assert_same_model(models[0], model)


# A second fit scores all rows by prediction: what the first one added up must be the same bits.
@pytest.mark.parametrize("method", ["hist", "exact"])
@pytest.mark.parametrize("rows", [1500, 40000])
@pytest.mark.parametrize(
    "options",
    [
        {"grow_policy": "lossguide", "max_depth": 2},
        {"grow_policy": "lossguide", "max_depth": 3, "max_leaf_nodes": 6},
        {"max_depth": 1},
        {"subsample": 0.3},
        {"sampling_method": "goss", "learning_rate": 0.9},
        {"loss": "quantile", "alpha": 0.2, "max_depth": None, "max_leaf_nodes": 12},
    ],
)
def test_each_rows_score_is_what_the_trees_answer(method, rows, options):
    x, y = table(rows, missing=True)
    once = GradientBoostingRegressor(
        tree_method=method, n_estimators=4, random_state=1, **options
    ).fit(x, y)
    twice = GradientBoostingRegressor(
        tree_method=method, n_estimators=2, random_state=1, warm_start=True, **options
    ).fit(x, y)
    assert_same_model(once, twice.set_params(n_estimators=4).fit(x, y))
    # Evaluated on the rows of training, losses are those of the scores.
    if options.get("loss") is None:
        watched = GradientBoostingRegressor(
            tree_method=method, n_estimators=4, random_state=1, **options
        ).fit(x, y, eval_set=(x, y))
        error = (once.predict(x) - y).square().mean().sqrt().item()
        assert watched.evals_result_[-1] == pytest.approx(error, rel=1e-5)


def test_loss_falls_and_generalises_beyond_bins():
    x, y = table(6000, 6)
    y = y + 5 * (x[:, 4].abs() < 0.002)  # finer than a bin
    model = exact(n_estimators=60).fit(x[:3000], y[:3000])
    error = (model.predict(x[3000:]) - y[3000:]).square().mean().sqrt()
    assert error < 0.5 * y.std()


def test_early_stopping_and_the_kinds_of_tables():
    x, y = table(600)
    options = {"n_estimators": 200, "learning_rate": 0.5, "early_stopping_rounds": 4}
    model = exact(**options).fit(x[:300], y[:300], eval_set=(x[300:], y[300:]))
    assert model.n_iter_ == int(np.argmin(model.evals_result_)) + 1 < 200
    # What is compared are float32 values, however they are given.
    strided = torch.zeros(300, 10, dtype=torch.float64)[:, ::2].copy_(x[:300])
    again = exact(**options).fit(strided, y[:300], eval_set=(x[300:].numpy(), y[300:]))
    assert_same_model(model, again)
    half = x[:300].half()
    one, other = (exact(n_estimators=3).fit(given, y[:300]) for given in (half, half.float()))
    assert_same_model(one, other)


def test_a_sparse_table_is_the_dense_one():
    x, y = table(900, 7)
    x[torch.rand(x.shape) < 0.7] = 0
    x[torch.rand(x.shape) < 0.1] = float("nan")
    dense = exact(n_estimators=5, subsample=0.5, random_state=0).fit(x, y)
    table_ = sparse.csr_matrix(x.numpy())
    thin = exact(n_estimators=5, subsample=0.5, random_state=0).fit(table_, y.numpy())
    assert_same_model(dense, thin)
    np.testing.assert_array_equal(thin.predict(table_), dense.predict(x.numpy()))


def test_more_features_than_rows():
    x = torch.randn(12, 65000)
    y = torch.arange(12) % 2
    x[:, 64321] = y
    model = exact(n_estimators=2, max_depth=2).fit(x, y.float())
    low, high = x[y == 0], x[y == 1]
    parted = (low.amax(0) < high.amin(0)) | (high.amax(0) < low.amin(0))
    assert model.arrays_["feature"][0] == parted.nonzero()[0]
    assert (model.predict(x) > 0.5).equal(y == 1)


def test_one_row_and_constants():
    assert exact(n_estimators=2).fit(torch.zeros(1, 3), torch.ones(1)).predict(
        torch.ones(2, 3)
    ).tolist() == [1, 1]
    model = exact(n_estimators=2).fit(torch.zeros(9, 2), torch.arange(9.0))
    assert model.arrays_["left"].tolist() == [-1, -1]


def test_models_go_where_others_do(tmp_path):
    x, y = table(500, missing=True)
    model = GradientBoostingClassifier(tree_method="exact", n_estimators=4).fit(x, (y > 0).long())
    path = str(tmp_path / "m.json")
    model.save_model(path)
    loaded = GradientBoostingClassifier().load_model(path)
    torch.testing.assert_close(loaded.predict_proba(x), model.predict_proba(x))
    values = model.shap_values(x[:20]).sum(1)
    odds = model.predict_proba(x[:20])[:, 1].logit()
    torch.testing.assert_close(values.float(), odds, atol=1e-4, rtol=1e-4)
    module = torch.jit.script(model.to_module())
    assert torch.equal(module(x)[:, 0], model.predict_proba(x)[:, 1])
    more = exact(n_estimators=2)
    regressor = exact(n_estimators=3).fit(x, y)
    assert more.fit(x, y, init_model=regressor).n_iter_ == 5


def test_onnx_and_plots(tmp_path):
    x, y = table(300, missing=True)
    model = exact(n_estimators=3).fit(x, y)
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.to_onnx(str(tmp_path / "m.onnx")).SerializeToString())
    found = session.run(None, {"X": x.numpy()})[0]
    np.testing.assert_allclose(found.ravel(), model.predict(x), rtol=1e-5, atol=1e-5)
    pytest.importorskip("matplotlib").use("Agg")
    plot_tree(model, 0)


@pytest.mark.parametrize("kind", [GradientBoostingRegressor, GradientBoostingClassifier])
def test_bad_options_are_named(kind):
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2
    with pytest.raises(ValueError, match=r"tree_method must be one of \['hist', 'exact'\], got "):
        kind(tree_method="approx").fit(x, y)
    with pytest.raises(ValueError, match="tree_method='exact' takes no columns of categories"):
        kind(tree_method="exact", categorical_features=[1]).fit(x, y)
    with pytest.raises(RuntimeError, match="tree_method must be hist or exact, got sorted"):
        Booster({"tree_method": "sorted"})
    with pytest.raises(RuntimeError, match="exact takes no columns of categories; hist does"):
        Booster({"tree_method": "exact", "categorical": [0, 1]})
    bad = y.float()
    bad[3] = float("nan")
    with pytest.raises(RuntimeError, match="y must be finite; that of row 3 is nan"):
        exact().fit(x, bad)
    with pytest.raises(RuntimeError, match="x must not be empty"):
        exact().fit(x[:0], y[:0].float())
