"""Bagging: draws and out-of-bag answers by hand, trees and torch modules inside, tensors."""

import numpy as np
import pytest
import torch
from reference_trees import table
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import BaggingClassifier as TheirBagging
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from tilewright.trees import (
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    TorchClassifier,
    TorchRegressor,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_out_of_bag_means_worked_by_hand():
    """Estimators that answer with the mean of what they saw."""
    x, y = torch.arange(7.0)[:, None], torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    model = BaggingRegressor(DummyRegressor(), 20, oob_score=True, random_state=0).fit(x, y)
    draws = model.estimators_samples_
    assert all(len(rows) == 7 for rows in draws)
    assert any(len(set(rows.tolist())) < 7 for rows in draws)  # with replacement
    means = [y[rows].mean().item() for rows in draws]
    expected = [
        np.mean([mean for mean, rows in zip(means, draws, strict=True) if row not in rows])
        for row in range(7)
    ]
    np.testing.assert_allclose(model.oob_prediction_, expected, rtol=1e-6)
    assert model.oob_score_ == pytest.approx(r2_score(y.numpy(), expected), rel=1e-5)
    torch.testing.assert_close(model.predict(x), torch.full((7,), float(np.mean(means))))


def test_out_of_bag_votes_worked_by_hand():
    x, y = table(60, 4)
    names = np.array(["low", "middle", "high"])[np.digitize(y.numpy(), [-1.0, 1.0])]
    nearest = KNeighborsClassifier(1)
    model = BaggingClassifier(nearest, 30, oob_score=True, random_state=0).fit(x, names)
    votes = np.zeros((60, 3))
    for estimator, rows in zip(model.estimators_, model.estimators_samples_, strict=True):
        out = np.setdiff1d(np.arange(60), rows)
        own = clone(nearest).fit(x[rows], names[rows]).predict(x[out])
        np.testing.assert_array_equal(model.classes_[estimator.predict(x[out])], own)
        votes[out, np.searchsorted(model.classes_, own)] += 1
    expected = votes / votes.sum(1, keepdims=True)
    np.testing.assert_allclose(model.oob_decision_function_, expected)
    assert model.oob_score_ == (model.classes_[votes.argmax(1)] == names).mean()


def test_out_of_bag_does_not_see_the_row():
    # Labels of pure noise, remembered by heart: only a row that was seen is answered right.
    x, y = torch.randn(300, 4), torch.randn(300)
    model = BaggingRegressor(KNeighborsRegressor(1), 50, oob_score=True, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.7
    assert model.oob_score_ < 0.05


def test_bagged_trees_are_those_of_weighted_rows():
    x, y = table(333, 4, missing=True)
    trees = GradientBoostingRegressor(n_estimators=5)
    model = BaggingRegressor(trees, 4, random_state=3).fit(x, y)
    answers = []
    for rows in model.estimators_samples_:
        count = torch.from_numpy(np.bincount(rows, minlength=333))
        answers.append(clone(trees).fit(x, y, sample_weight=count).predict(x))
    torch.testing.assert_close(model.predict(x), torch.stack(answers).mean(0))
    assert (answers[0] - answers[1]).abs().max() > 0.1


def test_shares_of_rows_and_columns():
    x, y = table(200, 6)
    model = BaggingClassifier(
        GradientBoostingClassifier(n_estimators=3),
        5,
        max_samples=0.5,
        max_features=2,
        bootstrap=False,
        random_state=0,
    ).fit(x, y > 0)
    assert all(len(np.unique(rows)) == 100 for rows in model.estimators_samples_)
    assert all(e.n_features_in_ == 2 for e in model.estimators_)
    assert len({tuple(f) for f in model.estimators_features_}) > 1
    expected = sum(
        e.predict_proba(x[:, f])
        for e, f in zip(model.estimators_, model.estimators_features_, strict=True)
    )
    torch.testing.assert_close(model.predict_proba(x), expected / 5)


def test_torch_modules_are_bagged():
    x, y = table(400, 4)
    labels = (y > 0).long()
    net = TorchClassifier(lambda f, k: torch.nn.Linear(f, k), lr=0.1, epochs=10)
    model = BaggingClassifier(net, 4, random_state=0).fit(x, labels)
    answers = torch.stack([e.predict_proba(x) for e in model.estimators_])
    torch.testing.assert_close(model.predict_proba(x), answers.mean(0))
    assert (answers[0] - answers[1]).abs().max() > 1e-3
    assert (model.predict(x) == labels).float().mean() > 0.8
    again = clone(model).fit(x, labels)
    assert torch.equal(again.predict_proba(x), model.predict_proba(x))
    clone(model).set_params(estimator__lr=0.5).fit(x, labels)
    # Each weight of rows is a draw: those that were not drawn are not seen.
    rows = model.estimators_samples_[0]
    one = clone(net).set_params(random_state=model.estimators_[0].random_state)
    one.fit(x, labels, sample_weight=np.bincount(rows, minlength=400))
    torch.testing.assert_close(one.predict_proba(x), answers[0])


def test_tensors_are_answered_with_tensors():
    x, y = table(100, 4)
    labels = np.digitize(y.numpy(), [-1.0, 1.0])
    ours = BaggingClassifier(random_state=0).fit(x, torch.from_numpy(labels))
    theirs = TheirBagging(random_state=0).fit(x.numpy(), labels)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        expected = getattr(theirs, method)(x.numpy())
        np.testing.assert_array_equal(getattr(ours, method)(x.numpy()), expected)
        found = getattr(ours, method)(x)
        assert isinstance(found, torch.Tensor)
        torch.testing.assert_close(found.numpy(), expected, check_dtype=False)
    assert ours.predict_proba(x).dtype == torch.float32
    assert ours.predict_proba(x.double()).dtype == torch.float64
    assert ours.predict(x).dtype == torch.int64
    assert ours.predict_proba(x.half().requires_grad_()).shape == (100, 3)
    assert ours.score(x, torch.from_numpy(labels)) == theirs.score(x.numpy(), labels)
    named = BaggingClassifier(random_state=0).fit(x, np.array(["a", "b", "c"])[labels])
    assert named.predict(x)[:3].tolist() == [["a", "b", "c"][k] for k in labels[:3]]
    assert not hasattr(ours, "decision_function") and not hasattr(ours, "transform")
    linear = BaggingClassifier(LinearSVC(), 3, random_state=0).fit(x, labels)
    assert linear.decision_function(x).shape == (100, 3)


def test_weights_are_probabilities_of_draws():
    x, y = table(100, 4)
    weight = (torch.arange(100) < 30).float()
    for model in (BaggingRegressor(), BaggingRegressor(TorchRegressor(epochs=1))):
        model.set_params(n_estimators=3, random_state=0).fit(x, y, sample_weight=weight)
        assert max(rows.max() for rows in model.estimators_samples_) < 30


def test_what_is_refused():
    x, y = torch.randn(20, 3), torch.randn(20)
    with pytest.raises(ValueError, match="n_estimators"):
        BaggingRegressor(n_estimators=0).fit(x, y)
    with pytest.raises(ValueError, match="only available if bootstrap=True"):
        BaggingRegressor(bootstrap=False, oob_score=True).fit(x, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        BaggingRegressor().fit(x, y[:-1])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        BaggingRegressor().fit(x[:0], y[:0])
    with pytest.raises(ValueError, match=r"X must hold finite|contains NaN"):
        BaggingRegressor(TorchRegressor()).fit(x * float("nan"), y)
    model = BaggingRegressor(n_estimators=2).fit(x, y)
    with pytest.raises(ValueError, match="X has 4 features, but BaggingRegressor"):
        model.predict(torch.randn(2, 4))


@parametrize_with_checks(
    [BaggingClassifier(n_estimators=5), BaggingRegressor(n_estimators=5)],
    # Weights are probabilities of draws; scikit-learn expects these of its own classes.
    expected_failed_checks=lambda _: {
        f"check_sample_weight_equivalence_on_{kind}_data": "draws differ"
        for kind in ("dense", "sparse")
    },
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)
