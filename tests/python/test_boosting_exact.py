"""Exact split finding: trees by definition, against histograms of one value a bin and xgboost."""

import json

import numpy as np
import pytest
import reference_exact
import torch
from reference_exact import Rules
from reference_trees import table

from tilewright.trees import (
    GradientBoostingClassifier,
    GradientBoostingRanker,
    GradientBoostingRegressor,
)

MOST = float(np.finfo(np.float32).max)
INF = float("inf")


def exact(**options):
    return GradientBoostingRegressor(tree_method="exact", **options)


def odd_table(seed, rows=40):
    """Ties, missing values, infinities, a constant, a column of nothing, a column twice."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 8)).astype(np.float32)
    x[:, 1] = random.integers(0, 4, rows)
    x[random.random(rows) < 0.3, 2] = np.nan
    x[:, 3] = np.where(random.random(rows) < 0.4, np.nan, random.integers(0, 3, rows))
    x[random.random(rows) < 0.2, 4] = INF
    x[random.random(rows) < 0.2, 4] = -INF
    x[random.random(rows) < 0.2, 4] = np.nan
    x[:, 5] = 7
    x[:, 6] = np.nan
    x[:, 7] = x[:, 0]
    y = np.nan_to_num(x[:, 2]) + (x[:, 1] == 2) + 0.5 * np.isnan(x[:, 3]) + (x[:, 4] > 9)
    return x, (y + 0.3 * random.normal(size=rows)).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rules",
    [
        Rules(),
        Rules(lam=0.1, alpha=0.5, least=3.0),
        Rules(lam=0.0, gamma=1.0, least=0.0),
        Rules(most=0.4),
        Rules(lam=0.5, monotone=(1, -1, 0, 1, 1, 0, 0, 0)),
    ],
    ids=["plain", "l1", "gamma", "step", "monotone"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_tree_is_the_one_by_definition(seed, rules, weighted):
    x, y = odd_table(seed)
    weight = np.random.default_rng(seed).integers(0, 3, len(y)).astype(np.float32)
    weight = weight if weighted else np.ones_like(y)
    model = exact(
        n_estimators=1, learning_rate=1.0, max_depth=4, reg_lambda=rules.lam,
        reg_alpha=rules.alpha, gamma=rules.gamma, min_child_weight=rules.least,
        max_delta_step=rules.most, monotonic_cst=rules.monotone or None,
    )  # fmt: skip
    model.fit(torch.from_numpy(x), torch.from_numpy(y), sample_weight=torch.from_numpy(weight))
    g = weight * (model.base_score_.numpy() - y)  # float32, as the loss has it
    expected = reference_exact.grow(x, g.astype(float), weight.astype(float), 4, rules)
    found = reference_exact.nested(model.arrays_, x)
    assert isinstance(found, tuple)
    reference_exact.assert_same_tree(found, expected)


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ([0.0, 3.0], 1.5),
        ([1.0, float(np.nextafter(np.float32(1), np.float32(2)))], None),
        ([-INF, 2.0], 2.0),
        ([2.0, INF], MOST),
        ([-INF, INF], MOST),
        ([MOST, INF], INF),
        ([-MOST, MOST], 0.0),
        ([-0.0, 1e-45], 1e-45),
        ([2.0, float("nan")], -INF),
        ([INF, float("nan")], -INF),
        ([-INF, float("nan")], -INF),
    ],
)
def test_thresholds_part_the_two_values(values, threshold):
    x = torch.tensor(values).repeat_interleave(3)[:, None]
    y = torch.tensor([0.0, 1.0]).repeat_interleave(3)
    model = exact(n_estimators=1, learning_rate=1.0, reg_lambda=0.0).fit(x, y)
    assert model.predict(x).tolist() == y.tolist()
    found = model.arrays_["threshold"][0].item()
    assert found == (np.float32(values[1]) if threshold is None else np.float32(threshold))


def test_what_no_threshold_parts_is_no_split():
    x = torch.tensor([[-0.0], [0.0], [-INF], [INF], [float("nan")]]).repeat_interleave(2, 0)
    for rows in (slice(0, 4), slice(8, 10)):
        model = exact(n_estimators=1).fit(x[rows], torch.arange(10.0)[rows])
        assert model.arrays_["left"].tolist() == [-1]


def test_missing_values_beside_both_infinities():
    x = torch.tensor([[-INF], [INF], [float("nan")]]).repeat_interleave(2, 0)
    y = torch.tensor([0.0, 0, 0, 0, 1, 1])
    model = exact(n_estimators=1, max_depth=1, reg_lambda=0.0, learning_rate=1.0).fit(x, y)
    assert model.arrays_["threshold"][0] == -INF
    assert torch.allclose(model.predict(x), y)


def missing_to_the_right(arrays):
    """Splits of missing values alone in one form: below -infinity lies nothing, so there the
    children have changed places; a bin beyond a node's values does the same without."""
    asks = (arrays["threshold"] == -INF) & (arrays["left"] >= 0)
    left, right = arrays["left"], arrays["right"]
    return {
        **arrays,
        "left": torch.where(asks, right, left),
        "right": torch.where(asks, left, right),
        "default_left": arrays["default_left"] & ~asks,
    }


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        (GradientBoostingRegressor, {}),
        (GradientBoostingRegressor, {"max_depth": None, "min_child_weight": 0.0}),
        (GradientBoostingRegressor, {"grow_policy": "lossguide", "max_leaf_nodes": 11}),
        (GradientBoostingRegressor, {"grow_policy": "lossguide", "max_depth": 3}),
        (GradientBoostingRegressor, {"max_leaf_nodes": 7, "monotonic_cst": [1, 0, -1, 0, 0]}),
        (GradientBoostingRegressor, {"colsample_bytree": 0.6, "colsample_bynode": 0.5}),
        (GradientBoostingRegressor, {"colsample_bylevel": 0.4, "max_delta_step": 0.5}),
        (GradientBoostingRegressor, {"subsample": 0.5, "n_estimators": 1}),
        (GradientBoostingRegressor, {"sampling_method": "goss", "learning_rate": 1.0,
                                     "n_estimators": 2}),
        (GradientBoostingRegressor, {"booster": "dart", "rate_drop": 0.3}),
        (GradientBoostingRegressor, {"loss": "quantile", "alpha": 0.3}),
        (GradientBoostingRegressor, {"loss": lambda s, y: (s - y).abs() ** 1.5, "hessian": 1.0}),
        (GradientBoostingClassifier, {}),
        (GradientBoostingRanker, {}),
    ],
)  # fmt: skip
def test_histograms_of_one_value_a_bin_give_the_same_trees(estimator, options):
    x, y = table(700, missing=True)
    x[:, 3] = (3 * x[:, 3]).round()
    y = y if estimator is GradientBoostingRegressor else y.clamp(-1, 2).round() + 1
    fitted = []
    for method in ("hist", "exact"):
        model = estimator(tree_method=method, max_bin=2000, random_state=5,
                          **{"n_estimators": 8, **options})  # fmt: skip
        fitted.append(model.fit(x, y.long() if estimator is GradientBoostingClassifier else y))
    hist, sorted_ = fitted
    one, two = (missing_to_the_right(model.arrays_) for model in fitted)
    for name in set(one) - {"threshold"}:
        assert torch.equal(one[name], two[name]), name
    if "subsample" in options or "sampling_method" in options:
        return  # rows between the values of those that took part may go either way
    if estimator is GradientBoostingClassifier:
        assert torch.equal(hist.predict_proba(x), sorted_.predict_proba(x))
    else:
        assert torch.equal(hist.predict(x), sorted_.predict(x))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("options", [{}, {"reg_alpha": 2.0, "min_child_weight": 4}])
def test_trees_are_xgboosts(missing, options):
    xgboost = pytest.importorskip("xgboost")
    x, y = table(3000, missing=missing)
    shared = {"max_depth": 5, "learning_rate": 0.3, "reg_lambda": 2.0, **options}
    ours = exact(n_estimators=10, **shared).fit(x, y)
    theirs = xgboost.train(
        {
            "tree_method": "exact",
            "nthread": 2,
            "base_score": ours.base_score_.item(),
            **shared,
        },
        xgboost.DMatrix(x.numpy(), y.numpy()),
        10,
    )
    expected = theirs.predict(xgboost.DMatrix(x.numpy()))
    np.testing.assert_allclose(ours.predict(x), expected, atol=2e-4)
    tree = json.loads(theirs.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"][0]
    inner = [n for n, left in enumerate(tree["left_children"]) if left >= 0]
    arrays, end = ours.arrays_, int(ours.arrays_["tree_ptr"][1])
    split = arrays["left"][:end] >= 0
    assert sorted(tree["split_indices"][n] for n in inner) == sorted(
        arrays["feature"][:end][split].tolist()
    )
    if missing:
        return  # where missing values stand alone, any number above the others serves
    np.testing.assert_allclose(
        sorted(tree["split_conditions"][n] for n in inner),
        sorted(arrays["threshold"][:end][split].tolist()),
        rtol=1e-6,
        atol=1e-6,
    )
