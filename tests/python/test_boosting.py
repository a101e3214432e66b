"""Gradient boosting: trees by definition, formulas by hand, threads, classes, serving."""

import pickle

import numpy as np
import pytest
import reference_trees
import torch
from reference_trees import table
from sklearn.utils.estimator_checks import parametrize_with_checks

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("lam", "alpha", "least"), [(1.0, 0.0, 1.0), (0.1, 3.0, 5.0)])
@pytest.mark.parametrize(("rows", "max_bin"), [(400, 16), (40000, 16), (400, 300)])
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
    ).fit(x, y)
    cuts, count = torch.ops.tilewright.feature_cuts(x, None, max_bin)
    codes = torch.ops.tilewright.quantize_features(x, cuts, count)
    bins = (count + 1).tolist()
    missing_code = 255 if max_bin <= 255 else max_bin
    g = (y.double().mean() - y.double()).float().double()
    expected = reference_trees.grow(
        codes, bins, missing_code, g, torch.ones_like(g), 3, lam, alpha, least
    )
    reference_trees.assert_same_tree(
        reference_trees.nested(model.arrays_, cuts), expected, bins, 2e-6
    )


def test_a_split_worked_by_hand():
    # Base 1; gradients 1, 1, -1, -1; the split in the middle gains 4 / 3 + 4 / 3 - 0.
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    model = GradientBoostingRegressor(n_estimators=1, learning_rate=0.5, max_depth=1)
    model.fit(x, torch.tensor([0.0, 0.0, 2.0, 2.0]))
    arrays = model.arrays_
    assert model.base_score_.item() == 1
    assert arrays["threshold"][0] == 1.5
    assert arrays["gain"][0].item() == pytest.approx(8 / 3)
    assert arrays["cover"].tolist() == [4, 2, 2]
    # -2 / (2 + 1), halved by the learning rate.
    assert arrays["value"].tolist() == pytest.approx([0, -1 / 3, 1 / 3])
    assert model.predict(x).tolist() == pytest.approx([2 / 3, 2 / 3, 4 / 3, 4 / 3])
    assert model.feature_importances_.tolist() == [1.0]


@pytest.mark.parametrize("rows", [30000, 70000])  # pairs, words
@pytest.mark.parametrize("options", [{}, {"subsample": 0.5, "colsample_bynode": 0.5}])
def test_the_number_of_threads_does_not_show(rows, options):
    x, y = table(rows, 9, missing=True)
    models, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        models.append(
            GradientBoostingRegressor(n_estimators=5, random_state=3, **options).fit(x, y)
        )
    torch.set_num_threads(before)
    for model in models[1:]:
        for name, array in models[0].arrays_.items():
            assert torch.equal(array, model.arrays_[name]), name


@pytest.mark.parametrize("rows", [2000, 40000])
def test_shares_of_rows_and_columns(rows):
    x, y = table(rows, 8)
    model = GradientBoostingRegressor(
        n_estimators=30, subsample=0.25, colsample_bytree=0.5, random_state=1
    ).fit(x, y)
    arrays, used = model.arrays_, set()
    for begin, end in zip(arrays["tree_ptr"][:-1], arrays["tree_ptr"][1:], strict=True):
        # Of squared errors the cover is the number of rows.
        assert arrays["cover"][begin].item() == pytest.approx(rows / 4, rel=0.15)
        split = arrays["left"][begin:end] >= 0
        features = arrays["feature"][begin:end][split].unique().tolist()
        assert len(features) <= 4
        used.update(features)
    assert len(used) == 8
    for share in ("colsample_bylevel", "colsample_bynode"):
        one = GradientBoostingRegressor(n_estimators=20, max_depth=1, **{share: 1e-9}).fit(x, y)
        roots = one.arrays_["feature"][one.arrays_["left"] >= 0]
        assert roots.unique().numel() > 3  # one column each, not the best one


@pytest.mark.parametrize("rows", [5000, 70000])
def test_loss_falls_and_generalises(rows):
    x, y = table(2 * rows, 6)
    model = GradientBoostingRegressor(n_estimators=60).fit(x[:rows], y[:rows])
    error = (model.predict(x[rows:]) - y[rows:]).square().mean().sqrt()
    assert error < 0.45 * y.std()


def test_classes_of_any_kind():
    x, y = table(3000)
    names = np.array(["low", "middle", "high"])[np.digitize(y.numpy(), [-1.0, 1.0])]
    model = GradientBoostingClassifier(n_estimators=20).fit(x.numpy(), names)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    assert (model.predict(x.numpy()) == names).mean() > 0.9
    assert model.predict_proba(x).sum(1).allclose(torch.ones(3000))


def test_base_scores_are_xgboosts():
    x, y = table(100)
    counts = torch.poisson(y.exp().clamp(max=9))
    model = GradientBoostingRegressor(loss="poisson", n_estimators=1).fit(x, counts)
    assert model.base_score_.item() == pytest.approx(counts.mean().log().item(), abs=1e-6)
    model = GradientBoostingClassifier(n_estimators=1).fit(x, (y > 0.5).long())
    share = (y > 0.5).float().mean()
    assert model.base_score_.item() == pytest.approx((share / (1 - share)).log().item(), abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_monotone_features(sign):
    x, y = table(3000, 4)
    model = GradientBoostingRegressor(n_estimators=30, monotonic_cst=[0, sign, 0, 0]).fit(x, y)
    line = x[:1].repeat(200, 1)
    line[:, 1] = torch.linspace(-3, 3, 200)
    assert (sign * model.predict(line).diff() >= 0).all()


def test_limits_of_trees():
    x, y = table(2000)
    for policy in ("depthwise", "lossguide"):
        model = GradientBoostingRegressor(
            n_estimators=3, max_depth=None, max_leaf_nodes=7, grow_policy=policy
        ).fit(x, y)
        sizes = model.arrays_["tree_ptr"].diff()
        assert (sizes == 13).all()
    bounded = GradientBoostingRegressor(n_estimators=3, max_delta_step=0.1).fit(x, y)
    assert bounded.arrays_["value"].abs().max().item() == pytest.approx(0.01)
    gamma = GradientBoostingRegressor(n_estimators=1, gamma=1e9).fit(x, y)
    assert gamma.arrays_["feature"].numel() == 1


def test_early_stopping_keeps_the_best_rounds():
    x, y = table(600)
    model = GradientBoostingRegressor(n_estimators=300, early_stopping_rounds=5, learning_rate=0.5)
    model.fit(x[:300], y[:300], eval_set=(x[300:], y[300:]))
    history = model.evals_result_
    assert model.n_iter_ == int(np.argmin(history)) + 1 < 300
    assert len(history) == model.n_iter_ + 5
    error = (model.predict(x[300:]) - y[300:]).square().mean().sqrt().item()
    assert error == pytest.approx(min(history), rel=1e-4)


def test_weights_are_repetitions():
    x, y = table(200)
    weight = torch.randint(0, 3, (200,))
    keep = weight.repeat_interleave(weight)
    assert len(keep) > 150
    weighted = GradientBoostingRegressor(n_estimators=10).fit(x, y, sample_weight=weight)
    rows = torch.arange(200).repeat_interleave(weight)
    repeated = GradientBoostingRegressor(n_estimators=10).fit(x[rows], y[rows])
    torch.testing.assert_close(weighted.predict(x), repeated.predict(x), atol=1e-3, rtol=1e-3)


def test_serving(tmp_path):
    x, y = table(500, missing=True)
    model = GradientBoostingClassifier(n_estimators=5).fit(x, (y > 0).long())
    expected = model.predict_proba(x)[:, 1:]
    module = model.to_module()
    torch.jit.script(module).save(str(tmp_path / "m.pt"))
    assert torch.equal(torch.jit.load(str(tmp_path / "m.pt"))(x), expected)
    exported = torch.export.export(
        module, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},)
    ).module()
    assert torch.equal(exported(x), expected)
    # ATen's sigmoid rounds the last lanes of a tensor otherwise.
    torch.testing.assert_close(exported(x[:77]), expected[:77])
    names = ["feature", "threshold", "left", "right", "default_left", "value", "tree_ptr"]
    arrays = [model.arrays_[name] for name in [*names, "tree_output"]] + [model.base_score_]
    ensemble = torch.classes.tilewright.TreeEnsemble(arrays, "sigmoid", 5)

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ensemble = ensemble

        def forward(self, x):
            return self.ensemble.predict(x)

    torch.jit.script(Holder()).save(str(tmp_path / "e.pt"))
    assert torch.equal(torch.jit.load(str(tmp_path / "e.pt"))(x), expected)
    with pytest.raises(RuntimeError, match="x must have 5 features, got \\(2, 4\\)"):
        ensemble.predict(torch.zeros(2, 4))
    arrays[2] = torch.zeros_like(arrays[2])
    with pytest.raises(RuntimeError, match="tree 0, node 0: child 0"):
        torch.classes.tilewright.TreeEnsemble(arrays, "sigmoid", 5)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.predict_proba(x)[:, 1:], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y * float("nan")), "y must be finite; that of row 0 is nan"),
        (lambda x, y: (x, y[:-1]), r"y must have shape \(20,\)"),
        (lambda x, y: (x[:0], y[:0]), "x must not be empty"),
        (lambda x, y: (x[:, :0], y), "x must not be empty"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = change(torch.randn(20, 3), torch.randn(20))
    with pytest.raises(RuntimeError, match=message):
        GradientBoostingRegressor().fit(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"n_estimators": "a"}, "n_estimators must be an integer, got 'a'"),
        ({"n_estimators": 2.5}, "n_estimators must be an integer, got 2.5"),
        ({"learning_rate": None}, "learning_rate must be a number, got None"),
        ({"max_delta_step": -1.0}, "max_delta_step must be None or a number that is not negative"),
        ({"max_delta_step": "a"}, "max_delta_step must be None or a number .*, got 'a'"),
        ({"max_leaf_nodes": 2.5}, "max_leaf_nodes must be an integer, got 2.5"),
        ({"alpha": None}, "alpha must be a number, got None"),
        ({"random_state": 2**63}, "random_state must be an integer"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite, got inf"),
        ({"gamma": float("nan")}, "gamma must be finite, got nan"),
        ({"subsample": 1.5}, r"subsample must lie in \(0, 1\], got 1.5"),
        ({"max_depth": -1}, "max_depth and max_leaf_nodes must not be negative"),
        ({"reg_lambda": -1.0}, "reg_lambda, .* must not be negative"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GradientBoostingRegressor(**options).fit(torch.randn(20, 3), torch.randn(20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bin": 1}, "max_bin must lie in"),
        ({"monotonic_cst": [1]}, "monotone constraints must be 3"),
        ({"loss": "poisson"}, "y must not be negative; that of row"),
    ],
)
def test_options_that_do_not_go_with_data_are_named(options, message):
    with pytest.raises(RuntimeError, match=message):
        GradientBoostingRegressor(**options).fit(torch.randn(20, 3), -torch.rand(20) - 0.1)


def test_predicting_other_features_is_an_error():
    model = GradientBoostingRegressor(n_estimators=1).fit(torch.randn(20, 3), torch.randn(20))
    with pytest.raises(ValueError, match="X has 4 features, but GradientBoostingRegressor"):
        model.predict(torch.randn(2, 4))


@parametrize_with_checks([GradientBoostingClassifier(), GradientBoostingRegressor()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
