"""Trees by definition, slow and obvious, in float64."""

import math

import pytest
import torch


def table(rows=400, features=5, missing=False):
    """A regression with waves, a step and an interaction: x (rows, features), y (rows,)."""
    x = torch.randn(rows, features)
    y = x[:, 0] * 2 + torch.sin(3 * x[:, 1]) + (x[:, 2] > 0.3) * x[:, 3] + 0.3 * torch.randn(rows)
    if missing:
        x[torch.rand(x.shape) < 0.15] = float("nan")
    return x, y


def predict(x, trees, num_outputs):
    """Rows through trees one step at a time: x (N, F) float32; arrays as predict_trees has them."""
    out = torch.zeros(x.shape[0], num_outputs, dtype=torch.float64)
    pointers = trees["tree_ptr"].tolist()
    for t in range(len(pointers) - 1):
        for r in range(x.shape[0]):
            node = pointers[t]
            while trees["left"][node] >= 0:
                value = x[r, trees["feature"][node]].item()
                own = ()
                if trees.get("category_ptr") is not None:
                    begin, end = trees["category_ptr"][node : node + 2].tolist()
                    own = trees["categories"][begin:end].tolist()
                if math.isnan(value):
                    left = bool(trees["default_left"][node])
                elif own:
                    left = value < 0 or int(value) not in own
                else:
                    left = value < trees["threshold"][node].item()
                child = trees["left"] if left else trees["right"]
                node = pointers[t] + int(child[node])
            value = trees["value"][node].double()
            if value.dim() == 0:
                out[r, trees["tree_output"][t]] += value
            else:
                out[r] += value
    return out


def leaf_weight(g, h, lam=1.0, alpha=0.0):
    shrunk = math.copysign(max(abs(g) - alpha, 0.0), g)
    return -shrunk / (h + lam)


def gain(g, h, lam=1.0, alpha=0.0):
    return max(abs(g) - alpha, 0.0) ** 2 / (h + lam)


def sums_of(g, rows):
    """Of each output: g is (N,), or (N, K) of vector leaves."""
    columns = g[:, None] if g.dim() == 1 else g
    return columns[rows].sum(0).tolist()


def best_split(codes, bins, missing, g, h, lam, alpha, least):
    """(gain, feature, code, default_left) of one node by trying every place. g and h are (N,), or
    (N, K): gains then add up over outputs, and `least` is of the mean of their hessians."""
    best = (-math.inf, -1, 0, False)

    def side(rows):
        gs, hs = sums_of(g, rows), sums_of(h, rows)
        heavy = sum(hs) / len(hs)
        return sum(gain(a, b, lam, alpha) for a, b in zip(gs, hs, strict=True)), heavy

    whole, _ = side(torch.ones(len(g), dtype=torch.bool))
    for f in range(codes.shape[1]):
        gone = codes[:, f] == missing
        for default_left in (False, True) if gone.any() else (False,):
            places = bins[f] - 1 + (not default_left and bool(gone.any()))
            for code in range(places):
                left = (codes[:, f] <= code) & ~gone
                if default_left:
                    left = left | gone
                (gl, hl), (gr, hr) = side(left), side(~left)
                if not (hl > 0 and hr > 0 and hl >= least and hr >= least):
                    continue
                found = gl + gr - whole
                if found > best[0] + 1e-9:
                    best = (found, f, code, default_left)
    return best


def grow(codes, bins, missing, g, h, depth, lam=1.0, alpha=0.0, least=1.0):
    """A tree as nested tuples: (feature, code, default_left, left, right), or a leaf's weight, a
    list of K for g and h of (N, K)."""
    found = (-math.inf,)
    everything = torch.ones(len(g), dtype=torch.bool)
    hs = sums_of(h, everything)
    if depth > 0 and len(g) >= 2 and sum(hs) / len(hs) >= 2 * least:
        found = best_split(codes, bins, missing, g, h, lam, alpha, least)
    if found[0] <= 1e-6:
        pairs = zip(sums_of(g, everything), hs, strict=True)
        weights = [leaf_weight(a, b, lam, alpha) for a, b in pairs]
        return weights if g.dim() == 2 else weights[0]
    _, f, code, default_left = found
    left = codes[:, f] <= code
    left = torch.where(codes[:, f] == missing, torch.tensor(default_left), left)
    grown = [
        grow(codes[side], bins, missing, g[side], h[side], depth - 1, lam, alpha, least)
        for side in (left, ~left)
    ]
    return (f, code, default_left, *grown)


def nested(arrays, cuts, node=0, first=0):
    """The arrays' tree as grow() gives it; a code of None is the last of its feature's bins."""
    at = first + node
    if arrays["left"][at] < 0:
        return arrays["value"][at].tolist()  # a number, or a vector
    f = arrays["feature"][at].item()
    threshold = arrays["threshold"][at]
    sides = [nested(arrays, cuts, arrays[s][at].item(), first) for s in ("left", "right")]
    if threshold == -torch.inf:  # what is missing left, all values right: as if the other way round
        return (f, None, False, *reversed(sides))
    code = int((cuts[f] == threshold).nonzero()[0])
    return (f, code, bool(arrays["default_left"][at]), *sides)


def assert_same_tree(found, expected, bins, error):
    """found: of nested(); expected: of grow()."""
    if not isinstance(expected, tuple):
        assert found == pytest.approx(expected, abs=error)
        return
    code = bins[found[0]] - 1 if found[1] is None else found[1]
    assert (found[0], code, found[2]) == expected[:3]
    assert_same_tree(found[3], expected[3], bins, error)
    assert_same_tree(found[4], expected[4], bins, error)
