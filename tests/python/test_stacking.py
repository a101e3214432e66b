"""Stacking: the last estimator learns from answers of models that did not see the row."""

import numpy as np
import pytest
import torch
from reference_trees import table
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import StackingClassifier as TheirStacking
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from tilewright.trees import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    StackingClassifier,
    StackingRegressor,
    TorchClassifier,
    TorchRegressor,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class SawRow(RegressorMixin, BaseEstimator):
    """Answers 1 for a row that it was fitted on, else 0."""

    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        self.seen_ = {row.tobytes() for row in np.ascontiguousarray(X)}
        return self

    def predict(self, X):
        return np.array([float(row.tobytes() in self.seen_) for row in np.ascontiguousarray(X)])


class Spy(RegressorMixin, BaseEstimator):
    """Keeps what it was fitted on."""

    def fit(self, X, y):
        self.X_, self.y_ = X, y
        return self

    def predict(self, X):
        return X[:, 0]


class ClassSpy(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.X_, self.classes_ = X, np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.mark.parametrize("cv", [None, 2, 23])
def test_no_answer_comes_from_a_model_that_saw_the_row(cv):
    x, y = table(23, 4)
    model = StackingRegressor([("saw", SawRow())], final_estimator=Spy(), cv=cv).fit(x, y)
    assert model.final_estimator_.X_.tolist() == [[0.0]] * 23
    np.testing.assert_array_equal(model.final_estimator_.y_, y.numpy())
    # Those that answer later saw all rows.
    assert model.predict(x).tolist() == [1.0] * 23


def test_out_of_fold_answers_are_those_of_the_folds_by_hand():
    x, y = table(130, 4)
    layer = [
        ("trees", GradientBoostingRegressor(n_estimators=5)),
        ("net", TorchRegressor(epochs=3, random_state=0)),
        ("near", KNeighborsRegressor(1)),
    ]
    folds = KFold(4, shuffle=True, random_state=5)
    model = StackingRegressor(layer, final_estimator=Spy(), cv=folds, passthrough=True).fit(x, y)
    expected = np.zeros((130, 3))
    for train, test in folds.split(x):
        for k, (_, estimator) in enumerate(layer):
            fitted = clone(estimator).fit(x.numpy()[train], y.numpy()[train])
            expected[test, k] = fitted.predict(x.numpy()[test])
    found = model.final_estimator_.X_
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[:, 3:], x.numpy())
    # On the rows that it was fitted on, the nearest is the row: what leaks, and must not be used.
    np.testing.assert_allclose(model.transform(x)[:, 2], y)
    assert np.abs(found[:, 2] - y.numpy()).max() > 0.5


def test_weights_of_the_last_estimator_by_hand():
    # One that is right and one that is constant: all weight goes to the first.
    x = torch.arange(12.0)[:, None]
    y = 2 * x[:, 0] + 1
    last = LinearRegression()
    layer = [("line", LinearRegression()), ("stump", DecisionTreeRegressor(max_depth=1))]
    model = StackingRegressor(layer, final_estimator=last, cv=KFold(3, shuffle=True)).fit(x, y)
    np.testing.assert_allclose(model.final_estimator_.coef_, [1, 0], atol=1e-4)
    torch.testing.assert_close(model.predict(torch.tensor([[20.0]])), torch.tensor([41.0]))


def test_columns_of_classes():
    x, y = table(90, 4)
    layer = [
        ("trees", GradientBoostingClassifier(n_estimators=3)),
        ("net", TorchClassifier(epochs=2, random_state=0)),
    ]
    two = StackingClassifier(layer, final_estimator=ClassSpy(), cv=3).fit(x, y > 0)
    assert two.final_estimator_.X_.shape == (90, 2)  # the second class's probability
    torch.testing.assert_close(
        two.transform(x)[:, 0], two.named_estimators_["trees"].predict_proba(x)[:, 1]
    )
    three = np.digitize(y.numpy(), [-1.0, 1.0])
    model = StackingClassifier(layer, final_estimator=ClassSpy(), cv=3).fit(x, three)
    found = model.final_estimator_.X_
    assert found.shape == (90, 6)
    np.testing.assert_allclose(found[:, :3].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[:, 3:].sum(1), 1, rtol=1e-5)
    votes = StackingClassifier(layer, ClassSpy(), cv=3, stack_method="predict").fit(x, three)
    assert set(np.unique(votes.final_estimator_.X_)) <= {0, 1, 2}


def test_a_net_and_trees_together():
    x, y = table(1500, 4)
    names = np.where(y > 0, "up", "down")
    layer = [
        ("trees", GradientBoostingClassifier(n_estimators=30, max_depth=3)),
        ("net", TorchClassifier(epochs=20, random_state=0)),
    ]
    model = StackingClassifier(layer, cv=3).fit(x[:800], names[:800])
    assert isinstance(model.final_estimator_, LogisticRegression)
    assert model.score(x[800:], names[800:]) > 0.85
    assert (model.final_estimator_.coef_ > 0).all()  # both are listened to
    assert set(model.predict(x[:9])) <= {"up", "down"}
    probability = model.predict_proba(x[:9])
    torch.testing.assert_close(probability.sum(1), torch.ones(9))


def test_tensors_are_answered_with_tensors():
    x, y = table(100, 4)
    labels = np.digitize(y.numpy(), [-1.0, 1.0])
    layer = [("tree", DecisionTreeClassifier(max_depth=3, random_state=0))]
    ours = StackingClassifier(layer, cv=3).fit(x, torch.from_numpy(labels))
    theirs = TheirStacking(layer, cv=3).fit(x.numpy(), labels)
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        expected = getattr(theirs, method)(x.numpy())
        np.testing.assert_array_equal(getattr(ours, method)(x.numpy()), expected)
        found = getattr(ours, method)(x)
        assert isinstance(found, torch.Tensor)
        torch.testing.assert_close(found.numpy(), expected, check_dtype=False)
    assert ours.score(x, torch.from_numpy(labels)) == theirs.score(x.numpy(), labels)
    assert isinstance(clone(ours).fit_transform(x, torch.from_numpy(labels)), torch.Tensor)
    assert not hasattr(StackingClassifier(layer, ClassSpy()).fit(x, labels), "predict_proba")


def test_weights_reach_all_estimators():
    x, y = table(60, 4)
    weight = torch.ones(60)
    weight[1::3] = 0
    kept = weight > 0
    layer = [("net", TorchRegressor(epochs=1, random_state=0)), ("mean", DummyRegressor())]
    model = StackingRegressor(layer, cv=3).fit(x, y, sample_weight=weight)
    assert model.estimators_[1].predict(x[:1]).item() == pytest.approx(
        y[kept].mean().item(), rel=1e-4
    )
    with pytest.raises(TypeError, match="SawRow does not support sample weights"):
        StackingRegressor([("saw", SawRow())]).fit(x, y, sample_weight=weight)


def test_fitted_estimators_are_used_as_they_are():
    x, y = table(200, 4)
    first = GradientBoostingRegressor(n_estimators=10).fit(x[:100], y[:100])
    model = StackingRegressor([("trees", first)], final_estimator=Spy(), cv="prefit")
    model.fit(x[100:], y[100:])
    torch.testing.assert_close(model.predict(x), first.predict(x))
    unfitted = StackingRegressor([("trees", GradientBoostingRegressor())], cv="prefit")
    with pytest.raises(NotFittedError):
        unfitted.fit(x, y)


def test_what_is_refused():
    x, y = torch.randn(20, 3), torch.randn(20)
    with pytest.raises(ValueError, match="non-empty list"):
        StackingRegressor([]).fit(x, y)
    with pytest.raises(ValueError, match="should be a classifier"):
        StackingClassifier([("net", TorchClassifier())], LinearRegression()).fit(x, y > 0)
    with pytest.raises(ValueError, match="should be a regressor"):
        StackingRegressor([("net", TorchClassifier())]).fit(x, y)
    with pytest.raises(ValueError, match="Unknown label type"):
        StackingClassifier([("net", TorchClassifier())]).fit(x, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        StackingRegressor([("net", TorchRegressor())]).fit(x, y[:-1])
    with pytest.raises(ValueError):
        StackingRegressor([("trees", GradientBoostingRegressor())]).fit(x[:0], y[:0])
    model = StackingRegressor([("net", TorchRegressor(epochs=1))], cv=2).fit(x, y)
    with pytest.raises(ValueError, match="X has 4 features, but TorchRegressor"):
        model.predict(torch.randn(2, 4))


SHALLOW = {"max_depth": 3}


@parametrize_with_checks(
    [
        StackingClassifier(
            [(f"est{i}", DecisionTreeClassifier(**SHALLOW, random_state=i)) for i in range(2)], cv=3
        ),
        StackingRegressor(
            [(f"est{i}", DecisionTreeRegressor(**SHALLOW, random_state=i)) for i in range(2)], cv=3
        ),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)
