"""AdaBoost: weights by hand and against scikit-learn's, medians, any estimator, serving."""

import math
import pickle

import numpy as np
import pytest
import sklearn.ensemble
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from tilewright.trees import AdaBoostClassifier, AdaBoostRegressor

BOTH = [AdaBoostClassifier, AdaBoostRegressor]


def table(rows=300, classes=2, seed=0):
    """Few different values, so that stumps over bins are scikit-learn's."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (rows, 5)).astype(np.float32)
    z = np.abs(x[:, 0] - 20) + 0.5 * x[:, 1] + 8 * rng.random(rows)
    labels = np.digitize(z, np.quantile(z, np.linspace(0, 1, classes + 1)[1:-1]))
    return x, labels, z


def test_two_rounds_worked_by_hand():
    # Labels + - + + of rows 0 to 3: the first stump (split behind row 1) says +, and of the first
    # two rows the tie goes to class 0, which is wrong for row 0: e = 1/4, a = ln 3.
    x = torch.arange(4.0)[:, None]
    y = torch.tensor([1, 0, 1, 1])
    one = AdaBoostClassifier(n_estimators=1).fit(x, y)
    assert one.estimator_errors_.tolist() == pytest.approx([1 / 4])
    assert one.estimator_weights_.tolist() == pytest.approx([math.log(3)])
    # Row 0 then weighs 3 of 6, each other one 1 of 6. Split behind row 0: (1; 2/3 of the rest).
    # That one gets row 1 wrong: e = 1/6, a = ln 5.
    two = AdaBoostClassifier(n_estimators=2).fit(x, y)
    assert two.estimator_errors_.tolist() == pytest.approx([1 / 4, 1 / 6])
    assert two.estimator_weights_.tolist() == pytest.approx([math.log(3), math.log(5)])
    assert two.arrays_["threshold"][[0, 3]].tolist() == [1.5, 0.5]
    # Row 1: the first says 0, the second 1; a decision of 2 (ln 5 - ln 3) / (ln 5 + ln 3).
    expected = 2 * (math.log(5) - math.log(3)) / math.log(15)
    assert two.decision_function(x)[1].item() == pytest.approx(expected, abs=1e-6)
    shares = two.predict_proba(x)
    assert shares[1, 1].item() == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-6)
    halved = AdaBoostClassifier(n_estimators=1, learning_rate=0.5).fit(x, y)
    assert halved.estimator_weights_[0] == pytest.approx(math.log(3) / 2)


def test_three_classes_worked_by_hand():
    # A stump tells two of three classes apart: e = 1/3, a = ln 2 + ln 2.
    x = torch.arange(3.0)[:, None]
    model = AdaBoostClassifier(n_estimators=1).fit(x, torch.arange(3))
    assert model.estimator_weights_[0] == pytest.approx(2 * math.log(2))
    # One-hot votes: 1 for the class, -1/2 for the others.
    assert sorted(model.decision_function(x)[0].tolist()) == pytest.approx([-0.5, -0.5, 1])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("rate", "depth"), [(1.0, 1), (0.5, 2)])
def test_weights_are_scikit_learns(classes, rate, depth):
    x, y, _ = table(classes=classes)
    ours = AdaBoostClassifier(n_estimators=15, learning_rate=rate, max_depth=depth, random_state=0)
    theirs = sklearn.ensemble.AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=depth, random_state=0),
        n_estimators=15,
        learning_rate=rate,
        random_state=0,
    )
    ours.fit(x, y)
    theirs.fit(x, y)
    np.testing.assert_allclose(ours.estimator_weights_, theirs.estimator_weights_, rtol=1e-7)
    np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-7)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)
    assert (ours.predict(x) == theirs.predict(x)).mean() > 0.99
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, atol=1e-5)


def test_any_classifier_is_boosted_as_scikit_learn_does():
    x, y, _ = table(classes=3)
    x = (x - x.mean(0)) / x.std(0)
    w = np.random.default_rng(0).random(300)
    ours = AdaBoostClassifier(LogisticRegression(C=0.1), n_estimators=6).fit(x, y, w)
    theirs = sklearn.ensemble.AdaBoostClassifier(LogisticRegression(C=0.1), n_estimators=6)
    theirs.fit(x, y, w)
    np.testing.assert_allclose(ours.estimator_weights_, theirs.estimator_weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-8)
    with pytest.raises(ValueError, match="only an ensemble of trees"):
        ours.to_module()
    tensors = ours.predict_proba(torch.from_numpy(x))
    np.testing.assert_allclose(tensors.numpy(), theirs.predict_proba(x), atol=1e-6)
    drawn = AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=2), n_estimators=10, resample=True, random_state=0
    ).fit(x, y)
    assert drawn.score(x, y) > 0.7


@pytest.mark.parametrize("loss", ["linear", "square", "exponential"])
def test_any_regressor_is_boosted_as_scikit_learn_does(loss):
    x, _, z = table()
    ours = AdaBoostRegressor(Ridge(), n_estimators=6, loss=loss, random_state=3).fit(x, z)
    theirs = sklearn.ensemble.AdaBoostRegressor(Ridge(), n_estimators=6, loss=loss, random_state=3)
    theirs.fit(x, z)
    # Both draw rows from the same generator only as long as the base takes no random state.
    np.testing.assert_allclose(ours.estimator_weights_, theirs.estimator_weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-6)


@pytest.mark.parametrize("loss", ["linear", "square", "exponential"])
def test_the_weight_of_a_regressor_is_that_of_the_formula(loss):
    x, _, z = table()
    model = AdaBoostRegressor(n_estimators=1, loss=loss, random_state=0).fit(x, z)
    losses = np.abs(model.predict(x) - z)
    losses = losses / losses.max()
    losses = {"linear": losses, "square": losses**2, "exponential": 1 - np.exp(-losses)}[loss]
    error = losses.mean()
    assert model.estimator_errors_[0] == pytest.approx(error, rel=1e-5)
    assert model.estimator_weights_[0] == pytest.approx(math.log((1 - error) / error), rel=1e-5)
    # The next tree's rows weigh beta ** (1 - loss): with beta from here its error follows, but
    # for the draw. A rate of 0.5 halves the weight.
    halved = AdaBoostRegressor(n_estimators=1, loss=loss, learning_rate=0.5, random_state=0)
    assert halved.fit(x, z).estimator_weights_[0] == pytest.approx(model.estimator_weights_[0] / 2)


def test_regressors_weigh_the_rows_they_get_wrong():
    """The second round's error, with the weights of the first worked out from its answers."""
    x, _, z = table()
    model = AdaBoostRegressor(n_estimators=2, random_state=0).fit(x, z)
    answers = model.to_module().trees.scores(torch.from_numpy(x)).double().numpy()
    losses = np.abs(answers - z[:, None])
    losses = losses / losses.max(0)
    beta = losses[:, 0].mean() / (1 - losses[:, 0].mean())
    weights = beta ** (1 - losses[:, 0])
    error = np.average(losses[:, 1], weights=weights)
    assert model.estimator_errors_[1] == pytest.approx(error, rel=1e-5)


def test_the_median_weighs():
    x, _, z = table()
    model = AdaBoostRegressor(n_estimators=7, random_state=0).fit(x, z)
    answers = model.to_module().trees.scores(torch.from_numpy(x)).double().numpy()
    found = model.predict(x)
    for row in range(0, 300, 23):
        order = np.argsort(answers[row], kind="stable")
        below = 0.0
        for t in order:
            below += model.estimator_weights_[t]
            if below >= model.estimator_weights_.sum() / 2:
                break
        assert found[row] == pytest.approx(answers[row, t])


def test_quality_is_scikit_learns():
    ours, theirs = [], []
    for seed in range(3):
        x, y, z = table(1200, classes=3, seed=seed)
        for into, module in ((ours, globals()), (theirs, vars(sklearn.ensemble))):
            model = module["AdaBoostRegressor"](n_estimators=30, random_state=seed)
            into.append(model.fit(x[:600], z[:600]).score(x[600:], z[600:]))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.02)
    x, y, _ = table(1200)
    drawn = AdaBoostClassifier(n_estimators=30, resample=True, random_state=0)
    weighed = AdaBoostClassifier(n_estimators=30)
    scores = [m.fit(x[:600], y[:600]).score(x[600:], y[600:]) for m in (drawn, weighed)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    assert min(scores) > 0.8


def test_rounds_end_where_nothing_is_left():
    x = torch.arange(6.0)[:, None]
    perfect = AdaBoostClassifier(n_estimators=9).fit(x, (x[:, 0] > 2).long())
    assert perfect.n_iter_ == 1
    assert perfect.estimator_weights_.tolist() == [1.0] + [0.0] * 8
    assert perfect.estimator_errors_.tolist() == [0.0] + [1.0] * 8
    steps = AdaBoostRegressor(n_estimators=9, random_state=0).fit(
        x.repeat(9, 1), x.repeat(9, 1)[:, 0] > 2
    )
    assert steps.n_iter_ == 1
    # Nothing tells the classes apart, so the first stump errs for half the rows.
    with pytest.raises(ValueError, match="worse than random, ensemble can not be fit"):
        AdaBoostClassifier().fit(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="worse than random, ensemble can not be fit"):
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=1)).fit(
            torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])
        )
    # As scikit-learn's, a regressor keeps its only tree, however bad.
    y = torch.tensor([0.0, 1.0]).repeat(10)
    bad = AdaBoostRegressor(random_state=0).fit(torch.zeros(20, 1), y)
    assert bad.n_iter_ == 1
    assert bad.predict(torch.zeros(2, 1)).isfinite().all()
    with pytest.warns(UserWarning, match="reached infinite values"):
        AdaBoostClassifier(learning_rate=1000.0).fit(*(torch.from_numpy(t) for t in table()[:2]))


def test_rows_of_no_weight_are_not_there():
    x, y, z = table()
    w = (np.arange(300) % 3 > 0).astype(float)
    for kind, target in ((AdaBoostClassifier, y), (AdaBoostRegressor, z)):
        spoilt = target.copy()
        spoilt[w == 0] = spoilt.max() - spoilt[w == 0]
        weighed = [
            kind(n_estimators=5, random_state=0).fit(x, t, w).predict(x) for t in (target, spoilt)
        ]
        np.testing.assert_array_equal(*weighed)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("options", [{}, {"max_depth": 4, "max_features": 2}])
def test_the_number_of_threads_does_not_show(kind, options):
    x, y, z = table(30000)
    target = y if kind is AdaBoostClassifier else z
    models, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        models.append(kind(n_estimators=4, random_state=3, **options).fit(x, target))
    torch.set_num_threads(before)
    for model in models[1:]:
        np.testing.assert_array_equal(models[0].estimator_weights_, model.estimator_weights_)
        for name, array in models[0].arrays_.items():
            assert torch.equal(array, model.arrays_[name]), name


@pytest.mark.parametrize("kind", BOTH)
def test_serving(kind, tmp_path):
    x, y, z = table()
    x[::7, 2] = np.nan
    x = torch.from_numpy(x)
    model = kind(n_estimators=8, random_state=0).fit(x, y if kind is AdaBoostClassifier else z)
    module = model.to_module()
    expected = module(x)
    call = model.predict_proba if kind is AdaBoostClassifier else model.predict
    torch.testing.assert_close(call(x).reshape(expected.shape), expected)
    torch.jit.script(module).save(str(tmp_path / "m.pt"))
    assert torch.equal(torch.jit.load(str(tmp_path / "m.pt"))(x), expected)
    assert torch.equal(torch.export.export(module, (x,)).module()(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model)).to_module()(x), expected)
    assert call(x[:0]).shape[0] == 0


def test_leaves_are_one_hot():
    x, y, _ = table(classes=3)
    model = AdaBoostClassifier(n_estimators=4).fit(x, y)
    leaf = model.arrays_["left"] < 0
    values = model.arrays_["value"][leaf]
    assert ((values != 0).sum(1) == 1).all()
    per_tree = model.estimator_weights_ / model.estimator_weights_.sum()
    # K / (K - 1)^2 of the tree's share.
    np.testing.assert_allclose(values.max(1).values[::2], per_tree * 3 / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"n_estimators": 0}, "n_estimators must be a positive integer, got 0"),
        ({"max_depth": 0}, "max_depth must be a positive integer, got 0"),
        ({"criterion": "linear"}, "criterion must be"),
        ({"estimator": DecisionTreeRegressor(), "n_estimators": 0}, "n_estimators must be"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_bad_options_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).fit(torch.randn(20, 3), torch.arange(20) % 2)


def test_bad_input_is_named():
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    with pytest.raises(ValueError, match="at least 2 classes, got 1 class"):
        AdaBoostClassifier().fit(x, torch.ones(20))
    many = torch.arange((1 << 15) + 1)
    with pytest.raises(ValueError, match=r"lie in \[2, 32768\], got 32769"):
        AdaBoostClassifier().fit(many[:, None].float(), many)
    with pytest.raises(ValueError, match="loss must be linear, square or exponential, got 'cubic'"):
        AdaBoostRegressor(loss="cubic").fit(x, y)
    with pytest.raises(ValueError, match="y must be finite; that of row 0 is nan"):
        AdaBoostRegressor().fit(x, y * float("nan"))
    with pytest.raises(ValueError, match="X has 4 features, but AdaBoostClassifier"):
        AdaBoostClassifier().fit(x, y).predict(torch.zeros(2, 4))


@parametrize_with_checks([kind(n_estimators=5) for kind in BOTH])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
