"""How much of what classes need is in frozen representations: linear probe, neighbours, a map."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from tilewright._arguments import check_integer, check_tensor

from .optional import required

_ROWS = 1024  # of the similarities that are held at once


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    per_class: int | None = None,
    draws: int = 5,
    penalty: float = 1.0,
) -> float:
    """Accuracy of logistic regression (scikit-learn's) on frozen features.

    Features are standardised by the mean and deviation of the rows that the regression is fitted
    on; those that are constant there are left out.

    Args:
        train_features, test_features: (N, F) and (M, F), floating.
        train_labels, test_labels: (N,) and (M,) int64.
        per_class: fit on so many rows of each class alone (on all where a class has fewer), and
            return the mean over `draws` choices of them. The choices depend on the labels alone, so
            that two sets of features meet the same.
        draws: how many choices.
        penalty: strength of the squared penalty of weights, 1 / C in scikit-learn's terms.

    Returns:
        The share of test rows whose class is found, in [0, 1].

    Raises:
        ValueError: on what is no tensor, shapes that do not fit, features that are not finite, a
            single class, and numbers out of range.
        ImportError: without scikit-learn.
    """
    _check("linear_probe", train_features, train_labels, test_features, test_labels)
    if len(train_labels.unique()) < 2:
        raise ValueError("tilewright::linear_probe: train_labels must have two classes, got one")
    for name, value in (("per_class", per_class), ("draws", draws)):
        if value is not None:
            check_integer(f"tilewright::linear_probe: {name}", value)
    for name, value in (("per_class", per_class), ("draws", draws), ("penalty", penalty)):
        if value is not None and not value > 0:
            raise ValueError(f"tilewright::linear_probe: {name} must be positive, got {value}")
    if per_class is None:
        rows = [torch.arange(len(train_labels))]
    else:
        rows = [_few(train_labels, per_class, draw) for draw in range(draws)]
    found = [
        _fitted(train_features[r], train_labels[r], test_features, test_labels, penalty)
        for r in rows
    ]
    return sum(found) / len(found)


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 5,
) -> float:
    """Accuracy of the vote of the `k` train rows with the largest cosine similarity.

    Of classes with as many votes the one with the larger sum of similarities wins.

    Args:
        train_features, test_features: (N, F) and (M, F), floating; 1 <= k <= N.
        train_labels, test_labels: (N,) and (M,) int64, none negative.

    Raises:
        ValueError: on what is no tensor, shapes that do not fit, features that are not finite, and
            k out of range.
    """
    _check("knn_accuracy", train_features, train_labels, test_features, test_labels)
    check_integer("tilewright::knn_accuracy: k", k)
    if not 1 <= k <= len(train_labels):
        raise ValueError(
            f"tilewright::knn_accuracy: k must be in [1, {len(train_labels)}], got {k}"
        )
    together = torch.cat([train_labels, test_labels])
    if int(together.min()) < 0:
        raise ValueError(
            f"tilewright::knn_accuracy: labels must not be negative, got {int(together.min())}"
        )
    kinds, together = torch.unique(together, return_inverse=True)  # labels may be large
    classes = len(kinds)
    train_labels, test_labels = together.split([len(train_labels), len(test_labels)])
    keys = F.normalize(train_features.float(), dim=1)
    right = 0
    for some, labels in zip(test_features.split(_ROWS), test_labels.split(_ROWS), strict=True):
        similarity, rows = (F.normalize(some.float(), dim=1) @ keys.T).topk(k, dim=1)
        # A vote counts 1; the similarities of k rows add less than 1, so they decide ties alone.
        votes = 1.0 + (similarity + 1.0) / (2.0 * k + 1.0)
        ballot = torch.zeros(len(some), classes).scatter_add_(1, train_labels[rows], votes)
        right += int((ballot.argmax(dim=1) == labels).sum())
    return right / len(test_labels)


def embedding_map(features: Tensor, method: str = "tsne", seed: int = 0) -> Tensor:
    """Places features (N, F), N > 2, in the plane: (N, 2) float32, near where they are alike.

    Args:
        method: "tsne" (van der Maaten & Hinton 2008, started from the principal components) or
            "pca"; both are scikit-learn's, on standardised features.
        seed: of t-SNE.

    Raises:
        ValueError: for another method, and features that are no tensor, too few or not finite.
        ImportError: without scikit-learn.
    """
    if method not in ("tsne", "pca"):
        raise ValueError(
            f"tilewright::embedding_map: method must be 'tsne' or 'pca', got {method!r}"
        )
    check_tensor("tilewright::embedding_map: features", features)
    if features.ndim != 2 or len(features) < 3 or not bool(features.isfinite().all()):
        raise ValueError(
            "tilewright::embedding_map: features must have shape (N, F), N > 2, and be finite, got "
            f"{tuple(features.shape)}"
        )
    rows, _ = _standardised(features, features)
    if method == "pca":
        decomposition = required("sklearn.decomposition", "PCA is scikit-learn's")
        with _threads_of_torch():
            places = decomposition.PCA(min(2, rows.shape[1])).fit_transform(rows.numpy())
        return F.pad(torch.from_numpy(places).float(), (0, 2 - places.shape[1]))
    manifold = required("sklearn.manifold", "t-SNE is scikit-learn's")
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = manifold.TSNE(
        2, perplexity=perplexity, init="pca" if rows.shape[1] > 1 else "random", random_state=seed
    )
    with _threads_of_torch():
        return torch.from_numpy(tsne.fit_transform(rows.float().numpy()))


def _fitted(
    features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, penalty: float
) -> float:
    linear = required("sklearn.linear_model", "the linear probe is scikit-learn's")
    rows, test_rows = _standardised(features, test_features)
    regression = linear.LogisticRegression(C=1.0 / penalty, max_iter=2000)
    with _threads_of_torch():
        regression.fit(rows.numpy(), labels.numpy())
        return float(regression.score(test_rows.numpy(), test_labels.numpy()))


def _threads_of_torch() -> AbstractContextManager:
    """scikit-learn then takes as many threads as torch, not as many as there are cores."""
    pools = required("threadpoolctl", "scikit-learn's threads are threadpoolctl's")
    return pools.threadpool_limits(torch.get_num_threads())


def _standardised(features: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, by the mean and deviation of `features`, without its constant columns."""
    features, others = features.detach().double(), others.detach().double()
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    kept = deviation > 1e-9 * features.abs().amax(dim=0)
    if not bool(kept.any()):  # nothing tells rows apart: one column of zeros, any class will do
        return features.new_zeros(len(features), 1), others.new_zeros(len(others), 1)
    return tuple((x[:, kept] - mean[kept]) / deviation[kept] for x in (features, others))


def _few(labels: Tensor, per_class: int, draw: int) -> Tensor:
    """Rows of at most `per_class` examples of each class, chosen at random."""
    generator = torch.Generator().manual_seed(draw)
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == label][:per_class] for label in labels.unique()])


def _check(
    name: str,
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
) -> None:
    for part, features, labels in (
        ("train", train_features, train_labels),
        ("test", test_features, test_labels),
    ):
        check_tensor(f"tilewright::{name}: {part}_features", features)
        check_tensor(f"tilewright::{name}: {part}_labels", labels)
        if features.ndim != 2 or not features.is_floating_point() or len(features) == 0:
            raise ValueError(
                f"tilewright::{name}: {part}_features must have shape (N, F), N > 0, and be "
                f"floating, got {tuple(features.shape)} {features.dtype}"
            )
        if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"tilewright::{name}: {part}_labels must have shape ({len(features)},) and be "
                f"int64, got {tuple(labels.shape)} {labels.dtype}"
            )
        if not bool(features.isfinite().all()):
            raise ValueError(f"tilewright::{name}: {part}_features must be finite")
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"tilewright::{name}: test_features must have {train_features.shape[1]} columns, as "
            f"train_features, got {test_features.shape[1]}"
        )
