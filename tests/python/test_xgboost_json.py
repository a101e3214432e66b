"""XGBoost's JSON: round trips, a file that xgboost 3.2 wrote, hostile files."""

import copy
import json
import math
import random

import numpy as np
import pytest
import torch

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor, xgboost_json

# Two trees over two features, as xgboost writes them: the second with categories.
TREE = {
    "base_weights": [0.0, -0.5, 0.25],
    "categories": [],
    "categories_nodes": [],
    "categories_segments": [],
    "categories_sizes": [],
    "default_left": [1, 0, 0],
    "id": 0,
    "left_children": [1, -1, -1],
    "loss_changes": [3.0, 0.0, 0.0],
    "parents": [2147483647, 0, 0],
    "right_children": [2, -1, -1],
    "split_conditions": [0.5, -0.5, 0.25],
    "split_indices": [0, 0, 0],
    "split_type": [0, 0, 0],
    "sum_hessian": [4.0, 2.0, 2.0],
    "tree_param": {"num_nodes": "3"},
}
CATEGORICAL = TREE | {
    "categories": [1, 4],
    "categories_nodes": [0],
    "categories_segments": [0],
    "categories_sizes": [2],
    "id": 1,
    "split_indices": [1, 0, 0],
    "split_type": [1, 0, 0],
}
MODEL = {
    "learner": {
        "attributes": {},
        "gradient_booster": {
            "model": {"trees": [TREE, CATEGORICAL], "tree_info": [0, 0]},
            "name": "gbtree",
        },
        "learner_model_param": {"base_score": "[2.5E-1]", "num_class": "0", "num_feature": "2"},
        "objective": {"name": "binary:logistic"},
    },
    "version": [3, 2, 0],
}


def write(path, model):
    path.write_text(json.dumps(model))
    return path


def changed(*path, to):
    """The model with one field changed; ... removes it."""
    model = copy.deepcopy(MODEL)
    place = model
    for key in path[:-1]:
        place = place[key]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return model


TREES = ("learner", "gradient_booster", "model", "trees")


def test_a_file_of_xgboost_by_hand(tmp_path):
    model = GradientBoostingClassifier().load_model(write(tmp_path / "m.json", MODEL))
    x = torch.tensor([[0.4, 1.0], [0.5, 4.0], [math.nan, 2.0], [9.0, math.nan]])
    raw = torch.tensor([-0.5 + 0.25, 0.25 + 0.25, -0.5 - 0.5, 0.25 - 0.5]) + math.log(1 / 3)
    assert model.predict_proba(x)[:, 1].allclose(raw.sigmoid())
    assert model.classes_.tolist() == [0, 1]
    scripted = torch.jit.script(model.to_module())
    assert torch.equal(scripted(x)[:, 0], model.predict_proba(x)[:, 1])


def test_dropped_trees_count_less(tmp_path):
    dart = {"gbtree": MODEL["learner"]["gradient_booster"], "name": "dart"}
    path = tmp_path / "m.json"
    model = changed("learner", "gradient_booster", to=dart | {"weight_drop": [0.5, 0.25]})
    loaded = GradientBoostingClassifier().load_model(write(path, model))
    assert loaded.arrays_["value"].tolist() == [0, -0.25, 0.125, 0, -0.125, 0.0625]
    model = changed("learner", "gradient_booster", to=dart | {"weight_drop": [0.5]})
    with pytest.raises(ValueError, match="weight_drop must be a list of 2"):
        GradientBoostingClassifier().load_model(write(path, model))


@pytest.mark.parametrize(
    "loss",
    ["squared_error", "absolute_error", "quantile", "huber", "poisson", "gamma", "tweedie"],
)
def test_regressors_come_back(tmp_path, loss):
    x, y = torch.randn(300, 4), torch.rand(300) + 0.1
    x[::9, 1] = math.nan
    alpha = 0.5 if loss == "quantile" else 1.5
    model = GradientBoostingRegressor(loss=loss, alpha=alpha, n_estimators=7).fit(x, y)
    model.save_model(tmp_path / "m.json")
    again = GradientBoostingRegressor().load_model(tmp_path / "m.json")
    torch.testing.assert_close(again.predict(x), model.predict(x), rtol=1e-6, atol=1e-6)
    assert again.loss == loss and again.n_iter_ == 7 and again.n_features_in_ == 4


@pytest.mark.parametrize("classes", [[0, 1], ["a", "b"], [3, 5, 9], ["x", "y", "z"]])
def test_classifiers_come_back(tmp_path, classes):
    x = np.random.default_rng(0).standard_normal((300, 4))
    y = np.array(classes)[np.arange(300) % len(classes)]
    model = GradientBoostingClassifier(n_estimators=5).fit(x, y)
    model.save_model(tmp_path / "m.json")
    again = GradientBoostingClassifier().load_model(tmp_path / "m.json")
    assert (again.predict(x) == model.predict(x)).all()
    np.testing.assert_allclose(again.predict_proba(x), model.predict_proba(x), atol=1e-6)


def test_xgboost_predicts_the_same(tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x = np.random.default_rng(0).standard_normal((2000, 5)).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) ** 2
    for loss in ("absolute_error", "quantile", "huber", "poisson", "gamma", "tweedie"):
        alpha = 0.5 if loss == "quantile" else 1.5
        model = GradientBoostingRegressor(loss=loss, alpha=alpha, n_estimators=3)
        ours = model.fit(x, np.abs(y) + 0.1).predict(x)
        model.save_model(tmp_path / "m.json")
        theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(xgboost.DMatrix(x))
        np.testing.assert_allclose(theirs, ours, atol=1e-6 * np.abs(ours).max())
    cases = [
        (GradientBoostingRegressor, y, "reg:squarederror"),
        (GradientBoostingClassifier, (y > 0.5).astype(int), "binary:logistic"),
        (GradientBoostingClassifier, np.digitize(y, [0, 1]), "multi:softprob"),
    ]
    for cls, labels, objective in cases:
        model = cls(n_estimators=20).fit(x, labels)
        model.save_model(tmp_path / "m.json")
        theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(xgboost.DMatrix(x))
        ours = model.predict(x) if cls is GradientBoostingRegressor else model.predict_proba(x)
        if objective == "binary:logistic":
            ours = ours[:, 1]
        np.testing.assert_allclose(theirs, ours, atol=1e-6 * np.abs(ours).max())
        options = {"objective": objective, "max_depth": 5}
        if objective == "multi:softprob":
            options["num_class"] = 3
        booster = xgboost.train(options, xgboost.DMatrix(x, labels), 20)
        booster.save_model(tmp_path / "x.json")
        again = cls().load_model(tmp_path / "x.json")
        ours = again.predict(x) if cls is GradientBoostingRegressor else again.predict_proba(x)
        if objective == "binary:logistic":
            ours = ours[:, 1]
        theirs = booster.predict(xgboost.DMatrix(x))
        np.testing.assert_allclose(theirs, ours, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ([], "model has no 'learner'"),
        (changed("learner", "objective", to=...), "model.learner has no 'objective'"),
        (changed("learner", "objective", "name", to="rank:x"), "objective.name must be one of"),
        (changed("learner", "gradient_booster", "name", to="trees"), "must be 'gbtree', 'd"),
        (changed("learner", "gradient_booster", "name", to="dart"), "has no 'gbtree'"),
        (changed("learner", "gradient_booster", "name", to="gblinear"), "has no 'weights'"),
        (changed(*TREES, 0, "left_children", to=[1, -1]), "right_children must be a list of 2"),
        (changed(*TREES, 0, "left_children", to=[]), "left_children must not be empty"),
        (changed(*TREES, 0, "split_indices", to=[2, 0, 0]), "must be less than num_feature, 2"),
        (changed(*TREES, 0, "split_conditions", to=["a", 0, 0]), "must hold finite numbers"),
        (changed(*TREES, 0, "left_children", to=[1.5, -1, -1]), "must hold integers"),
        (changed(*TREES, 1, "categories_sizes", to=[3]), r"\[0, 2\], got '3'"),
        (changed(*TREES, 1, "categories_nodes", to=[3]), r"\[0, 2\], got '3'"),
        (
            changed("learner", "learner_model_param", "num_feature", to="99999999999999999999"),
            "num_feature must be an integer",
        ),
        (changed("learner", "learner_model_param", "base_score", to="[x]"), "base_score must be"),
        (changed("learner", "learner_model_param", "base_score", to="[1.5]"), "between 0 and 1"),
        (changed("learner", "learner_model_param", "base_score", to="[0]"), "between 0 and 1"),
        (changed(*TREES, 0, "split_conditions", to=[3.45e38, 0, 0]), "must hold finite numbers"),
        (
            changed("learner", "objective", "name", to="multi:softprob"),
            r"num_class must be an integer in \[2, 2\], got '0'",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        xgboost_json.load(write(tmp_path / "m.json", model))


def test_a_number_alone_makes_nothing_large(tmp_path):
    model = changed("learner", "objective", "name", to="multi:softprob")
    model["learner"]["learner_model_param"]["num_class"] = "2000000000"
    with pytest.raises(ValueError, match="num_class must be an integer"):
        xgboost_json.load(write(tmp_path / "m.json", model))


@pytest.mark.parametrize("listed", [5, "5", "[1]", '[1, "a"', '{"a": 1}'])
def test_classes_that_are_none(tmp_path, listed):
    model = changed("learner", "attributes", to={"tilewright_classes": listed})
    with pytest.raises(ValueError, match=r"attribute tilewright_classes|Expecting"):
        GradientBoostingClassifier().load_model(write(tmp_path / "m.json", model))


def test_trees_that_are_none_are_refused_before_any_row(tmp_path):
    model = changed(*TREES, 0, "left_children", to=[0, -1, -1])
    estimator = GradientBoostingClassifier()
    with pytest.raises(ValueError, match="tree 0, node 0: child 0"):
        estimator.load_model(write(tmp_path / "m.json", model))
    assert not hasattr(estimator, "classes_")  # nothing is taken of such a file


def test_hostile_files_are_errors(tmp_path):
    """Damaged at random places: an error with a message, or a model that predicts."""
    rng = random.Random(0)
    text = json.dumps(MODEL)
    values = ["-1", "1e400", "99999999999", '"x"', "[]", "{}", "null", "true", "0.5", ""]
    path = tmp_path / "m.json"
    refused = 0
    for _ in range(400):
        broken = list(text)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(broken))
            broken[place : place + rng.randint(0, 6)] = rng.choice(values)
        path.write_text("".join(broken))
        try:
            model = GradientBoostingClassifier().load_model(path)
            found = model.predict_proba(torch.zeros(3, min(model.n_features_in_, 100)))
            assert found.isfinite().all(), "".join(broken)
        except (ValueError, RuntimeError):
            refused += 1
    assert refused > 200
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="is no JSON"):
        xgboost_json.load(path)
