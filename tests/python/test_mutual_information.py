"""Mutual information of Gaussians, which is known in closed form, and of finite tables."""

import math

import numpy
import pytest
import torch
from checks import script_round_trip

import tilewright.mutual_information as mi


def gaussians(n, correlation, dim=1):
    """Pairs of which each column has the correlation, and their mutual information in nats."""
    x, noise = torch.randn(2, n, dim, dtype=torch.float64)
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    return x, y, -dim / 2 * math.log(1 - correlation**2)


def best_scores(x, y, correlation):
    """The logarithm of joint over product density, of all pairs: the best critic."""
    r = correlation
    a, b = x[:, None], y[None]
    quadratic = (r * r * (a * a + b * b) - 2 * r * a * b) / (2 * (1 - r * r))
    return (-quadratic - 0.5 * math.log(1 - r * r)).sum(2)


@pytest.mark.parametrize("correlation", [0.3, 0.8])
@pytest.mark.parametrize("dim", [1, 2])
def test_bounds_are_tight_for_the_best_critic(correlation, dim):
    x, y, exact = gaussians(3000, correlation, dim)
    scores = best_scores(x, y, correlation)
    joint, product = mi.split_scores(scores)
    assert mi.donsker_varadhan_bound(joint, product).item() == pytest.approx(exact, abs=0.08)
    assert mi.nwj_bound(joint + 1, product + 1).item() == pytest.approx(exact, abs=0.08)
    assert mi.info_nce_bound(scores).item() == pytest.approx(exact, abs=0.08)
    assert joint.mean().item() == pytest.approx(
        exact, abs=0.08
    )  # the estimate beside Jensen-Shannon


def test_bounds_on_a_finite_table_are_exact():
    """Two variables of 3 and 4 values; every pair of values weighs what its probability says."""
    counts = torch.tensor([[8, 1, 1, 2], [1, 6, 1, 1], [2, 1, 7, 1]], dtype=torch.float64)
    joint = counts / counts.sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    ratio = (joint / product).log()
    exact = (joint * ratio).sum().item()
    times = counts.long().flatten()
    # Numbers of each pair in a sample that has the product distribution: rows times columns.
    pairs = (counts.sum(1, keepdim=True) * counts.sum(0)).long().flatten()
    drawn = ratio.flatten().repeat_interleave(times)
    exchanged = ratio.flatten().repeat_interleave(pairs)
    assert mi.donsker_varadhan_bound(drawn, exchanged).item() == pytest.approx(exact, rel=1e-12)
    assert mi.nwj_bound(drawn + 1, exchanged + 1).item() == pytest.approx(exact, rel=1e-12)
    mixed = (joint + product) / 2
    divergence = (
        (joint * (joint / mixed).log()).sum() + (product * (product / mixed).log()).sum()
    ) / 2
    bound = mi.jensen_shannon_bound(drawn, exchanged).item()
    assert bound == pytest.approx(2 * divergence.item() - math.log(4), rel=1e-12)
    # Any other critic gives less.
    for noise in torch.randn(20, 12, dtype=torch.float64):
        worse = ratio.flatten() + noise
        drawn, exchanged = worse.repeat_interleave(times), worse.repeat_interleave(pairs)
        assert mi.donsker_varadhan_bound(drawn, exchanged) < exact
        assert mi.nwj_bound(drawn + 1, exchanged + 1) < exact
        assert mi.jensen_shannon_bound(drawn, exchanged) < bound


def test_a_critic_learns_what_is_there():
    """By the losses of features: a bilinear critic of a Gaussian's columns and their squares."""
    x, y, exact = gaussians(512, 0.8)
    features = [torch.cat([t, t * t, torch.ones_like(t)], 1) for t in (x, y)]
    for bound in (mi.donsker_varadhan_bound, mi.nwj_bound, mi.jensen_shannon_bound):
        weight = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

        def loss(bound=bound, weight=weight, optimizer=optimizer):
            optimizer.zero_grad()
            value = -bound(*mi.split_scores(features[0] @ weight @ features[1].t()))
            value.backward()
            return value

        optimizer.step(loss)
        joint, product = mi.split_scores(features[0] @ weight.detach() @ features[1].t())
        if bound is mi.jensen_shannon_bound:
            estimate = joint.mean().item()
        else:
            estimate = bound(joint, product).item()
        assert estimate == pytest.approx(exact, abs=0.1)


def test_info_nce_bound_ends_at_the_logarithm_of_keys():
    scores = torch.eye(8).double() * 1000
    assert mi.info_nce_bound(scores).item() == pytest.approx(math.log(8))
    features = torch.randn(9, 4)
    loss = torch.ops.tilewright.info_nce(features, features, None, 0.5, False)
    bound = mi.info_nce_bound(features @ features.t() / 0.5)
    torch.testing.assert_close(bound, math.log(9) - loss)


def test_split_scores():
    scores = torch.arange(9.0).view(3, 3)
    joint, product = mi.split_scores(scores)
    assert joint.tolist() == [0, 4, 8] and product.tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_ksg_on_gaussians(correlation, dim, k):
    x, y, exact = gaussians(3000, correlation, dim)
    limit = 0.1 + 0.05 * exact * dim
    assert mi.ksg_mutual_information(x, y, k).item() == pytest.approx(exact, abs=limit)
    # It is unchanged by what keeps neighbours: the exponential of one side, far shifts.
    moved = mi.ksg_mutual_information(x, y + 1000, k).item()
    assert moved == pytest.approx(mi.ksg_mutual_information(x, y, k).item(), abs=1e-6)


def test_ksg_against_its_definition():
    x, y, _ = gaussians(40, 0.7, 2)
    n, k = 40, 2
    total = 0.0
    for i in range(n):
        dx, dy = ((t - t[i]).abs().amax(1) for t in (x, y))
        others = torch.arange(n) != i
        radius = torch.maximum(dx, dy)[others].sort().values[k - 1]
        total += sum(
            torch.digamma(torch.tensor(float((d[others] < radius).sum() + 1.0))) for d in (dx, dy)
        )
    expected = torch.digamma(torch.tensor([float(k), float(n)]).double()).sum() - total / n
    torch.testing.assert_close(mi.ksg_mutual_information(x, y, k), expected, rtol=1e-6, atol=1e-6)


def scripted(scores: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    joint, product = mi.split_scores(scores)
    return torch.stack(
        [
            mi.donsker_varadhan_bound(joint, product),
            mi.nwj_bound(joint, product),
            mi.jensen_shannon_bound(joint, product),
            mi.info_nce_bound(scores),
            mi.ksg_mutual_information(x, y).to(scores.dtype),
        ]
    )


def test_script():
    given = (torch.randn(5, 5), torch.randn(9, 2), torch.randn(9))
    torch.testing.assert_close(script_round_trip(scripted, *given), scripted(*given))


BAD = [
    ("split_scores", (torch.ones(1, 1),), r"scores must have shape \(N, N\), N > 1, got"),
    ("split_scores", (torch.ones(2, 3),), r"scores must have shape \(N, N\), N > 1, got"),
    ("info_nce_bound", (torch.ones(3, 2),), r"scores must have shape \(N, K\), K >= N and K > 1"),
    ("donsker_varadhan_bound", (torch.ones(0), torch.ones(2)), "must have scores, got"),
    (
        "ksg_mutual_information",
        (torch.ones(9), torch.ones(9)),
        "rows must not come more than k times",
    ),
    ("ksg_mutual_information", (torch.ones(4), torch.full((4,), math.nan)), "y must be finite"),
    ("ksg_mutual_information", (torch.ones(4), torch.ones(3)), "y must have x's 4 rows, got"),
    (
        "ksg_mutual_information",
        (torch.ones(4), torch.ones(4), 4),
        r"k must lie in \[1, N\) = \[1, 4\)",
    ),
    (
        "ksg_mutual_information",
        (torch.ones(4).long(), torch.ones(4)),
        "x must have shape .* of floating",
    ),
]


SCORES = torch.ones(2)


@pytest.mark.parametrize("wrong", [[1.0, 2.0], numpy.ones(2), None])
@pytest.mark.parametrize(
    "name,before,after,message",
    [
        ("split_scores", (), (), r"scores must be a tensor of shape \(N, N\)"),
        ("info_nce_bound", (), (), r"scores must be a tensor of shape \(N, K\)"),
        ("donsker_varadhan_bound", (), (SCORES,), "joint must be a tensor"),
        ("nwj_bound", (SCORES,), (), "product must be a tensor"),
        ("jensen_shannon_bound", (), (SCORES,), "joint must be a tensor"),
        ("ksg_mutual_information", (), (SCORES,), r"x must be a tensor of shape \(N, D\) or"),
        ("ksg_mutual_information", (SCORES,), (), r"y must be a tensor of shape \(N, D\) or"),
    ],
)
def test_what_is_no_tensor(name, before, after, message, wrong):
    with pytest.raises(
        ValueError, match=f"tilewright::{name}: {message}.*, got {type(wrong).__name__}"
    ):
        getattr(mi, name)(*before, wrong, *after)


@pytest.mark.parametrize("name,given,message", BAD)
def test_bad_input(name, given, message):
    with pytest.raises(ValueError, match=f"tilewright::{name}: .*{message}"):
        getattr(mi, name)(*given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bounds_of_16_bits_are_float32(dtype):
    joint, product = torch.full((4,), 20.0, dtype=dtype), torch.full((9,), 14.0, dtype=dtype)
    for bound in (
        mi.donsker_varadhan_bound,
        mi.nwj_bound,
        mi.jensen_shannon_bound,
    ):
        found = bound(joint, product)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, bound(joint.double(), product.double()).float())
    scores = torch.randn(5, 5).to(dtype)
    torch.testing.assert_close(mi.info_nce_bound(scores), mi.info_nce_bound(scores.float()))


def test_neighbours_that_are_no_number():
    x = torch.randn(9)
    with pytest.raises(ValueError, match=r"ksg_mutual_information: k must be an integer, got 2\.5"):
        mi.ksg_mutual_information(x, x, 2.5)
