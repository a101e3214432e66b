"""Trees of forests by definition, slow and obvious, in float64: what the best split of a node is,
and whether a grown tree takes it everywhere."""

import math

import torch


def impurity(y, w, criterion):
    """y: (n,) labels, or (n, outputs) values; w: (n,)."""
    total = w.sum()
    if criterion == "squared_error":
        mean = (w[:, None] * y).sum(0) / total
        return ((w[:, None] * (y - mean) ** 2).sum(0) / total).mean().item()
    shares = torch.stack([w[y == k].sum() / total for k in y.unique()])
    if criterion == "gini":
        return 1 - (shares**2).sum().item()
    return -(shares * shares.log2()).sum().item()


def decrease(left, y, w, criterion):
    """By how much a split lowers the impurity of its rows, times their weight."""
    return (
        w.sum().item() * impurity(y, w, criterion)
        - w[left].sum().item() * impurity(y[left], w[left], criterion)
        - w[~left].sum().item() * impurity(y[~left], w[~left], criterion)
    )


def splits(x):
    """All ways in which thresholds part the rows of x, missing values on either side."""
    for f in range(x.shape[1]):
        gone = x[:, f].isnan()
        for value in x[~gone, f].unique():
            left = x[:, f] <= value
            yield left
            if gone.any():
                yield left | gone


def best_decrease(x, y, w, criterion, least=1):
    best = -math.inf
    for left in splits(x):
        if min(left.sum(), (~left).sum()) >= least:
            best = max(best, decrease(left, y, w, criterion))
    return best


def check_tree(arrays, x, y, w, criterion, least=1, depth=None, tree=0):
    """Asserts that a tree takes the best split at every node, and stops where it must alone; y:
    labels from 0 on, or (n, outputs) values. Returns the number of nodes."""
    keep = w > 0
    x, y, w = x[keep], y[keep], w[keep]
    first, end = arrays["tree_ptr"][tree : tree + 2].tolist()
    trees = arrays["tree_ptr"].numel() - 1
    whole = w.sum().item()

    def visit(node, rows, level):
        at, here = first + node, (x[rows], y[rows], w[rows])
        assert arrays["cover"][at].item() == abs_close(here[2].sum().item())
        pure = impurity(*here[1:], criterion) < 1e-12
        if arrays["left"][at] < 0:
            if not (pure or level == depth or len(rows) < max(2, 2 * least)):
                assert best_decrease(*here, criterion, least) == -math.inf
            value = arrays["value"][at].double() * trees
            if criterion == "squared_error":
                expected = (here[2][:, None] * here[1]).sum(0) / here[2].sum()
            else:
                counts = [here[2][here[1] == k].sum() for k in range(arrays["value"].shape[1])]
                expected = torch.stack(counts) / here[2].sum()
            torch.testing.assert_close(value.view(-1), expected, atol=1e-6, rtol=1e-6)
            return 1
        assert not pure
        column = here[0][:, arrays["feature"][at]]
        left = column < arrays["threshold"][at].item()
        if not column.isnan().any():
            larger = left.sum() > (~left).sum()
            assert arrays["default_left"][at].item() == larger.item()
        left = torch.where(column.isnan(), arrays["default_left"][at], left)
        assert min(left.sum(), (~left).sum()) >= least
        found = decrease(left, *here[1:], criterion)
        best = best_decrease(*here, criterion, least)
        assert abs(found - best) <= 1e-9 * whole, (found, best)
        assert arrays["gain"][at].item() == abs_close(found / whole)
        return (
            1
            + visit(arrays["left"][at].item(), rows[left], level + 1)
            + visit(arrays["right"][at].item(), rows[~left], level + 1)
        )

    count = visit(0, torch.arange(len(x)), 0)
    assert count == end - first
    return count


def abs_close(value):
    import pytest

    return pytest.approx(value, rel=1e-5, abs=1e-7)
