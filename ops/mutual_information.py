"""Bounds and estimates of mutual information, in nats.

The bounds take a critic's scores: of pairs that were drawn together, and of pairs of which one
part was exchanged. Maximise a bound over the critic (its negative is a loss); its value for a good
critic says how much the two parts tell of each other. Poole et al. 2019 (arXiv:1905.06922) compare
them: InfoNCE varies little and ends at the logarithm of the number of pairs, the others reach
further and vary more. ``ksg_mutual_information`` needs no critic, and few dimensions. All of it
works inside ``torch.jit.script``. Values are float64 of float64 scores, else float32.
"""

import math
from typing import List  # noqa: UP035

import torch
from torch import Tensor

from tilewright._arguments import check_integer, check_tensor

__all__ = [
    "donsker_varadhan_bound",
    "info_nce_bound",
    "jensen_shannon_bound",
    "ksg_mutual_information",
    "nwj_bound",
    "split_scores",
]


def split_scores(scores: Tensor) -> List[Tensor]:  # noqa: UP006
    """Of all pairs' scores (N, N), N > 1: those on the diagonal (N,), drawn together, and all
    others (N * (N - 1),), of exchanged parts: what the bounds take."""
    check_tensor("tilewright::split_scores: scores", scores, "(N, N)")
    if scores.dim() != 2 or scores.size(0) != scores.size(1) or scores.size(0) < 2:
        raise ValueError(
            f"tilewright::split_scores: scores must have shape (N, N), N > 1, got {scores.size()}"
        )
    n = scores.size(0)
    # Of rows of n + 1 numbers from the second on, the last is on the diagonal.
    others = scores.flatten()[1:].view(n - 1, n + 1)[:, :-1].flatten()
    return [scores.diagonal(), others]


def info_nce_bound(scores: Tensor) -> Tensor:
    """``mean over i of s[i, i] - log mean over j of exp(s[i, j])``, at most log K: van den Oord et
    al. 2018 (arXiv:1807.03748).

    Args:
        scores: (N, K), K >= N: of query i with key i, drawn together, and with all keys. Of
            features, ``math.log(K) - tilewright.info_nce(...)`` is the same and stores no scores.
    """
    check_tensor("tilewright::info_nce_bound: scores", scores, "(N, K)")
    if scores.dim() != 2 or scores.size(0) == 0 or scores.size(1) < max(scores.size(0), 2):
        raise ValueError(
            "tilewright::info_nce_bound: scores must have shape (N, K), K >= N and K > 1, got "
            f"{scores.size()}"
        )
    scores = _wide(scores)
    mean = scores.logsumexp(1) - math.log(scores.size(1))
    return (scores.diagonal() - mean).mean()


def donsker_varadhan_bound(joint: Tensor, product: Tensor) -> Tensor:
    """``mean of joint - log mean exp(product)``: Donsker and Varadhan 1983, MINE
    (arXiv:1801.04062). Over few pairs the logarithm makes it too large on average.

    Args:
        joint: scores of pairs that were drawn together, of any shape.
        product: scores of pairs of exchanged parts, of any shape.
    """
    _check("donsker_varadhan_bound", joint, product)
    joint, product = _wide(joint), _wide(product)
    return joint.mean() - _log_mean_exp(product)


def nwj_bound(joint: Tensor, product: Tensor) -> Tensor:
    """``mean of joint - mean of exp(product - 1)``: Nguyen, Wainwright and Jordan 2010
    (arXiv:0809.0853), also f-GAN's KL; unbiased. Arguments as of donsker_varadhan_bound."""
    _check("nwj_bound", joint, product)
    joint, product = _wide(joint), _wide(product)
    return joint.mean() - (_log_mean_exp(product) - 1).exp()


def jensen_shannon_bound(joint: Tensor, product: Tensor) -> Tensor:
    """``mean of -softplus(-joint) - mean of softplus(product)``: the objective of Deep InfoMax
    (arXiv:1808.06670). It bounds ``2 JSD - log 4`` of the joint and the product distribution, not
    the mutual information: the best critic is the logarithm of their ratio, so that
    ``joint.mean()`` is an estimate of the mutual information then. Arguments as of
    donsker_varadhan_bound."""
    _check("jensen_shannon_bound", joint, product)
    joint, product = _wide(joint), _wide(product)
    softplus = torch.nn.functional.softplus
    return -softplus(-joint).mean() - softplus(product).mean()


def ksg_mutual_information(x: Tensor, y: Tensor, k: int = 3) -> Tensor:
    """Kraskov, Stoegbauer and Grassberger 2004 (arXiv:cond-mat/0305641), their first estimator,
    from the distances of nearest neighbours: for few dimensions and continuous variables.

    Args:
        x, y: (N, D) and (N, E), or (N,): row i of both was drawn together; floating.
            Discrete variables, whose rows come again and again, want a little noise. Neighbours
            are the nearest by the largest difference of any variable, so these should be spread
            alike: ``(x - x.mean(0)) / x.std(0)`` leaves the mutual information as it is.
        k: neighbours, 1 <= k < N. More of them vary less, and are more biased.

    Returns:
        One number, float64; below 0 where chance has it so. Time grows with N * N, memory with N.
    """
    x, y = _columns("x", x), _columns("y", y)
    n = x.size(0)
    if y.size(0) != n:
        raise ValueError(
            f"tilewright::ksg_mutual_information: y must have x's {n} rows, got {y.size()}"
        )
    if not torch.jit.is_scripting():
        check_integer("tilewright::ksg_mutual_information: k", k)
    if not 1 <= k < n:
        raise ValueError(
            f"tilewright::ksg_mutual_information: k must lie in [1, N) = [1, {n}), got {k}"
        )
    total = torch.zeros([], dtype=torch.float64, device=x.device)
    step = max(1, 4_000_000 // n)  # rows at a time, so that distances take 32 MB or less
    for first in range(0, n, step):
        last = min(first + step, n)
        of_x = torch.cdist(x[first:last], x, p=float("inf"))
        of_y = torch.cdist(y[first:last], y, p=float("inf"))
        rows = torch.arange(last - first, device=x.device)
        for distances in [of_x, of_y]:
            distances[rows, rows + first] = float("inf")  # none is its own neighbour
        both = torch.maximum(of_x, of_y)
        radius = torch.kthvalue(both, k, dim=1).values[:, None]
        if not bool((radius > 0).all()):
            raise ValueError(
                "tilewright::ksg_mutual_information: rows must not come more than k times: add a "
                "little noise to discrete or repeated ones"
            )
        for distances in [of_x, of_y]:
            within = (distances < radius).sum(1)
            total = total - torch.digamma(within.to(torch.float64) + 1).sum()
    constant = torch.digamma(torch.tensor([float(k), float(n)], dtype=torch.float64)).sum()
    return constant.to(total.device) + total / n


def _check(op: str, joint: Tensor, product: Tensor) -> None:
    check_tensor(f"tilewright::{op}: joint", joint)
    check_tensor(f"tilewright::{op}: product", product)
    if joint.numel() == 0 or product.numel() == 0:
        raise ValueError(
            f"tilewright::{op}: joint and product must have scores, got {joint.size()} and "
            f"{product.size()}"
        )


def _wide(scores: Tensor) -> Tensor:
    """In float32 at least: sums of 16 bits soon end."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _log_mean_exp(scores: Tensor) -> Tensor:
    return scores.flatten().logsumexp(0) - math.log(scores.numel())


def _columns(name: str, rows: Tensor) -> Tensor:
    check_tensor(f"tilewright::ksg_mutual_information: {name}", rows, "(N, D) or (N,)")
    if rows.dim() not in [1, 2] or rows.numel() == 0 or not rows.is_floating_point():
        raise ValueError(
            f"tilewright::ksg_mutual_information: {name} must have shape (N, D) or (N,), of "
            f"floating point, got {rows.size()} of {rows.dtype}"
        )
    wide = rows.detach().to(torch.float64)
    if not bool(wide.isfinite().all()):
        raise ValueError(f"tilewright::ksg_mutual_information: {name} must be finite")
    return wide[:, None] if wide.dim() == 1 else wide
