"""What an earlier fit, a file or a frame leaves behind: nothing that misleads a later call."""

import copy
import json
import os
import pickle
import signal
import threading

import numpy as np
import pytest
import torch

from tilewright.trees import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    TorchRegressor,
    importance,
)


def table(rows=300, categories=3, seed=0):
    rng = np.random.default_rng(seed)
    x = np.stack([rng.integers(0, categories, rows), rng.standard_normal(rows)], 1).astype(float)
    return x, x[:, 0] + x[:, 1]


def test_a_file_of_two_classes_with_a_score_each(tmp_path):
    x, y = table()
    model = GradientBoostingClassifier(n_estimators=4).fit(x, y.round().clip(0, 2))
    model.save_model(tmp_path / "three.json")
    saved = json.loads((tmp_path / "three.json").read_text())
    learner = saved["learner"]
    learner["learner_model_param"] |= {"num_class": "2", "base_score": "[0.1,0.3]"}
    learner["objective"]["softmax_multiclass_param"]["num_class"] = "2"
    learner["attributes"] = {}
    inner = learner["gradient_booster"]["model"]
    inner["tree_info"] = [i % 2 for i in range(len(inner["trees"]))]
    inner["iteration_indptr"] = list(range(0, len(inner["trees"]) + 1, 2))
    (tmp_path / "two.json").write_text(json.dumps(saved))
    two = GradientBoostingClassifier().load_model(tmp_path / "two.json")
    found = two.predict_proba(x)
    assert found.shape == (300, 2)
    assert two.classes_.tolist() == [0, 1]
    assert np.abs(found.sum(1) - 1).max() < 1e-6
    two.save_model(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())["learner"]
    assert again["objective"]["name"] == "multi:softprob"
    xgboost = pytest.importorskip("xgboost")
    theirs = xgboost.Booster(model_file=str(tmp_path / "two.json")).predict(xgboost.DMatrix(x))
    assert np.abs(theirs - found).max() < 1e-6


def test_more_categories_in_a_second_fit():
    first, second = table(categories=3), table(categories=9, seed=1)
    model = GradientBoostingRegressor(n_estimators=3, categorical_features=[0])
    model.fit(torch.from_numpy(first[0]), first[1])
    tensor = torch.from_numpy(second[0])
    model.fit(tensor, second[1], eval_set=[(tensor, second[1])])
    assert torch.isfinite(model.predict(tensor)).all()


def test_a_file_of_numbers_after_categories(tmp_path):
    x, y = table()
    GradientBoostingRegressor(n_estimators=2).fit(x * 10, y).save_model(tmp_path / "m.json")
    model = GradientBoostingRegressor(n_estimators=3, categorical_features=[0]).fit(x, y)
    model.load_model(tmp_path / "m.json")
    assert np.isfinite(model.predict(x * 10)).all()


def test_a_frame_and_then_a_tensor():
    pandas = pytest.importorskip("pandas")
    x, y = table()
    frame = pandas.DataFrame({"kind": pandas.Categorical(x[:, 0]), "number": x[:, 1]})
    model = GradientBoostingRegressor(n_estimators=3, categorical_features="from_dtype")
    model.fit(frame, y)
    # The same categories as plain numbers are still the same.
    plain = frame.assign(kind=x[:, 0].astype(int))
    assert np.array_equal(model.predict(plain), model.predict(frame))
    with pytest.raises(ValueError, match="column 'kind': 7 in row 2 is no category"):
        model.predict(plain.assign(kind=plain["kind"].where(plain.index != 2, 7)))
    model.fit(torch.from_numpy(x), y)
    assert model.is_categorical_ is None
    assert not hasattr(model, "categories_")
    with pytest.raises(ValueError, match="name them all"):
        other = frame.assign(number=pandas.Categorical(x[:, 1] > 0))
        GradientBoostingRegressor(categorical_features=["kind"]).fit(other, y)
    names = frame.columns[:1]  # an index of objects
    assert GradientBoostingRegressor(categorical_features=names).fit(plain, y).is_categorical_[0]


def test_trees_are_packed_once_and_changes_show():
    x, y = table()
    model = GradientBoostingRegressor(n_estimators=5).fit(x, y)
    before = model.predict(x)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.predict(x), before)
    model.arrays_["value"].mul_(2)
    base = float(model.base_score_[0])
    assert np.allclose(model.predict(x) - base, 2 * (before - base), atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [GradientBoostingRegressor, GradientBoostingClassifier, RandomForestRegressor],
)
def test_labels_of_any_tensor(kind):
    x, y = table()
    x = torch.from_numpy(x)
    plain = torch.from_numpy((y > 1).astype(np.float32))
    expected = kind(n_estimators=3, random_state=0).fit(x, plain).predict(x)
    for labels in (plain.bfloat16(), plain.clone().requires_grad_()):
        weight = torch.ones(len(labels)).to(labels.dtype)
        found = kind(n_estimators=3, random_state=0).fit(x, labels, sample_weight=weight)
        assert torch.equal(found.predict(x).float(), expected.float())


@pytest.mark.parametrize(
    "kind", [GradientBoostingRegressor, RandomForestRegressor, AdaBoostClassifier, TorchRegressor]
)
def test_names_of_a_frame_do_not_outlive_it(kind):
    pandas = pytest.importorskip("pandas")
    x, y = table()
    labels = y > 1 if kind is AdaBoostClassifier else y
    options = {"epochs": 1} if kind is TorchRegressor else {"n_estimators": 2}
    model = kind(**options).fit(pandas.DataFrame(x, columns=["a", "b"]), labels)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    model.fit(torch.from_numpy(x), labels)
    assert not hasattr(model, "feature_names_in_")


def test_arrays_that_run_backwards():
    x, y = table()
    for kind in (GradientBoostingRegressor, RandomForestRegressor):
        forward = kind(n_estimators=3, random_state=0).fit(x[::-1].copy(), y[::-1].copy())
        backward = kind(n_estimators=3, random_state=0).fit(x[::-1], y[::-1])
        assert np.array_equal(backward.predict(x[::-1]), forward.predict(x[::-1].copy()))


def test_fits_go_on_with_the_loss_they_began_with():
    x, y = table()
    y = y - y.min()
    model = GradientBoostingRegressor(n_estimators=3, warm_start=True).fit(x, y)
    with pytest.raises(ValueError, match="to go on from has the loss 'squared_error'"):
        model.set_params(loss="poisson", n_estimators=6).fit(x, y)
    # Predictions are the fitted model's, whatever its parameters say since.
    assert np.abs(model.predict(x) - y).mean() < np.abs(y - y.mean()).mean()
    low = GradientBoostingRegressor(loss="quantile", alpha=0.1, n_estimators=3).fit(x, y)
    with pytest.raises(ValueError, match=r"alpha 0\.1"):
        GradientBoostingRegressor(loss="quantile", alpha=0.9).fit(x, y, init_model=low)


@pytest.mark.parametrize("loss", ["huber", lambda s, y: torch.cosh((s - y) / 50).log()])
def test_labels_far_from_0(loss):
    x, y = table()
    model = GradientBoostingRegressor(loss=loss, n_estimators=60, min_child_weight=0)
    model.fit(x, 1000 + y)
    assert np.abs(model.predict(x) - 1000 - y).mean() < np.abs(y - np.median(y)).mean()


def test_quantile_leaves_know_no_monotone_constraints():
    x, y = table()
    model = GradientBoostingRegressor(loss="absolute_error", monotonic_cst=[1, 0])
    with pytest.raises(RuntimeError, match="know no monotone constraints"):
        model.fit(x, y)


def test_an_ensemble_of_others_has_no_arrays():
    from sklearn.linear_model import LogisticRegression

    x, y = table()
    model = AdaBoostClassifier(estimator=LogisticRegression(), n_estimators=2).fit(x, y > 1)
    with pytest.raises(ValueError, match="trees in arrays_"):
        importance(model)


def test_many_features_and_few_rows():
    x = torch.randn(30, 20_000)
    model = RandomForestRegressor(n_estimators=2, random_state=0).fit(x, x[:, 0])
    assert torch.isfinite(model.predict(x)).all()


@pytest.mark.parametrize("offset", [1e5, 1e6])
@pytest.mark.parametrize("booster", ["gbtree", "dart"])
def test_predictions_are_what_training_saw(offset, booster):
    x, y = table()
    y = y + offset
    model = GradientBoostingRegressor(
        n_estimators=200, booster=booster, rate_drop=0.05, random_state=0
    )
    seen = model.fit(x, y, eval_set=[(x, y)]).evals_result_[-1]
    found = np.sqrt(np.mean((model.predict(x) - y.astype(np.float32)) ** 2))
    assert found == pytest.approx(seen, rel=1e-3)
    assert found < 0.1 * y.std()


def test_losses_of_torch_take_both_dtypes():
    x, y = table()
    for loss in (
        lambda s, y: torch.nn.functional.mse_loss(s, y, reduction="none"),
        torch.nn.HuberLoss(reduction="none"),
    ):
        model = GradientBoostingRegressor(loss=loss, n_estimators=20).fit(x, y)
        assert np.abs(model.predict(x) - y).mean() < 0.5


def test_control_c_ends_a_fit():
    x, y = table()
    model = GradientBoostingRegressor(n_estimators=2).fit(x, y)
    before = model.predict(x)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.set_params(n_estimators=100_000).fit(x, y)
    timer.join()
    assert np.array_equal(model.predict(x), before)


def test_signs_of_monotone_constraints():
    x, y = table()
    with pytest.raises(ValueError, match="must be of -1, 0 and 1, got"):
        GradientBoostingRegressor(monotonic_cst=[0.5, 0]).fit(x, y)
    with pytest.raises(ValueError, match="max_leaf_nodes must be a positive integer, got 2"):
        RandomForestRegressor(max_leaf_nodes=2.5).fit(x, y)


def test_a_refused_refit_leaves_the_model_as_it_was():
    x, y = table()
    labels = np.where(y > 1, 20, 10)
    model = GradientBoostingClassifier(n_estimators=3).fit(x, labels)
    before = model.predict(x)
    with pytest.raises(ValueError, match="subsample must lie in"):
        model.set_params(subsample=2.0).fit(x[:, :1], np.where(y > 1, 8, 7))
    assert np.array_equal(model.predict(x), before)
    assert model.n_features_in_ == 2


def test_a_model_that_cannot_be_written_leaves_the_one_there(tmp_path):
    x, y = table()
    model = GradientBoostingRegressor(n_estimators=2).fit(x, y)
    model.save_model(tmp_path / "m.json")
    there = (tmp_path / "m.json").read_text()
    (tmp_path / "m.json.part").mkdir()
    with pytest.raises(OSError):
        model.fit(x, -y).save_model(tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text() == there


def test_poissons_step_is_in_files(tmp_path):
    x, y = table()
    model = GradientBoostingRegressor(loss="poisson", n_estimators=3, max_delta_step=0.3)
    model.fit(x, y - y.min()).save_model(tmp_path / "m.json")
    again = GradientBoostingRegressor().load_model(tmp_path / "m.json")
    assert (again.loss, again.max_delta_step) == ("poisson", 0.3)
    assert np.array_equal(again.predict(x), model.predict(x))


def test_linear_models_know_no_monotone_constraints():
    x, y = table()
    with pytest.raises(ValueError, match="linear models know no monotone constraints"):
        GradientBoostingRegressor(booster="gblinear", monotonic_cst=[1, 0]).fit(x, y)


def test_forests_go_on_with_the_features_and_classes_they_began_with():
    x, y = table()
    model = RandomForestClassifier(n_estimators=2, warm_start=True, random_state=0)
    model.fit(x, y > 1).set_params(n_estimators=3)
    for other, labels in ((np.c_[x, x], y > 1), (x, np.where(y > 1, 2, 3)), (x, y.round() % 3)):
        with pytest.raises(ValueError, match="fitted on other features or labels"):
            model.fit(other, labels)
    assert len(model.fit(x, y < 0).arrays_["tree_output"]) == 3


def test_probabilities_add_up_in_float64():
    x, y = table()
    found = GradientBoostingClassifier(n_estimators=5).fit(x, y.round().clip(0, 2)).predict_proba(x)
    assert np.abs(found.sum(1) - 1).max() < 1e-15
