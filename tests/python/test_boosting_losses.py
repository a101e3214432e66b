"""Losses of boosting: steps by autograd, quantiles, functions of the caller's."""

import math

import pytest
import torch
from checks import threads
from reference_trees import table

from tilewright._C import Booster
from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson", "gamma", "tweedie"])
def test_gradients_are_those_of_the_loss(loss):
    """One leaf without regularisation steps to -g / h of the mean loss, by autograd."""
    x, y = torch.zeros(50, 1), torch.rand(50) + 0.1
    alpha = 1.4
    model = GradientBoostingRegressor(
        loss=loss,
        alpha=alpha,
        n_estimators=1,
        learning_rate=1.0,
        reg_lambda=0.0,
        max_delta_step=0.0,
    ).fit(x, y)
    losses = {
        "squared_error": lambda s: (s - y).square() / 2,
        "huber": lambda s: alpha**2 * ((1 + ((s - y) / alpha).square()).sqrt() - 1),
        "poisson": lambda s: s.exp() - y * s,
        "gamma": lambda s: s + y * (-s).exp(),
        "tweedie": lambda s: (
            ((2 - alpha) * s).exp() / (2 - alpha) - y * ((1 - alpha) * s).exp() / (1 - alpha)
        ),
    }
    score = model.base_score_.double().requires_grad_()
    (g,) = torch.autograd.grad(losses[loss](score).sum(), score, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), score)
    assert model.arrays_["value"].item() == pytest.approx((-g / h).item(), abs=2e-4)


def test_poisson_steps_are_held_back():
    """By hand: every hessian is exp(s + step), and no leaf answers more than the step."""
    y = torch.cat([torch.zeros(9), torch.tensor([10.0])])
    x = (y[:, None] > 0).float()
    found = {}
    for step in (None, 0.2, 0.0):
        model = GradientBoostingRegressor(
            loss="poisson",
            n_estimators=1,
            learning_rate=1.0,
            reg_lambda=0.0,
            max_depth=1,
            max_delta_step=step,
        ).fit(x, y)
        scores = model.predict(x).log()  # beside the base score, log(1)
        found[step] = scores[0].item(), scores[9].item()
    # Rows of 0: -1 / exp(step); the other: 9 / exp(step); or as far as may be.
    assert found[None] == pytest.approx((-math.exp(-0.7), 0.7), abs=1e-4)
    assert found[0.2] == pytest.approx((-0.2, 0.2), abs=1e-4)
    assert found[0.0] == pytest.approx((-1.0, 9.0), abs=1e-3)


@pytest.mark.parametrize("loss", ["absolute_error", "quantile"])
def test_leaves_are_quantiles_of_residuals(loss):
    x = (torch.arange(40) % 2).float()[:, None]
    y = torch.randn(40) + 5 * x[:, 0]
    alpha = 0.25 if loss == "quantile" else 0.5
    model = GradientBoostingRegressor(
        loss=loss, alpha=alpha, n_estimators=1, learning_rate=1.0, max_depth=1
    ).fit(x, y)
    for value in (0.0, 1.0):
        ascending = y[x[:, 0] == value].double().sort().values
        place = alpha * 21 - 1
        low = ascending[int(place)]
        expected = low + (place - int(place)) * (ascending[int(place) + 1] - low)
        got = model.predict(torch.tensor([[value]])).item()
        assert got == pytest.approx(expected.item(), abs=1e-5)


def test_quantiles_cover_their_share():
    x, y = table(4000)
    for alpha in (0.1, 0.5, 0.9):
        model = GradientBoostingRegressor(
            loss="quantile", alpha=alpha, n_estimators=60, max_depth=3
        )
        below = (y[2000:] <= model.fit(x[:2000], y[:2000]).predict(x[2000:])).float().mean()
        assert below == pytest.approx(alpha, abs=0.08)


def test_a_function_as_loss():
    x, y = table(500)
    own = GradientBoostingRegressor(loss=lambda s, t: s.exp() - t * s, n_estimators=100)
    assert own.fit(x, y.abs()).base_score_ == pytest.approx(y.abs().mean().item() - 1)
    assert own.predict(x).exp().mean() == pytest.approx(y.abs().mean().item(), rel=0.02)
    huge = GradientBoostingRegressor(
        loss=lambda s, t: (s - t).abs(), hessian=1.0, n_estimators=200
    ).fit(x, y)
    assert (huge.predict(x) - y).abs().mean() < 0.5 * (y - y.median()).abs().mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda s, t: (s - t).abs(), "no second derivative of the loss by the scores is positive"),
        (lambda s, t: (s - t).square().sum(), r"one value for each row, \(20,\), got \(\)"),
        (lambda s, t: t, "must depend on the scores"),
    ],
)
def test_functions_that_are_no_losses(loss, message):
    with pytest.raises(RuntimeError, match=message):
        GradientBoostingRegressor(loss=loss).fit(torch.randn(20, 3), torch.randn(20))


def test_hessians_of_a_function_are_diagonals():
    """Of softmax, p (1 - p); the gradient of the summed gradient would be 0."""
    x, labels = torch.zeros(30, 1), torch.randint(0, 3, (30,)).float()
    booster = Booster(
        {"n_estimators": 1, "learning_rate": 1.0, "reg_lambda": 0.0, "min_child_weight": 0.0},
        lambda s, t: torch.nn.functional.cross_entropy(s, t.long(), reduction="none"),
        3,
    )
    booster.fit(x, labels)
    base = booster.base_score.double()
    share = torch.stack([(labels == k).double().mean() for k in range(3)])
    torch.testing.assert_close(base, (share - 1 / 3) / (1 / 3 * 2 / 3), atol=1e-5, rtol=1e-5)
    p = base.softmax(0)
    expected = (share - p) / (p * (1 - p))
    got = booster.arrays()["value"].double()
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("loss", ["logistic", "softmax", "poisson", "huber"])
def test_many_rows_give_the_same_bits_for_any_number_of_threads(loss):
    """ATen's kernels round by where a thread's share of the rows ends, and sum by threads."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(70001, 4, generator=g)
    signal = x[:, 0] + x[:, 1] * x[:, 2] + torch.randn(70001, generator=g)
    if loss in ("logistic", "softmax"):
        model = GradientBoostingClassifier(n_estimators=5, max_depth=4)
        y = torch.bucketize(signal, torch.tensor([0.0] if loss == "logistic" else [-1.0, 1.0]))
    else:
        model = GradientBoostingRegressor(loss=loss, n_estimators=5, max_depth=4)
        y = (signal / 4).exp().floor() if loss == "poisson" else signal
    weight = torch.rand(70001, generator=g)
    for weights in (None, weight):

        def arrays(w=weights):
            fitted = model.fit(x, y, w)
            return {**fitted.arrays_, "base_score": fitted.base_score_}

        one, two = threads(1, arrays), threads(2, arrays)
        for name, array in one.items():
            assert torch.equal(array, two[name]), name
