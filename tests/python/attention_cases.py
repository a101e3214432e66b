"""The options of attention and a cover of their pairs: every two values of two options meet in some
case. The cover is made by a greedy search that gives the same cases on every machine."""

import itertools
import random

import torch
from conftest import MACHINE

OPTIONS = {
    "dtype": ["float32", "bfloat16", "float16", "float64"],
    "head_dim": [64, 1, 5, 16, 40, 80, 128, 192, 256],
    "value_dim": ["same", "other"],
    "lengths": [
        *((129, 129), (1, 200), (1, 1), (64, 64), (200, 129), (64, 200), (0, 17), (17, 0)),
    ],
    "heads": [(2, 4, 2), (1, 2, 2), (2, 3, 1), (1, 1, 1)],  # batch, heads, key heads
    "layout": ["contiguous", "seq first", "sliced", "strided"],
    "window": [
        *("none", "causal", "causal top left", "causal and left", "right", "both"),
        *("both top left", "one key"),
    ],
    "alibi": ["none", "(H,)", "(B, H)"],
    "bias": ["none", "bool", "own", "float32"],
    # "1>B": one that is expanded.
    "bias_shape": [
        *("Sq Sk", "B 1 1 Sk", "1 H Sq Sk", "B H Sq Sk", "H Sq 1", "1 1 1 1"),
        *("1>B H Sq Sk", "1>H Sq 1>Sk"),
    ],
    "softcap": [0.0, 1.5],
    "sinks": [False, True],
    "dropout": [0.0, 0.3],
    "scale": [None, 0.37, 0.0, -0.5],
    "gradient": ["out", "lse", "both"],
    "dead_rows": [False, True],  # the bias hides all keys from some queries
}

# On the emulated device: shorter, as each multiplication takes a microsecond there.
SHORT = {
    (129, 129): (70, 70),
    (1, 200): (1, 70),
    (64, 64): (33, 33),
    (200, 129): (70, 37),
    (64, 200): (33, 70),
}

WINDOWS = {
    "none": {},
    "causal": {"causal": True},
    "causal top left": {"causal": True, "top_left": True},
    "right": {"window_right": 9},
    "both": {"window_left": 20, "window_right": 5},
    "both top left": {"window_left": 7, "window_right": 30, "top_left": True},
    "one key": {"window_left": 0, "window_right": 0},
    "causal and left": {"causal": True, "window_left": 40},
}


def pairs(case):
    return set(itertools.combinations(sorted(case.items(), key=lambda item: item[0]), 2))


def all_pairs(options=None):
    options = OPTIONS if options is None else options
    return {
        ((a, x), (b, y))
        for a, b in itertools.combinations(sorted(options), 2)
        for x in options[a]
        for y in options[b]
    }


def cover(options=None, tries=12):
    """A list of cases that holds every pair: each case begins with a pair not met so far and takes,
    option by option, the value with which most such pairs are met; the best of some orders."""
    options = OPTIONS if options is None else options
    order, left, cases = random.Random(0), all_pairs(options), []
    ranked = sorted(left, key=str)
    while left:
        first = next(pair for pair in ranked if pair in left)
        best, most = None, -1
        for _ in range(tries):
            case = dict(first)
            names = [name for name in sorted(options) if name not in case]
            order.shuffle(names)
            for name in names:
                values = list(options[name])
                order.shuffle(values)
                case[name] = max(values, key=lambda value: _met(case, name, value, left))
            count = len(pairs(case) & left)
            if count > most:
                best, most = case, count
        cases.append({name: best[name] for name in options})
        left -= pairs(best)
    return cases


def _met(case, name, value, left):
    new = (name, value)
    return sum(
        ((new, other) if name < other[0] else (other, new)) in left for other in case.items()
    )


def singles():
    """The first value of every option, and each other value alone: what to look at first."""
    plain = {name: values[0] for name, values in OPTIONS.items()}
    cases = [plain]
    for name, values in OPTIONS.items():
        for value in values[1:]:
            others = {}
            if name in ("bias_shape", "dead_rows"):
                others["bias"] = "own"
            cases.append({**plain, **others, name: value})
    return cases


def name_of(case):
    """Of a case, in a test's name: what is unlike the plain case."""
    words = [
        f"{name}={value}".replace(" ", "")
        for name, value in case.items()
        if value != OPTIONS[name][0]
    ]
    return ",".join(words) or "plain"


def lengths_of(case):
    lengths = case["lengths"]
    return SHORT.get(lengths, lengths) if MACHINE == "simt" else lengths


def laid_out(tensor, layout):
    """The same numbers (B, H, S, D) with other strides."""
    if layout == "seq first":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "sliced":  # rows, heads and batches apart, not a multiple of 16 bytes
        batch, heads, rows, width = tensor.shape
        room = tensor.new_full((batch + 1, heads + 1, rows + 2, width + 3), torch.nan)
        room[1:, 1:, 1:-1, 2:-1] = tensor
        return room[1:, 1:, 1:-1, 2:-1]
    if layout == "strided":
        room = tensor.new_full((*tensor.shape, 2), torch.nan)
        room[..., 1] = tensor
        return room[..., 1]
    return tensor.contiguous()


def bias_shape(case, q_len, k_len):
    """The sizes of the bias that is made, and those that it is expanded to."""
    batch, heads, _ = case["heads"]
    sizes = {"B": batch, "H": heads, "Sq": q_len, "Sk": k_len, "1": 1}
    words = case["bias_shape"].split()
    shape = [sizes[word.split(">")[0]] for word in words]
    return shape, [sizes[word.split(">")[-1]] for word in words]


def make_bias(case, q_len, k_len, dtype):
    shape, expanded = bias_shape(case, q_len, k_len)
    kind, dead = case["bias"], case["dead_rows"]
    bias = torch.rand(shape) < 0.7 if kind == "bool" else torch.randn(shape)
    hidden = False if kind == "bool" else -torch.inf
    if kind != "bool":
        bias = bias.to(torch.float32 if kind == "float32" else dtype)
    if dead:
        if len(shape) > 1 and shape[-2] > 1:
            bias[..., 1::3, :] = hidden
        elif bias.numel():
            bias[-1] = hidden
    elif kind == "bool" and bias.numel():
        bias[..., 0] = True
    return bias.expand(expanded)


def make(case):
    """(tensors by argument name, other arguments) of a case, on the CPU, without gradients."""
    generator = random.Random(name_of(case))
    torch.manual_seed(generator.randrange(2**31))
    dtype = getattr(torch, case["dtype"])
    (batch, heads, kv_heads), (q_len, k_len) = case["heads"], lengths_of(case)
    head_dim = case["head_dim"]
    value_dim = head_dim if case["value_dim"] == "same" else {64: 24, 16: 65}.get(head_dim, 50)
    shapes = {
        "query": (batch, heads, q_len, head_dim),
        "key": (batch, kv_heads, k_len, head_dim),
        "value": (batch, kv_heads, k_len, value_dim),
    }
    tensors = {
        name: laid_out(torch.randn(shape).to(dtype), case["layout"])
        for name, shape in shapes.items()
    }
    if case["bias"] != "none":
        tensors["bias"] = make_bias(case, q_len, k_len, dtype)
    extra_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if case["alibi"] != "none":
        shape = (heads,) if case["alibi"] == "(H,)" else (batch, heads)
        tensors["alibi_slopes"] = torch.rand(shape, dtype=extra_dtype) * 0.2
    if case["sinks"]:
        tensors["sinks"] = torch.randn(heads, dtype=extra_dtype)
    options = {**WINDOWS[case["window"]], "softcap": case["softcap"], "scale": case["scale"]}
    if case["dropout"] > 0:
        options["dropout_p"] = case["dropout"]
        options["rng_state"] = torch.tensor([generator.randrange(2**62), generator.randrange(99)])
    return tensors, options
