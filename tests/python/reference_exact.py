"""A tree split between any two values, by definition: slow and obvious, in float64."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Rules:
    lam: float = 1.0
    alpha: float = 0.0
    gamma: float = 0.0
    least: float = 1.0  # min_child_weight
    most: float = 0.0  # max_delta_step
    monotone: tuple = ()

    def weight(self, g, h, bounds):
        found = -math.copysign(max(abs(g) - self.alpha, 0.0), g) / (h + self.lam)
        if self.most > 0:
            found = min(max(found, -self.most), self.most)
        return min(max(found, bounds[0]), bounds[1])

    def gain(self, g, h, w):
        return -(2 * (g * w + self.alpha * abs(w)) + (h + self.lam) * w * w)


def places(column):
    """Every division of a column's rows: (goes left, missing goes left), in the order of taking."""
    gone = np.isnan(column)
    values = np.unique(column[~gone])
    out = [((column <= v) & ~gone, False) for v in values[:-1]]
    if not gone.any():
        return out
    if len(values):
        out.append((~gone, False))
    return out + [((column <= v) | gone, True) for v in values[:-1]]


def best_split(x, rows, g, h, rules, bounds):
    """(gain, feature, goes left, missing goes left, both sums)."""
    whole = g[rows].sum(), h[rows].sum()
    parent = rules.gain(*whole, rules.weight(*whole, bounds))
    best = (-math.inf,)
    for f in range(x.shape[1]):
        for left, default_left in places(x[rows, f]):
            sums = [(g[rows[side]].sum(), h[rows[side]].sum()) for side in (left, ~left)]
            if min(s[1] for s in sums) < max(rules.least, 1e-300):
                continue
            low, high = (rules.weight(*s, bounds) for s in sums)
            sign = rules.monotone[f] if rules.monotone else 0
            if sign * (high - low) < 0:
                continue
            gain = rules.gain(*sums[0], low) + rules.gain(*sums[1], high) - parent
            if gain > best[0] + 1e-9:
                best = (gain, f, left, default_left, (low, high))
    return best


def grow(x, g, h, depth, rules, rows=None, bounds=(-math.inf, math.inf)):
    """A tree as nested tuples, (feature, rows that go left, whether missing values do, left, right)
    or a leaf's answer. x (N, F) float32; g, h (N,) float64."""
    rows = np.arange(len(x)) if rows is None else rows
    found = (-math.inf,)
    if depth > 0 and len(rows) >= 2 and h[rows].sum() >= 2 * rules.least:
        found = best_split(x, rows, g, h, rules, bounds)
    if found[0] <= 1e-6 or found[0] < rules.gamma:
        return rules.weight(g[rows].sum(), h[rows].sum(), bounds)
    _, f, left, default_left, (low, high) = found
    sign = rules.monotone[f] if rules.monotone else 0
    inner = [list(bounds), list(bounds)]
    if sign != 0:
        inner[0][1 if sign > 0 else 0] = inner[1][0 if sign > 0 else 1] = (low + high) / 2
    sides = [
        grow(x, g, h, depth - 1, rules, rows[side], tuple(of))
        for side, of in zip((left, ~left), inner, strict=True)
    ]
    return (f, frozenset(rows[left].tolist()), default_left, *sides)


def nested(arrays, x, node=0, rows=None):
    """The first tree of ``arrays`` in that form, as it parts the rows of x."""
    rows = np.arange(len(x)) if rows is None else rows
    if arrays["left"][node] < 0:
        return arrays["value"][node].item()
    f, default_left = arrays["feature"][node].item(), bool(arrays["default_left"][node])
    column = x[rows, f]
    left = np.where(np.isnan(column), default_left, column < arrays["threshold"][node].numpy())
    sides = [
        nested(arrays, x, arrays[name][node].item(), rows[side])
        for name, side in (("left", left), ("right", ~left))
    ]
    if arrays["threshold"][node] == -np.inf:  # nothing is less: missing values to the left, alone
        left, default_left, sides = ~left, not default_left, sides[::-1]
    return (f, frozenset(rows[left].tolist()), default_left, *sides)


def assert_same_tree(found, expected):
    if not isinstance(expected, tuple):
        assert not isinstance(found, tuple)
        assert math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-5), (found, expected)
        return
    assert isinstance(found, tuple) and found[:3] == expected[:3]
    assert_same_tree(found[3], expected[3])
    assert_same_tree(found[4], expected[4])
