"""Metrics by definition, their history on several sets, early stopping by them, class weights."""

import numpy as np
import pytest
import torch
from checks import threads
from reference_trees import table
from sklearn import metrics as sklearn_metrics

from tilewright._C import Booster
from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


def halves(rows, missing=False):
    x, y = table(2 * rows, missing=missing)
    return x[:rows], y[:rows], x[rows:], y[rows:]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logloss", lambda y, p, w: sklearn_metrics.log_loss(y, p, sample_weight=w)),
        ("error", lambda y, p, w: 1 - sklearn_metrics.accuracy_score(y, p > 0.5, sample_weight=w)),
        ("auc", lambda y, p, w: sklearn_metrics.roc_auc_score(y, p, sample_weight=w)),
        ("rmse", lambda y, p, w: np.sqrt(np.average((y - p) ** 2, weights=w))),
        ("mae", lambda y, p, w: np.average(np.abs(y - p), weights=w)),
    ],
)
def test_named_metrics_of_two_classes(name, expected, weighted):
    x, y, ex, ey = halves(333)
    # Few leaves, so that many predictions are equal.
    model = GradientBoostingClassifier(n_estimators=2, max_depth=2, eval_metric=name)
    weight = torch.rand(333) if weighted else None
    model.fit(x, (y > 0).long(), eval_set=(ex, (ey > 0).long(), weight))
    # ATen's sigmoid rounds equal scores by their place; of them AUC takes ties.
    p = model.predict_proba(ex)[:, 1].double().numpy().round(6)
    value = expected((ey > 0).numpy(), p, None if weight is None else weight.double().numpy())
    assert model.evals_result_[-1] == pytest.approx(value, rel=1e-5)
    assert model.eval_history_ == [{name: model.evals_result_}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logloss", lambda y, p: sklearn_metrics.log_loss(y, p)),
        ("error", lambda y, p: 1 - sklearn_metrics.accuracy_score(y, p.argmax(1))),
    ],
)
def test_named_metrics_of_three_classes(name, expected):
    x, y, ex, ey = halves(301)
    model = GradientBoostingClassifier(n_estimators=3, eval_metric=name)
    edges = [-1.0, 1.0]
    classes = np.digitize(ey.numpy(), edges)
    model.fit(x.numpy(), np.digitize(y.numpy(), edges), eval_set=(ex.numpy(), classes))
    value = expected(classes, model.predict_proba(ex.numpy()))
    assert model.evals_result_[-1] == pytest.approx(value, rel=1e-5)


def test_auc_of_ties_by_hand():
    booster = Booster({"objective": "logistic", "n_estimators": 1, "max_depth": 1})
    x = torch.tensor([[1.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([0.0, 1.0, 1.0, 1.0])
    rows = torch.tensor([0, 1, 2, 3]).repeat_interleave(8)
    fit_y = (x[rows, 0] > 1.5).float()
    seen = []
    booster.fit(
        x[rows],
        fit_y,
        evaluation=[(x, y, None, None)],
        metrics=["auc", ("own", lambda labels, p: seen.append((labels, p)) or 0.5, True)],
    )
    # One split: rows 2 and 3 score higher than row 0, row 1 the same.
    assert booster.history[0][0] == [pytest.approx((0.5 + 1 + 1) / 3)]
    assert booster.history[0][1] == [0.5]
    labels, predictions = seen[0]
    assert torch.equal(labels, y) and predictions.shape == (4,)


def test_history_of_several_sets_and_metrics():
    x, y, ex, ey = halves(300)

    def worst(labels, predictions):
        assert labels.dtype == np.float64 and predictions.shape == labels.shape
        return np.abs(labels - predictions).max()

    model = GradientBoostingRegressor(n_estimators=8, eval_metric=["mae", worst])
    model.fit(x, y, eval_set=[(x, y), (ex, ey)])
    assert [list(history) for history in model.eval_history_] == [["mae", "worst"]] * 2
    for history, (a, b) in zip(model.eval_history_, [(x, y), (ex, ey)], strict=True):
        rest = (model.predict(a) - b).abs()
        assert history["mae"][-1] == pytest.approx(rest.mean().item(), rel=1e-5)
        assert history["worst"][-1] == pytest.approx(rest.max().item(), rel=1e-5)
        assert len(history["mae"]) == 8
    assert model.evals_result_ == model.eval_history_[1]["worst"]


@pytest.mark.parametrize(("greater", "best"), [(True, np.argmax), (False, np.argmin)])
def test_early_stopping_knows_the_direction(greater, best):
    x, y, ex, ey = halves(300)
    values = iter([1.0, 3.0, 2.0, 0.5, 2.5, 2.6, 2.7, 2.8, 2.9] * 10)
    model = GradientBoostingRegressor(
        eval_metric=lambda labels, p: next(values),
        greater_is_better=greater,
        early_stopping_rounds=4,
    ).fit(x, y, eval_set=(ex, ey))
    assert model.n_iter_ == best(model.evals_result_) + 1 == (2 if greater else 4)
    assert len(model.evals_result_) == model.n_iter_ + 4


def test_early_stopping_by_auc_keeps_the_best():
    x, y, ex, ey = halves(400)
    model = GradientBoostingClassifier(
        n_estimators=300, learning_rate=0.5, eval_metric="auc", early_stopping_rounds=5
    ).fit(x, (y > 0).long(), eval_set=(ex, (ey > 0).long()))
    assert model.n_iter_ == int(np.argmax(model.evals_result_)) + 1 < 300
    p = model.predict_proba(ex)[:, 1].numpy().round(6)
    assert sklearn_metrics.roc_auc_score(ey > 0, p) == pytest.approx(
        max(model.evals_result_), abs=1e-6
    )


def test_class_weights_are_sample_weights():
    x, y = table(500)
    labels = np.array(["a", "b", "c"])[np.digitize(y.numpy(), [0.0, 2.5])]
    counts = {c: (labels == c).sum() for c in "abc"}
    balanced = {c: 500 / (3 * n) for c, n in counts.items()}
    by_hand = np.array([balanced[c] for c in labels])
    given = np.linspace(0.5, 2, 500)
    for own, class_weight, equal in (
        (None, "balanced", by_hand),
        (given, balanced, given * by_hand),
        (None, {"a": 3.0}, np.where(labels == "a", 3.0, 1.0)),
    ):
        model = GradientBoostingClassifier(n_estimators=5, class_weight=class_weight)
        model.fit(x.numpy(), labels, sample_weight=own)
        other = GradientBoostingClassifier(n_estimators=5)
        other.fit(x.numpy(), labels, sample_weight=equal)
        np.testing.assert_allclose(
            model.predict_proba(x.numpy()), other.predict_proba(x.numpy()), atol=1e-5
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eval_metric": "acc"}, RuntimeError, "a metric must be rmse, .* got acc"),
        ({"eval_metric": "ndcg@0"}, RuntimeError, "a metric must be rmse, .* got ndcg@0"),
        ({"eval_metric": "ndcg"}, RuntimeError, "the metric ndcg needs queries"),
        ({"eval_metric": "auc"}, RuntimeError, "auc needs rows of both classes"),
        ({"eval_metric": 3}, ValueError, "eval_metric must be names or functions, got 3"),
        ({"eval_metric": lambda y, p: 1 / 0}, ZeroDivisionError, "division"),
        ({"class_weight": {5: 1.0}}, ValueError, "class_weight|classes"),
        ({"class_weight": "even"}, ValueError, "class_weight"),
    ],
)
def test_what_is_no_metric_or_weight(options, error, message):
    x = torch.randn(20, 3)
    y = torch.arange(20) % 2
    model = GradientBoostingClassifier(n_estimators=2, **options)
    with pytest.raises(error, match=message):
        model.fit(x, y, eval_set=(x[::2], y[::2]))


def test_what_is_no_evaluation_set():
    x, y = torch.randn(20, 3), torch.randn(20)
    model = GradientBoostingRegressor(n_estimators=2)
    with pytest.raises(ValueError, match=r"must be a tuple .* its part 0 is a Tensor"):
        model.fit(x, y, eval_set=[x, y])
    with pytest.raises(RuntimeError, match="the evaluation set's y must be finite; that of row 1"):
        model.fit(x, y, eval_set=(x[:2], torch.tensor([0.0, float("inf")])))
    with pytest.raises(ValueError, match="X has 2 features"):
        model.fit(x, y, eval_set=(x[:, :2], y))
    with pytest.raises(RuntimeError, match="the evaluation set's x must not be empty"):
        model.fit(x, y, eval_set=(x[:0], y[:0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("cls", [GradientBoostingRegressor, GradientBoostingClassifier])
def test_labels_that_are_not_finite_name_the_row(cls, value):
    x, y = np.random.default_rng(0).standard_normal((10, 2)), np.arange(10.0) % 2
    y[7] = value
    with pytest.raises(ValueError, match=f"y must be finite; that of row 7 is {value}"):
        cls().fit(x, y)


def test_fewer_rows_than_classes():
    booster = Booster({"objective": "softmax", "num_class": 5})
    with pytest.raises(RuntimeError, match="as many rows as there are classes, 5, got 3"):
        booster.fit(torch.randn(3, 2), torch.tensor([0.0, 1.0, 2.0]))


@pytest.mark.parametrize("loss", ["logistic", "softmax", "poisson", "huber"])
def test_metrics_have_the_same_bits_for_any_number_of_threads(loss):
    """ATen's kernels round by where a thread's share of the rows ends."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(100_003, 3, generator=g)
    signal = x[:, 0] + torch.randn(100_003, generator=g)
    if loss in ("logistic", "softmax"):
        model = GradientBoostingClassifier(n_estimators=2, max_depth=3)
        y = torch.bucketize(signal, torch.tensor([0.0] if loss == "logistic" else [-1.0, 1.0]))
    else:
        model = GradientBoostingRegressor(n_estimators=2, max_depth=3, loss=loss)
        y = signal.exp().floor().clamp_max(50) if loss == "poisson" else signal
    found = [
        threads(n, lambda: model.fit(x, y, eval_set=[(x, y)]).eval_history_) for n in (1, 2, 3)
    ]
    assert found[0] == found[1] == found[2]


def test_patience_is_not_negative():
    x, y = table()
    model = GradientBoostingRegressor(early_stopping_rounds=-1)
    with pytest.raises(ValueError, match="early_stopping_rounds must not be negative, got -1"):
        model.fit(x, y, eval_set=[(x, y)])


def test_equal_weights_change_no_base_score():
    """Sums of weights in float32 would stall at 2^24."""
    y = torch.zeros(2_000_000)
    y[:600], y[600:1000] = 1, 2
    x = torch.zeros(len(y), 1)
    model = GradientBoostingClassifier(n_estimators=1, max_depth=1)
    plain = model.fit(x, y).base_score_
    weighted = model.fit(x, y, torch.full((len(y),), 0.1)).base_score_
    torch.testing.assert_close(weighted, plain, atol=1e-6, rtol=0)
