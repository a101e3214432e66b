"""Trees whose leaves are vectors: splits and leaves by definition, against trees of numbers and
peers, and all that boosting does with them."""

import numpy as np
import pytest
import reference_trees
import torch

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor

VECTORS = {"multi_strategy": "multi_output_tree"}


def table(rows=400, outputs=3, missing=False):
    """x (rows, 6), y (rows, outputs) of shared waves, each column of its own size."""
    x = torch.randn(rows, 6)
    basis = torch.stack([x[:, 0] * 2, torch.sin(3 * x[:, 1]), (x[:, 2] > 0.3) * x[:, 3]], 1)
    y = basis @ torch.randn(3, outputs) + 0.3 * torch.randn(rows, outputs)
    if missing:
        x[torch.rand(x.shape) < 0.15] = float("nan")
    return x, y * torch.logspace(-1, 1, outputs)


def assert_same_arrays(a, b):
    assert a.arrays_.keys() == b.arrays_.keys()
    for name, array in a.arrays_.items():
        assert torch.equal(array, b.arrays_[name]), name


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("lam", "alpha", "least"), [(1.0, 0.0, 1.0), (0.1, 3.0, 5.0)])
@pytest.mark.parametrize(("rows", "max_bin"), [(400, 16), (40000, 8), (400, 300)])
def test_a_tree_is_the_one_by_definition(missing, lam, alpha, least, rows, max_bin):
    x, y = table(rows, missing=missing)
    model = GradientBoostingRegressor(
        n_estimators=1,
        learning_rate=1.0,
        max_depth=3,
        max_bin=max_bin,
        reg_lambda=lam,
        reg_alpha=alpha,
        min_child_weight=least,
        **VECTORS,
    ).fit(x, y)
    cuts, count = torch.ops.tilewright.feature_cuts(x, None, max_bin)
    codes = torch.ops.tilewright.quantize_features(x, cuts, count)
    bins = (count + 1).tolist()
    missing_code = 255 if max_bin <= 255 else max_bin
    g = (y.double().mean(0).float() - y).double()
    expected = reference_trees.grow(
        codes, bins, missing_code, g, torch.ones_like(g), 3, lam, alpha, least
    )
    reference_trees.assert_same_tree(
        reference_trees.nested(model.arrays_, cuts), expected, bins, 2e-5
    )


def test_a_split_worked_by_hand():
    # Base (1, 0); gradients (1, 1, -1, -1) and (-2, 0, 2, 0). In the middle the first output gains
    # 4 / 3 + 4 / 3, the second as much; the first row alone 1 / 2 + 1 / 4 and 4 / 2 + 4 / 4.
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([[0.0, 2.0], [0.0, 0.0], [2.0, -2.0], [2.0, 0.0]])
    model = GradientBoostingRegressor(n_estimators=1, learning_rate=0.5, max_depth=1, **VECTORS)
    arrays = model.fit(x, y).arrays_
    assert model.base_score_.tolist() == [1, 0]
    assert arrays["threshold"][0] == 1.5
    assert arrays["gain"][0].item() == pytest.approx(16 / 3)
    assert arrays["cover"].tolist() == [4, 2, 2]
    third = 1 / 3
    assert arrays["value"].flatten().tolist() == pytest.approx([0, 0, -third, third, third, -third])
    assert model.predict(x)[0].tolist() == pytest.approx([2 / 3, third])


@pytest.mark.parametrize("rows", [3000, 40000])  # pairs, words
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_delta_step": 0.3, "reg_alpha": 2.0, "min_child_weight": 20.0},
        {"grow_policy": "lossguide", "max_depth": None, "max_leaf_nodes": 20},
        {"subsample": 0.5, "colsample_bynode": 0.5, "sampling_method": "uniform"},
        {"sampling_method": "goss"},
        {"loss": "absolute_error"},
        {"loss": "poisson"},
        {"booster": "dart", "rate_drop": 0.3},
    ],
)
def test_vectors_of_one_output_are_numbers(rows, options):
    x, y = table(rows, 1, missing=True)
    y = y[:, 0].abs() if options.get("loss") == "poisson" else y[:, 0]
    numbers = GradientBoostingRegressor(n_estimators=12, random_state=2, **options).fit(x, y)
    vectors = GradientBoostingRegressor(n_estimators=12, random_state=2, **options, **VECTORS)
    vectors.fit(x, y)
    assert vectors.arrays_["value"].shape == (len(numbers.arrays_["value"]), 1)
    vectors.arrays_["value"] = vectors.arrays_["value"][:, 0]
    assert_same_arrays(numbers, vectors)


@pytest.mark.parametrize("rows", [30000, 70000])
@pytest.mark.parametrize("options", [{}, {"subsample": 0.5, "colsample_bynode": 0.5}])
def test_the_number_of_threads_does_not_show(rows, options):
    x, y = table(rows, 4, missing=True)
    models, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model = GradientBoostingRegressor(n_estimators=4, random_state=3, **options, **VECTORS)
        models.append(model.fit(x, y))
    torch.set_num_threads(before)
    assert_same_arrays(*models)


def rmse(found, y):
    return float(((torch.as_tensor(found) - y) ** 2).mean().sqrt())


@pytest.mark.parametrize("rows", [2000, 40000])
def test_regression_is_as_good_as_xgboost(rows):
    xgboost = pytest.importorskip("xgboost")
    x, y = table(2 * rows, 5, missing=True)
    y = y / y.std(0)
    train, valid = slice(0, rows), slice(rows, None)
    shared = {"n_estimators": 60, "learning_rate": 0.2, "max_depth": 5, **VECTORS}
    ours = GradientBoostingRegressor(max_bin=255, **shared).fit(x[train], y[train])
    theirs = xgboost.XGBRegressor(tree_method="hist", max_bin=256, **shared)
    theirs.fit(x[train].numpy(), y[train].numpy())
    expected = rmse(theirs.predict(x[valid].numpy()), y[valid])
    assert rmse(ours.predict(x[valid]), y[valid]) < expected * 1.01
    assert ours.predict(x[:7].numpy()).shape == (7, 5)


def test_classes_are_as_good_as_with_a_tree_each():
    x, y = table(6000, 4)
    classes = y.div(y.std(0)).argmax(1)
    train, valid = slice(0, 3000), slice(3000, None)
    scores = []
    for options in ({}, VECTORS):
        model = GradientBoostingClassifier(n_estimators=60, **options)
        model.fit(x[train], classes[train], eval_set=(x[valid], classes[valid]))
        scores.append(model.evals_result_[-1])
        proba = model.predict_proba(x[valid])
        assert torch.allclose(proba.sum(1), torch.ones(3000), atol=1e-5)
        expected = -proba.double().gather(1, classes[valid, None]).log().mean().item()
        assert model.evals_result_[-1] == pytest.approx(expected, rel=1e-5)
    assert model.arrays_["value"].shape[1] == 4
    assert model.arrays_["tree_output"].numel() == 60
    assert scores[1] < scores[0] * 1.05


def test_a_function_of_several_outputs_is_the_loss():
    x, y = table(1500, 3)
    named = GradientBoostingRegressor(n_estimators=10, **VECTORS).fit(x, y)

    def half_squares(scores, y):
        assert scores.shape == y.shape == (1500, 3)
        return ((scores - y) ** 2).sum(1) / 2

    own = GradientBoostingRegressor(n_estimators=10, loss=half_squares, **VECTORS).fit(x, y)
    assert torch.allclose(own.base_score_, named.base_score_, atol=1e-5)
    assert torch.allclose(own.predict(x), named.predict(x), atol=1e-3)

    def apart(scores, y):  # outputs that hang together: their difference matters
        return ((scores - y) ** 2).sum(1) + (scores[:, 0] - scores[:, 1] - y[:, 0] + y[:, 1]) ** 2

    model = GradientBoostingRegressor(n_estimators=60, loss=apart, **VECTORS)
    model.fit(x, y, eval_set=(x[:1500], y))
    assert model.evals_result_[-1] < model.evals_result_[0] / 5


def test_two_fits_are_one():
    x, y = table(900, 3)
    options = {"subsample": 0.7, "random_state": 5, **VECTORS}
    once = GradientBoostingRegressor(n_estimators=8, **options).fit(x, y)
    grown = GradientBoostingRegressor(n_estimators=3, warm_start=True, **options).fit(x, y)
    assert_same_arrays(once, grown.set_params(n_estimators=8).fit(x, y))
    first = GradientBoostingRegressor(n_estimators=3, **options).fit(x, y)
    second = GradientBoostingRegressor(n_estimators=5, **options).fit(x, y, init_model=first)
    assert_same_arrays(once, second)
    assert second.n_iter_ == 8
    numbers = GradientBoostingRegressor(n_estimators=3).fit(x, y)
    with pytest.raises(RuntimeError, match=r"leaves that are vectors \(multi_output_tree\)"):
        GradientBoostingRegressor(**VECTORS).fit(x, y, init_model=numbers)
    with pytest.raises(RuntimeError, match=r"leaves that are numbers \(one_output_per_tree\)"):
        GradientBoostingRegressor().fit(x, y, init_model=first)


def test_dart_and_early_stopping():
    x, y = table(1200, 3)
    model = GradientBoostingRegressor(
        n_estimators=60,
        learning_rate=0.5,
        booster="dart",
        rate_drop=0.2,
        early_stopping_rounds=5,
        eval_metric=["mae", "rmse"],
        **VECTORS,
    ).fit(x[:600], y[:600], eval_set=(x[600:], y[600:]))
    best = int(np.argmin(model.evals_result_))
    assert model.n_iter_ == best + 1 == model.arrays_["tree_output"].numel()
    found = model.predict(x[600:])
    assert rmse(found, y[600:]) == pytest.approx(model.evals_result_[best], rel=1e-4)
    mae = (found - y[600:]).abs().mean().item()
    assert mae == pytest.approx(model.eval_history_[0]["mae"][best], rel=1e-4)


def test_a_weight_of_two_is_the_row_twice():
    x, y = table(500, 3)
    twice = torch.arange(500) % 3 == 0
    weight = torch.where(twice, 2.0, 1.0)
    weighted = GradientBoostingRegressor(n_estimators=5, **VECTORS).fit(x, y, weight)
    order = torch.arange(500).repeat_interleave(weight.long())
    repeated = GradientBoostingRegressor(n_estimators=5, **VECTORS).fit(x[order], y[order])
    assert torch.allclose(weighted.predict(x), repeated.predict(x), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monotonic_cst": [1, 0, 0, 0, 0, 0]}, "knows no monotone constraints"),
        ({"categorical_features": [5]}, "takes no columns of categories"),
        ({"multi_strategy": "vectors"}, "must be one_output_per_tree or multi_output_tree"),
    ],
)
def test_what_vectors_do_not_take(options, message):
    x, y = table(50)
    x[:, 5] = 1
    with pytest.raises(RuntimeError, match=message):
        GradientBoostingRegressor(**(VECTORS | options)).fit(x, y)
