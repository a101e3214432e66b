"""XGBoost's JSON of several outputs: trees of each, trees whose leaves are vectors, both ways."""

import json

import numpy as np
import pytest
import torch
from test_boosting_vectors import VECTORS, table

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor

STRATEGIES = pytest.mark.parametrize("strategy", [{}, VECTORS])


def close(found, expected):
    expected = np.asarray(expected)
    assert np.asarray(found).shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= 1e-6 * np.abs(expected).max()


@STRATEGIES
@pytest.mark.parametrize(
    "loss", ["squared_error", "absolute_error", "huber", "poisson", "gamma", "tweedie"]
)
def test_xgboost_predicts_what_we_wrote(tmp_path, strategy, loss):
    xgboost = pytest.importorskip("xgboost")
    x, y = table(600, 3, missing=True)
    if loss in ("poisson", "gamma", "tweedie"):
        y = y.abs() + 0.1
    options = {"n_estimators": 9, "loss": loss, "alpha": 1.5, **strategy}
    model = GradientBoostingRegressor(**options).fit(x, y)
    model.save_model(tmp_path / "m.json")
    booster = xgboost.Booster(model_file=tmp_path / "m.json")
    close(booster.predict(xgboost.DMatrix(x.numpy())), model.predict(x))
    again = GradientBoostingRegressor().load_model(tmp_path / "m.json")
    close(again.predict(x), model.predict(x))
    assert again.n_iter_ == 9
    assert again.multi_strategy == model.multi_strategy
    for name in ("value", "cover"):  # nodes may stand in another order
        first, second = (m.arrays_[name].flatten().sort().values for m in (again, model))
        assert torch.equal(first, second), name
    assert torch.allclose(again.shap_values(x), model.shap_values(x), atol=1e-4)
    second = GradientBoostingRegressor(**options).fit(x, y, init_model=tmp_path / "m.json")
    assert second.n_iter_ == 18


@STRATEGIES
def test_we_predict_what_xgboost_wrote(tmp_path, strategy):
    xgboost = pytest.importorskip("xgboost")
    x, y = table(600, 3, missing=True)
    for loss in ("squarederror", "absoluteerror", "pseudohubererror"):
        if loss == "absoluteerror" and strategy:
            continue
        theirs = xgboost.XGBRegressor(n_estimators=7, objective=f"reg:{loss}", **strategy)
        theirs.fit(x.numpy(), y.numpy())
        theirs.save_model(tmp_path / "m.json")
        ours = GradientBoostingRegressor().load_model(tmp_path / "m.json")
        close(ours.predict(x), theirs.predict(x.numpy()))
        assert ours.arrays_["value"].dim() == (2 if strategy else 1)
    classes = y.argmax(1)
    theirs = xgboost.XGBClassifier(n_estimators=7, **strategy).fit(x.numpy(), classes.numpy())
    theirs.save_model(tmp_path / "c.json")
    ours = GradientBoostingClassifier().load_model(tmp_path / "c.json")
    close(ours.predict_proba(x), theirs.predict_proba(x.numpy()))


def test_classes_with_vector_leaves(tmp_path):
    xgboost = pytest.importorskip("xgboost")
    x, y = table(600, 4)
    model = GradientBoostingClassifier(n_estimators=6, **VECTORS).fit(x, y.argmax(1))
    model.save_model(tmp_path / "m.json")
    booster = xgboost.Booster(model_file=tmp_path / "m.json")
    close(booster.predict(xgboost.DMatrix(x.numpy())), model.predict_proba(x))
    again = GradientBoostingClassifier().load_model(tmp_path / "m.json")
    close(again.predict_proba(x), model.predict_proba(x))
    assert (again.n_iter_, again.multi_strategy) == (6, "multi_output_tree")


def test_vectors_of_one_output_are_written_as_numbers(tmp_path):
    x, y = table(300, 1)
    model = GradientBoostingRegressor(n_estimators=4, **VECTORS).fit(x, y[:, 0])
    model.save_model(tmp_path / "m.json")
    again = GradientBoostingRegressor(n_estimators=4, **VECTORS)
    assert torch.equal(again.load_model(tmp_path / "m.json").predict(x), model.predict(x))
    again.fit(x, y[:, 0], init_model=tmp_path / "m.json")
    assert again.arrays_["value"].shape[1] == 1


def test_linear_models_of_several_outputs_are_not_written(tmp_path):
    x, y = table(100, 2)
    model = GradientBoostingRegressor(booster="gblinear").fit(x, y)
    with pytest.raises(ValueError, match="linear models of several outputs"):
        model.save_model(tmp_path / "m.json")


def test_files_that_are_wrong(tmp_path):
    x, y = table(200, 3)
    model = GradientBoostingRegressor(n_estimators=2, max_depth=2, **VECTORS).fit(x, y)
    model.save_model(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()

    def refused(change, message):
        parsed = json.loads(text)
        learner = parsed["learner"]
        change(learner, learner["gradient_booster"]["model"]["trees"][0])
        (tmp_path / "bad.json").write_text(json.dumps(parsed))
        with pytest.raises(ValueError, match=message):
            GradientBoostingRegressor().load_model(tmp_path / "bad.json")

    def assign(field, value):
        return lambda _, tree: tree.__setitem__(field, value)

    def outputs(count):
        return lambda learner, _: learner["learner_model_param"].update(num_target=count)

    def second(learner, _):
        trees = learner["gradient_booster"]["model"]["trees"]
        trees[1]["tree_param"]["size_leaf_vector"] = "1"

    refused(lambda _, tree: tree.pop("leaf_weights"), "no leaf_weights")
    refused(assign("leaf_weights", [1.0] * 11), "leaf_weights must be a list of 12 numbers")
    refused(assign("right_children", [2, 4, 6, 0, 1, 2, 9]), "must be less than their number, 4")
    refused(assign("right_children", [2, 4, 6, 0, 1, 2, -1]), "must not be less than 0")
    refused(assign("split_conditions", [0.0] * 3), "split_conditions must be a list of 7 numbers")
    refused(assign("tree_param", {"size_leaf_vector": "2"}), "size_leaf_vector must be 1 or")
    refused(second, "size_leaf_vector must be 3, as in other trees")
    refused(outputs("2"), "size_leaf_vector must be 1 or the number of outputs, 2")
    refused(outputs("2000000000"), "num_target must be an integer in")
    refused(outputs("0"), "num_target must be an integer in")
