"""Shapley values of trees by definition: all sets of features, in float64."""

import itertools
import math

import torch


def _goes_left(value, trees, node):
    if math.isnan(value):
        return bool(trees["default_left"][node])
    if trees.get("category_ptr") is not None:
        begin, end = trees["category_ptr"][node : node + 2].tolist()
        if begin < end:
            return value < 0 or int(value) not in trees["categories"][begin:end].tolist()
    return value < trees["threshold"][node].item()


def _expectation(row, trees, first, node, known):
    """What a tree answers, on average over the features that are not known."""
    left, right = int(trees["left"][first + node]), int(trees["right"][first + node])
    if left < 0:
        return trees["value"][first + node].double()
    feature = int(trees["feature"][first + node])
    if feature in known:
        child = left if _goes_left(row[feature].item(), trees, first + node) else right
        return _expectation(row, trees, first, child, known)
    covers = [trees["cover"][first + child].item() for child in (left, right)]
    return sum(
        cover / sum(covers) * _expectation(row, trees, first, child, known)
        for cover, child in zip(covers, (left, right), strict=True)
    )


def _game(row, trees, num_outputs, known):
    """(num_outputs,): the ensemble's score where only some features are known."""
    out = torch.zeros(num_outputs, dtype=torch.float64)
    for t, first in enumerate(trees["tree_ptr"][:-1].tolist()):
        found = _expectation(row, trees, first, 0, known)
        if found.dim() == 0:
            out[trees["tree_output"][t]] += found
        else:
            out += found
    return out


def _games(row, trees, num_outputs):
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
