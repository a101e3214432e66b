"""Shapley values of trees by definition: all sets of features, in float64."""

import itertools
import math

import numpy as np
import torch


def _lists(trees):
    return {k: v.double().tolist() if k == "value" else v.tolist() for k, v in trees.items()}


def _goes_left(value, trees, node):
    if math.isnan(value):
        return trees["default_left"][node]
    if "category_ptr" in trees:
        begin, end = trees["category_ptr"][node : node + 2]
        if begin < end:
            return value < 0 or int(value) not in trees["categories"][begin:end]
    return value < trees["threshold"][node]


def _expectation(row, trees, first, node, known):
    """What a tree answers, on average over the features that are not known."""
    left, right = trees["left"][first + node], trees["right"][first + node]
    if left < 0:
        return np.asarray(trees["value"][first + node])
    feature = trees["feature"][first + node]
    if feature in known:
        child = left if _goes_left(row[feature], trees, first + node) else right
        return _expectation(row, trees, first, child, known)
    covers = [trees["cover"][first + child] for child in (left, right)]
    return sum(
        cover / sum(covers) * _expectation(row, trees, first, child, known)
        for cover, child in zip(covers, (left, right), strict=True)
    )


def _game(row, trees, num_outputs, known):
    """(num_outputs,): the ensemble's score where only some features are known."""
    out = np.zeros(num_outputs)
    for t, first in enumerate(trees["tree_ptr"][:-1]):
        found = _expectation(row, trees, first, 0, known)
        if found.ndim == 0:
            out[trees["tree_output"][t]] += found
        else:
            out += found
    return torch.from_numpy(out)


def _games(row, trees, num_outputs):
    row, trees = row.tolist(), _lists(trees)
    return {
        known: _game(row, trees, num_outputs, known)
        for size in range(len(row) + 1)
        for known in itertools.combinations(range(len(row)), size)
    }


def shap(x, trees, num_outputs):
    """(N, K, F + 1) of x (N, F) float32; the last column is the score where nothing is known."""
    n, f = x.shape
    out = torch.zeros(n, num_outputs, f + 1, dtype=torch.float64)
    for r in range(n):
        games = _games(x[r], trees, num_outputs)
        out[r, :, f] = games[()]
        for known, score in games.items():
            for i in set(range(f)) - set(known):
                weight = math.factorial(len(known)) * math.factorial(f - len(known) - 1)
                more = games[tuple(sorted((*known, i)))]
                out[r, :, i] += weight / math.factorial(f) * (more - score)
    return out


def interactions(x, trees, num_outputs):
    """(N, K, F + 1, F + 1): the paper's values of pairs; the diagonal has what they leave."""
    n, f = x.shape
    out = torch.zeros(n, num_outputs, f + 1, f + 1, dtype=torch.float64)
    alone = shap(x, trees, num_outputs)
    for r in range(n):
        games = _games(x[r], trees, num_outputs)
        for i, j in itertools.permutations(range(f), 2):
            for known, score in games.items():
                if i in known or j in known:
                    continue
                weight = math.factorial(len(known)) * math.factorial(f - len(known) - 2)
                with_i, with_j, both = (
                    games[tuple(sorted((*known, *more)))] for more in ((i,), (j,), (i, j))
                )
                difference = both - with_i - with_j + score
                out[r, :, i, j] += weight / (2 * math.factorial(f - 1)) * difference
        for i in range(f):
            out[r, :, i, i] = alone[r, :, i] - out[r, :, i].sum(-1)
        out[r, :, f, f] = alone[r, :, f]
    return out


def leaf_by_sizes(value, ones, shares):
    """What each feature on a leaf's path gets, by sums over sets of one size: the coefficients of
    the product of (z + o y). For paths of more features than have countable sets."""
    count = len(ones)
    out = []
    for i in range(count):
        coefficients = [1.0]
        for j in range(count):
            if j == i:
                continue
            longer = [0.0] * (len(coefficients) + 1)
            for k, c in enumerate(coefficients):
                longer[k] += c * shares[j]
                longer[k + 1] += c * ones[j]
            coefficients = longer
        total = sum(c / (count * math.comb(count - 1, k)) for k, c in enumerate(coefficients))
        out.append(value * (ones[i] - shares[i]) * total)
    return out
