"""Contrastive losses: argument sugar over ``torch.ops.tilewright``.

None of them stores the matrix of scores, forward or backward: memory beyond the features grows with
their number alone. docs/contrastive.md has the formulas. All can be used inside
``torch.jit.script``, ``torch.compile`` and ``torch.export``. A temperature or scale that is a
tensor which requires a gradient is a ValueError, for it would get none.
"""

from typing import Optional

import torch
from torch import Tensor

from tilewright._arguments import check_fixed

__all__ = [
    "clip_loss",
    "contrastive_lse",
    "info_nce",
    "local_global_infomax",
    "nt_xent",
    "supervised_contrastive",
]


def contrastive_lse(
    query: Tensor,
    key: Tensor,
    exclude: Optional[Tensor] = None,  # noqa: UP045
    scale: float = 1.0,
    exclude_count: int = 1,
) -> Tensor:
    """Log-sum-exp of each query's similarities to all keys: what contrastive losses are made of.

    ``lse[i] = log sum over j of exp(scale * query[i] . key[j])``

    Args:
        query: (N, D); float64, float32, float16 or bfloat16.
        key: (M, D), of query's dtype.
        exclude: (N,) int64: query i has no part in the keys ``[exclude[i], exclude[i] +
            exclude_count)``; -1: in all of them.
        scale: of similarities, 1 unless given. A learnt one multiplies the query outside.
        exclude_count: how many keys from ``exclude[i]`` on are none of query i's; at most M.

    Returns:
        (N,), float64 of float64 and else float32; -inf where no key is left. Differentiable in
        query and key, twice; the second derivatives store all scores.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit; on the CPU on an index that
            excludes no key.
    """
    check_fixed("tilewright::contrastive_lse: scale", scale)
    return torch.ops.tilewright.contrastive_lse(
        query, key, exclude, scale=scale, exclude_count=exclude_count
    )


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent, the loss of SimCLR (arXiv:2002.05709): each view's partner among all other views.

    Args:
        first, second: (N, D), two views of N > 1 examples; float64, float32, float16 or bfloat16.
            They are normalised to length 1 here.
        temperature: what similarities are divided by.

    Returns:
        The mean over all 2N views, one number; float64 of float64 and else float32.

    Raises:
        RuntimeError: on one example, on shapes, dtypes or devices that do not fit, and on a
            temperature that is not positive.
    """
    check_fixed("tilewright::nt_xent: temperature", temperature)
    return torch.ops.tilewright.nt_xent(first, second, temperature)


def info_nce(
    query: Tensor,
    key: Tensor,
    positive: Optional[Tensor] = None,  # noqa: UP045
    temperature: float = 0.1,
    normalize: bool = True,
) -> Tensor:
    """InfoNCE, the loss of CPC (arXiv:1807.03748): each query's key among all keys.

    Args:
        query: (N, D); float64, float32, float16 or bfloat16.
        key: (M, D), M > 1, of query's dtype: positives and negatives, of the batch, of other time
            steps or of a memory bank.
        positive: (N,) int64, the row of key that belongs to each query. None: row i to query i.
        temperature: what similarities are divided by.
        normalize: rows to length 1.

    Returns:
        The mean over queries, one number; ``log(M) - info_nce`` is a lower bound of the mutual
        information in nats, where keys are drawn independently.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit, on a single key, on a
            temperature that is not positive, and on the CPU on a positive that is no row of key.
    """
    check_fixed("tilewright::info_nce: temperature", temperature)
    return torch.ops.tilewright.info_nce(query, key, positive, temperature, normalize)


def clip_loss(
    first: Tensor, second: Tensor, temperature: float = 0.07, normalize: bool = True
) -> Tensor:
    """The symmetric loss of CLIP (arXiv:2103.00020): the mean of ``info_nce(first, second)`` and
    ``info_nce(second, first)``, of one pass over the scores.

    Args:
        first, second: (N, D), N > 1, rows that belong together; float64, float32, float16 or
            bfloat16.
        temperature: what similarities are divided by. A learnt one divides ``first`` outside, with
            ``temperature=1`` and ``normalize=False``.
        normalize: rows to length 1.

    Raises:
        RuntimeError: as :func:`nt_xent`.
    """
    check_fixed("tilewright::clip_loss: temperature", temperature)
    return torch.ops.tilewright.clip_loss(first, second, temperature, normalize)


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (arXiv:2004.11362, its L_out): examples of one label are each
    other's positives, and all others negatives.

    Args:
        features: (N, D), N > 1; float64, float32, float16 or bfloat16. Normalised to length 1 here.
        labels: (N,) int64. Examples whose label nobody shares are negatives alone.
        temperature: what similarities are divided by.

    Returns:
        The mean over examples that have a positive, one number.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit, on a temperature that is not
            positive, and on the CPU where no example has a positive (elsewhere the loss is NaN).
    """
    check_fixed("tilewright::supervised_contrastive: temperature", temperature)
    return torch.ops.tilewright.supervised_contrastive(features, labels, temperature)


def local_global_infomax(whole: Tensor, local: Tensor, temperature: float = 1.0) -> Tensor:
    """The local-global objective of Deep InfoMax (arXiv:1808.06670), with InfoNCE as its bound: a
    place and its own example's vector belong together, the places of all others are negatives.

    Args:
        whole: (N, D), one vector for each of N > 1 examples; float64, float32, float16, bfloat16.
        local: (N, L, D), those of its L places, of whole's dtype.
        temperature: what products are divided by; nothing is normalised.

    Returns:
        The mean over examples and places, one number.

    Raises:
        RuntimeError: on one example, on shapes, dtypes or devices that do not fit, and on a
            temperature that is not positive.
    """
    check_fixed("tilewright::local_global_infomax: temperature", temperature)
    return torch.ops.tilewright.local_global_infomax(whole, local, temperature)
