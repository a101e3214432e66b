"""The second derivatives of attention: the composite behind create_graph=True, held against loops
written from the definition."""

import math

import pytest
import torch
from attention_definition import by_definition, kept_by_dropout

ops = torch.ops.tilewright


def make(*shape, device="cpu"):
    return torch.randn(*shape, dtype=torch.float64).to(device).requires_grad_()


def make_inputs(q_len=5, k_len=7, batch=2, heads=4, key_heads=2, dim=4, value_dim=3):
    return [
        make(batch, heads, q_len, dim),
        make(batch, key_heads, k_len, dim),
        make(batch, key_heads, k_len, value_dim),
    ]


def bias_with_holes(*shape):
    """Random, and -inf in places: whole rows among them."""
    bias = torch.randn(*shape, dtype=torch.float64)
    bias[..., 0] = -math.inf
    bias[..., 1, :] = -math.inf
    return bias.requires_grad_()


OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"causal": True},
    "causal, rows that see nothing": {"causal": True, "q_len": 8, "k_len": 5},
    "top left": {"causal": True, "top_left": True},
    "window": {"window_left": 2, "window_right": 1},
    "window to the left": {"window_left": 1, "causal": True, "q_len": 9, "k_len": 4},
    "softcap": {"softcap": 1.5},
    "slopes": {"alibi_slopes": (4,), "causal": True},
    "slopes of the batch": {"alibi_slopes": (2, 4), "top_left": True},
    "bias": {"bias": (2, 4, 5, 7)},
    "broadcast bias": {"bias": (4, 1, 7)},
    "bias with holes": {"holes": (1, 4, 5, 7)},
    "boolean mask": {"mask": (2, 1, 5, 7)},
    "sinks": {"sinks": (4,)},
    "sinks of rows that see nothing": {"sinks": (4,), "causal": True, "q_len": 8, "k_len": 5},
    "dropout": {"dropout_p": 0.4},
    "no keys": {"k_len": 0, "sinks": (4,)},
    "all": {
        "bias": (5, 7),
        "alibi_slopes": (2, 4),
        "sinks": (4,),
        "causal": True,
        "window_left": 3,
        "softcap": 2.0,
        "dropout_p": 0.3,
        "scale": 0.7,
    },
}


def build(case, **sizes):
    """Inputs that may be differentiated, by name, and the options."""
    options = dict(OPTIONS[case])
    sizes |= {n: options.pop(n) for n in ("q_len", "k_len") if n in options}
    tensors = dict(zip(("query", "key", "value"), make_inputs(**sizes), strict=True))
    for name in ("bias", "alibi_slopes", "sinks"):
        if name in options:
            tensors[name] = make(*options.pop(name))
    if "holes" in options:
        tensors["bias"] = bias_with_holes(*options.pop("holes"))
    if "mask" in options:
        mask = torch.rand(options.pop("mask")) < 0.6
        mask[..., 2, :] = False
        tensors["bias"] = mask
    if "dropout_p" in options:
        options["rng_state"] = torch.tensor([-(2**62) + 12345, 2**40 + 7])
    return tensors, options


def definition(tensors, options):
    t = dict(tensors)
    return by_definition(
        *(t.get(n) for n in ("query", "key", "value", "bias", "alibi_slopes", "sinks")), **options
    )


def differentiable(tensors):
    return {name: t for name, t in tensors.items() if t.requires_grad}


@pytest.mark.parametrize("case", OPTIONS)
def test_gradients_with_a_graph_are_the_definitions(case):
    tensors, options = build(case)
    out, lse = ops.flash_attention(**tensors, **options)
    expected_out, expected_lse = definition(tensors, options)
    torch.testing.assert_close(out, expected_out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-12, atol=1e-12)
    wanted = differentiable(tensors)
    weights = torch.randn_like(out), torch.randn_like(lse)
    alive = expected_lse > -math.inf

    def total(out, lse):
        return (out * weights[0]).sum() + (lse * weights[1])[alive].sum()

    given = [x.requires_grad_() for x in weights]
    grads = torch.autograd.grad(total(out, lse), wanted.values(), create_graph=True)
    expected = torch.autograd.grad(
        total(expected_out, expected_lse), wanted.values(), allow_unused=True, create_graph=True
    )
    for ours, theirs in zip(grads, expected, strict=True):
        theirs = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    # Once more, through the gradients and what they received.
    seconds = []
    for first in (grads, expected):
        some = [g for g in first if g is not None and g.requires_grad]
        square = sum(
            (g * torch.linspace(1, 2, g.numel(), dtype=g.dtype).view_as(g)).sum() ** 2 for g in some
        )
        inputs = [*wanted.values(), *given]
        found = torch.autograd.grad(square, inputs, allow_unused=True)
        seconds.append(
            [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
        )
    for ours, theirs in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", ["plain", "bias with holes", "sinks", "all"])
def test_gradgradcheck(case):
    tensors, options = build(case, batch=2, dim=2, value_dim=2)
    wanted = differentiable(tensors)
    fixed = {n: t for n, t in tensors.items() if n not in wanted}
    if case == "bias with holes":  # a difference quotient has none at -inf
        bias = wanted.pop("bias")
        fixed["bias"] = bias.detach()

    def call(*args):
        named = dict(zip(wanted, args, strict=True)) | fixed
        return ops.flash_attention(**named, **options)[0]

    assert torch.autograd.gradgradcheck(call, tuple(wanted.values()))


@pytest.mark.parametrize("rng_state", [(0, 0), (-1, -1), (2**63 - 1, 2**32 + 5), (1234567, 3)])
def test_dropout_is_philox_bit_for_bit(rng_state):
    # With equal scores, and value's gradients taken at one element of each query's output, the
    # gradient of value is the mask.
    batch, heads, q_len, k_len, p = 2, 2, 3, 150, 0.37
    query = torch.zeros(batch, heads, q_len, 1, dtype=torch.float64)
    key = torch.zeros(batch, heads, k_len, 1, dtype=torch.float64)
    value = make(batch, heads, k_len, q_len)
    state = torch.tensor(rng_state)
    out, _ = ops.flash_attention(query, key, value, dropout_p=p, rng_state=state)
    pick = torch.eye(q_len, dtype=torch.float64).expand_as(out)
    (grad,) = torch.autograd.grad(out, value, pick, create_graph=True)
    expected = torch.tensor(
        [
            kept_by_dropout(state, p, head, i, j)
            for head in range(batch * heads)
            for j in range(k_len)
            for i in range(q_len)
        ]
    ).view(batch, heads, k_len, q_len)
    assert torch.equal(grad != 0, expected)
    assert abs(expected.double().mean() - (1 - p)) < 0.05


def test_no_nan_where_nothing_is_seen():
    """Rows that see no key, beside scores so low that exp of anything else overflows."""
    query, key, value = make_inputs(q_len=3, k_len=4)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    with torch.no_grad():
        query[..., 0, :] = 1e3
        key.copy_(-key.abs() - 1)
    for bias in (mask, torch.zeros(3, 4, dtype=torch.float64).masked_fill(~mask, -math.inf)):
        bias = bias.requires_grad_() if bias.is_floating_point() else bias
        wanted = [query, key, value] + ([bias] if bias.requires_grad else [])
        out, lse = ops.flash_attention(query, key, value, bias)
        assert not out[:, :, 1].any()
        assert (lse[:, :, 1] == -math.inf).all()
        first = torch.autograd.grad([out.sum() + lse[:, :, ::2].sum()], wanted, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted)
        for grad in (*first, *second):
            assert grad.isfinite().all()
        assert not first[0][:, :, 1].any()
        assert not second[0][:, :, 1].any()
        (grad,) = torch.autograd.grad(
            ops.flash_attention(query, key, value, bias)[1].sum(), [query], create_graph=True
        )
        assert grad.isfinite().all(), "a gradient that reaches an lse of -inf is dropped"


def test_nan_in_keys_that_no_query_sees():
    query, key, value = make_inputs(q_len=3, k_len=6)
    clean = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    with torch.no_grad():
        key[:, :, 4:] = math.nan
        value[:, :, 4:] = math.nan
    options = {"top_left": True, "window_right": 1, "softcap": 3.0}
    results = []
    for inputs in ([query, key, value], clean):
        out, lse = ops.flash_attention(*inputs, **options)
        first = torch.autograd.grad(out.sum() + lse.sum(), inputs, create_graph=True)
        results.append([*first, *torch.autograd.grad(first[0].square().sum(), inputs)])
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


def test_one_tensor_as_query_key_and_value():
    x = make(1, 2, 5, 3)
    (ours,) = torch.autograd.grad(ops.flash_attention(x, x, x)[0].sin().sum(), x, create_graph=True)
    (theirs,) = torch.autograd.grad(by_definition(x, x, x)[0].sin().sum(), x)
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradgradcheck(lambda x: ops.flash_attention(x, x, x)[0], (x,))


@pytest.mark.parametrize("wanted", ["query", "key", "value", "bias", "sinks"])
@pytest.mark.parametrize("result", [0, 1])
def test_one_input_one_result(wanted, result):
    tensors, options = build("all")
    tensors = {n: t.detach().requires_grad_(n == wanted) for n, t in tensors.items()}
    found = ops.flash_attention(**tensors, **options)[result].square().sum()
    expected = definition(tensors, options)[result].square().sum()
    if not expected.requires_grad:  # lse does not depend on value
        (ours,) = torch.autograd.grad(found, tensors[wanted], create_graph=True, allow_unused=True)
        assert ours is None or not ours.any()
        return
    (ours,) = torch.autograd.grad(found, tensors[wanted], create_graph=True)
    (theirs,) = torch.autograd.grad(expected, tensors[wanted])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    tensors, options = build("all")
    narrow = {n: t.detach().to(dtype).requires_grad_() for n, t in tensors.items()}
    narrow["bias"] = narrow["bias"].detach().float().requires_grad_()
    wide = {n: t.detach().double().requires_grad_() for n, t in narrow.items()}
    results = []
    for inputs in (narrow, wide):
        out, lse = ops.flash_attention(**inputs, **options)
        first = torch.autograd.grad(
            out.float().sum() + lse.sum(), inputs.values(), create_graph=True
        )
        for grad, x in zip(first, inputs.values(), strict=True):
            assert grad.dtype == x.dtype
        second = torch.autograd.grad(first[0].float().square().sum(), inputs.values())
        results.append([*first, *second])
    limit = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    for ours, expected in zip(*results, strict=True):
        largest = expected.abs().max().item()
        assert (ours.double() - expected).abs().max() <= limit * max(largest, 1)


def test_autocast_does_not_round_the_composite():
    inputs = [x.detach().float().requires_grad_() for x in make_inputs()]
    out = ops.flash_attention(*inputs)[0].square().sum()
    plain = torch.autograd.grad(out, inputs, create_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        under = torch.autograd.grad(out, inputs, create_graph=True)
    for a, b in zip(plain, under, strict=True):
        assert torch.equal(a, b)
