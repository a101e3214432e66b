"""What the ensembles say of what cannot be right, beyond what each one's tests ask."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from tilewright.trees import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    GradientBoostingClassifier,
    GradientBoostingRanker,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    partial_dependence,
)

SMALL = {"n_estimators": 3, "max_depth": 2}


def table(rows=200, features=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    return x, x[:, 0] + 0.1 * rng.normal(size=rows)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (GradientBoostingRegressor(max_bin=40000), "max_bin"),
        (GradientBoostingRegressor(eval_metric="nothing"), "nothing"),
        (GradientBoostingRegressor(eval_metric=["rmse", "rmse"]), "'rmse' again"),
        (RandomForestRegressor(n_jobs=0), "n_jobs must be None or an integer that is not 0"),
        (RandomForestRegressor(n_jobs="all"), "n_jobs must be .*, got 'all'"),
    ],
)
def test_wrong_parameters_are_value_errors(estimator, message):
    x, y = table()
    with pytest.raises(ValueError, match=message):
        estimator.fit(x, y)


def test_a_loss_without_a_tensor():
    x, y = table()
    model = GradientBoostingRegressor(loss=lambda scores, y: 1.0, **SMALL)
    with pytest.raises(TypeError, match=r"loss must return a tensor .*\(200,\), got a float"):
        model.fit(x, y)


def test_errors_of_a_loss_are_its_own():
    def loss(scores, y):
        raise RuntimeError("of the user")

    x, y = table()
    with pytest.raises(RuntimeError, match=r"^of the user") as error:
        GradientBoostingRegressor(loss=loss, **SMALL).fit(x, y)
    assert not isinstance(error.value, ValueError)


def test_metrics_of_one_name_are_kept_apart():
    x, y = table()
    metrics = [lambda y, p: 1.0, lambda y, p: 2.0, "rmse"]
    model = GradientBoostingRegressor(eval_metric=metrics, **SMALL).fit(x, y, eval_set=(x, y))
    history = model.eval_history_[0]
    assert list(history) == ["<lambda>", "<lambda>_2", "rmse"]
    assert history["<lambda>"] == [1.0] * 3 and history["<lambda>_2"] == [2.0] * 3


def test_weights_in_read_only_memory():
    x, y = table()
    weight = np.ones(len(y), np.float32)
    weight.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientBoostingRegressor(**SMALL).fit(x, y, weight)


def test_what_is_written_is_json(tmp_path):
    x, y = table()
    for model in (GradientBoostingRegressor(**SMALL), RandomForestRegressor(**SMALL)):
        with pytest.raises(ValueError, match=r"should end in \.json"):
            model.fit(x, y).save_model(tmp_path / "model.ubj")
    assert not list(tmp_path.iterdir())


def test_partial_dependence_by_name():
    pandas = pytest.importorskip("pandas")
    x, y = table()
    frame = pandas.DataFrame(x, columns=list("abcd"))
    model = GradientBoostingRegressor(**SMALL).fit(frame, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = partial_dependence(model, frame, "c", grid_resolution=5)
    placed = partial_dependence(
        GradientBoostingRegressor(**SMALL).fit(x, y), x, 2, grid_resolution=5
    )
    assert torch.equal(named.average, placed.average)
    with pytest.raises(ValueError, match=r"names of columns .*'a'.*, got 'z'"):
        partial_dependence(model, frame, "z")


def test_a_ranker_without_queries_says_so():
    x, _ = table()
    with pytest.warns(UserWarning, match="all 200 rows are one query"):
        GradientBoostingRanker(**SMALL).fit(x, np.arange(200) % 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientBoostingRanker(**SMALL).fit(x, np.arange(200) % 3, group=[100, 100])


def test_linear_models_have_no_trees():
    x, y = table()
    model = GradientBoostingRegressor(booster="gblinear", **SMALL).fit(x, y)
    for call in (model.shap_values, model.shap_interaction_values):
        with pytest.raises(ValueError, match=r"TreeSHAP is of trees.*weight_"):
            call(x)
    with pytest.raises(ValueError, match="to_onnx is of trees"):
        model.to_onnx()
    with pytest.raises(AttributeError, match="feature_importances_ is of trees"):
        _ = model.feature_importances_


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_modules_check_the_number_of_columns(booster):
    x, y = table()
    model = GradientBoostingRegressor(booster=booster, **SMALL).fit(x, y)
    given = torch.from_numpy(x)
    module = model.to_module()
    scripted = torch.jit.script(module)
    exported = torch.export.export(
        module, (given,), dynamic_shapes=({0: torch.export.Dim("rows")},)
    ).module()
    for served in (module, scripted, exported):
        assert torch.equal(served(given), module(given))
        with pytest.raises(Exception, match="4"):
            served(torch.cat([given, given], 1))


@pytest.mark.parametrize("kind", [GradientBoostingRegressor, RandomForestRegressor])
def test_labels_that_float32_does_not_hold(kind):
    x, y = table()
    with pytest.warns(UserWarning, match="subtract a constant from y"):
        kind(**SMALL).fit(x, y + 1.7e9)
    with pytest.raises(ValueError, match="y must fit float32, got 1e\\+39"):
        kind(**SMALL).fit(x, np.where(np.arange(200) == 3, 1e39, y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(**SMALL).fit(x, y)
        kind(**SMALL).fit(x, 0 * y + 1e9)  # of one value nothing is lost


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_labels_of_float64_that_are_not_finite_are_named(wrong):
    x, y = (torch.from_numpy(part) for part in table())
    with pytest.raises(ValueError, match=f"y must be finite; that of row 3 is {wrong}"):
        GradientBoostingRegressor(**SMALL).fit(x, torch.where(torch.arange(200) == 3, wrong, y))


@pytest.mark.parametrize("kind", [GradientBoostingClassifier, GradientBoostingRegressor])
def test_no_rows(kind):
    with pytest.raises(ValueError, match=r"at least one row|must not be empty"):
        kind(**SMALL).fit(torch.zeros(0, 3), torch.zeros(0))


@pytest.mark.parametrize(
    "model",
    [
        GradientBoostingClassifier(n_estimators=10**6),
        RandomForestClassifier(n_estimators=10**6),
        AdaBoostClassifier(n_estimators=10**6, learning_rate=1e-3),
    ],
    ids=["boosting", "forest", "adaboost"],
)
def test_an_interrupt_ends_a_fit(model):
    x, y = table(5000)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y > 0)
    finally:
        timer.cancel()
    assert not hasattr(model, "arrays_")


def test_65_thousand_features():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 65000)).astype(np.float32)
    y = np.where(x[:, 64000] > 0, 5.0, -5.0)
    for model in (
        GradientBoostingRegressor(n_estimators=1, max_depth=1),
        RandomForestRegressor(n_estimators=1, max_depth=1, bootstrap=False),
    ):
        model.fit(x, y)
        assert model.arrays_["feature"][0] == 64000
        assert model.feature_importances_.argmax() == 64000
        with pytest.raises(ValueError, match="64999 features"):
            model.predict(x[:, 1:])
    categories = GradientBoostingRegressor(
        n_estimators=1, categorical_features=np.arange(65000) == 64000
    )
    with pytest.raises(ValueError, match="column 64000"):
        categories.fit(x, y)


def test_categories_of_sparse_rows_are_looked_at():
    x, y = table(300)
    x[:, 2] = np.arange(300) % 4
    model = GradientBoostingRegressor(n_estimators=2, categorical_features=[2]).fit(x, y)
    rows = sparse.csr_array(np.nan_to_num(x[:10]))
    assert np.array_equal(model.predict(rows), model.predict(np.nan_to_num(x[:10])))
    rows[7, 2] = 4
    with pytest.raises(ValueError, match=r"column 2 holds categories.* row 7 is 4"):
        model.predict(rows)


@pytest.mark.parametrize("rows", [60, 60000])
def test_goss_with_gradients_that_are_no_numbers(rows):
    x = torch.arange(float(rows))[:, None]

    def loss(scores, y):  # finite, with a slope that is NaN
        return (scores - y) ** 2 + torch.where(y > 50, (scores * 0).sqrt(), 0)

    model = GradientBoostingRegressor(
        loss=loss, hessian=2.0, sampling_method="goss", learning_rate=1.0
    )
    with pytest.raises(ValueError, match="finite"):
        model.fit(x, x[:, 0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tables_on_a_gpu_are_refused_by_what_is_the_cpus():
    x, y = torch.randn(60, 3, device="cuda"), torch.arange(60.0) % 2
    for kind in (RandomForestRegressor, AdaBoostRegressor):
        with pytest.raises(ValueError, match="fits on the CPU, got x on cuda"):
            kind(n_estimators=2).fit(x, y)
    boosted = AdaBoostRegressor(n_estimators=3).fit(x.cpu(), y)
    assert torch.equal(boosted.predict(x).cpu(), boosted.predict(x.cpu()))
    ranker = GradientBoostingRanker(n_estimators=2)
    ranker.fit(x.cpu(), y, group=[60], eval_set=[(x, y)], eval_group=[[60]])
    assert 0 <= ranker.evals_result_["validation_0"]["ndcg@32"][-1] <= 1
