"""Attention on input that does not fit: the message for each mistake, from kernels and from shape
functions alike."""

import pytest
import torch
from attention_bad_input import OPTIONS, dense_args, on, packed_args, refused, zeros

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
no_launch = pytest.mark.no_launch


@kernels
@no_launch
@pytest.mark.parametrize(
    "change,message",
    [
        ({"query": zeros(4, 5, 8)}, r"query must have shape \(B, H, Sq, D\), got \(4, 5, 8\)"),
        ({"key": zeros(2, 7, 8)}, r"key must have shape \(B, Hk, Sk, D\), got \(2, 7, 8\)"),
        ({"value": zeros(7, 3)}, r"value must have shape \(B, Hk, Sk, Dv\), got \(7, 3\)"),
        ({"query": zeros(2, 4, 5, 8, dtype=torch.int32)}, "query must be float64, .* got Int"),
        (
            {"key": zeros(2, 2, 7, 8).double()},
            r"key must have the dtype of query \(Float\), got Do",
        ),
        (
            {"value": zeros(2, 2, 7, 3).half()},
            r"value must have the dtype of query \(Float\), got ",
        ),
        ({"key": zeros(2, 2, 7, 8, device="meta")}, "key must be on the device of query"),
        ({"value": zeros(2, 2, 7, 3, device="meta")}, "value must be on the device of query"),
        ({"key": zeros(3, 2, 7, 8)}, "key must have the batch size of query, 2, got "),
        (
            {"key": zeros(2, 3, 7, 8)},
            r"the heads of query \(4\) must be a multiple of .* key \(3\)",
        ),
        (
            {"key": zeros(2, 0, 7, 8)},
            r"the heads of query \(4\) must be a multiple of .* key \(0\)",
        ),
        ({"key": zeros(2, 2, 7, 9)}, "the last dimension of key must be that of query, 8, got "),
        ({"value": zeros(2, 2, 6, 3)}, r"value must have shape .* = \(2, 2, 7, 3\), got \(2, 2, 6"),
        ({"value": zeros(2, 1, 7, 3)}, r"value must have shape .* = \(2, 2, 7, 3\), got \(2, 1, 7"),
        ({"value": zeros(1, 2, 7, 3)}, r"value must have shape .* = \(2, 2, 7, 3\), got \(1, 2, 7"),
        (
            {"query": zeros(2, 4, 5, 257), "key": zeros(2, 2, 7, 257)},
            r"the last dimension of query must lie in \[1, 256\], got \(2, 4, 5, 257\)",
        ),
        (
            {"query": zeros(2, 4, 5, 0), "key": zeros(2, 2, 7, 0)},
            r"the last dimension of query must lie in \[1, 256\]",
        ),
        (
            {"value": zeros(2, 2, 7, 300)},
            r"the last dimension of value must lie in \[1, 256\], got \(2, 2, 7, 300\)",
        ),
        (
            {"bias": zeros(5, 6)},
            r"bias must broadcast to \(B, H, Sq, Sk\) = \(2, 4, 5, 7\), got \(5, 6\)",
        ),
        ({"bias": zeros(2, 2, 5, 7)}, r"bias must broadcast to .* got \(2, 2, 5, 7\)"),
        ({"bias": zeros(1, 2, 4, 5, 7)}, r"bias must broadcast to .* got \(1, 2, 4, 5, 7\)"),
        ({"bias": zeros(5, 7).double()}, r"bias must be bool, float32 or of query's dtype \(Float"),
        ({"bias": zeros(5, 7, dtype=torch.int64)}, "bias must be bool, .* got Long"),
        ({"bias": zeros(5, 7).half()}, "bias must be bool, float32 or of query's .* got Half"),
        ({"bias": zeros(5, 7, device="meta")}, "bias must be on the device of query"),
        ({"sinks": zeros(3)}, r"sinks must have shape \(H,\) = \(4,\), got \(3,\)"),
        ({"sinks": zeros(2, 4)}, r"sinks must have shape \(H,\) = \(4,\), got \(2, 4\)"),
        ({"sinks": zeros(4, dtype=torch.bool)}, "sinks must be float64, .* got Bool"),
        ({"sinks": zeros(4, device="meta")}, "sinks must be on the device of query"),
        *OPTIONS,
    ],
)
def test_flash_attention(device, change, message):
    refused(device, "flash_attention", message, on(device, dense_args() | change))


@kernels
@no_launch
@pytest.mark.parametrize(
    "change,message",
    [
        (
            {"grad_out": zeros(2, 4, 5, 4)},
            r"grad_out must have the shape of out, \(2, 4, 5, 3\), g",
        ),
        (
            {"grad_out": zeros(2, 4, 5, 3).half()},
            r"grad_out must have the dtype of query \(Float\)",
        ),
        ({"grad_out": zeros(2, 4, 5, 3, device="meta")}, "grad_out must be on the device of query"),
        ({"grad_lse": zeros(2, 4, 6)}, r"grad_lse must have the shape of lse, \(2, 4, 5\), got"),
        ({"grad_lse": zeros(2, 4, 5).half()}, r"grad_lse must have the dtype of lse \(Float\)"),
        ({"out": zeros(2, 4, 5, 8)}, r"out must have shape \(B, H, Sq, Dv\) = \(2, 4, 5, 3\), got"),
        (
            {"out": zeros(2, 4, 5, 3).half()},
            r"out must have the dtype of query \(Float\), got Half",
        ),
        ({"lse": zeros(2, 4, 7)}, r"lse must have shape \(B, H, Sq\) = \(2, 4, 5\), got \(2, 4, 7"),
        ({"lse": zeros(2, 4, 5).double()}, "lse must be float32, got float64"),
        ({"dropout_p": 0.5}, "rng_state must be given where dropout_p > 0"),
        ({"sinks": zeros(5)}, "sinks must have shape"),
        ({"key": zeros(2, 3, 7, 8)}, "the heads of query"),
    ],
)
def test_flash_attention_backward(device, change, message):
    args = dense_args() | {"grad_out": zeros(2, 4, 5, 3), "grad_lse": None}
    args |= {"out": zeros(2, 4, 5, 3), "lse": zeros(2, 4, 5), "bias": None, "alibi_slopes": None}
    args |= {"sinks": None, "causal": False, "top_left": False, "window_left": -1}
    args |= {"window_right": -1, "scale": None, "softcap": 0.0, "dropout_p": 0.0}
    args |= {"rng_state": None, "needs": [False, False, False]}
    refused(device, "_flash_attention_backward", message, on(device, args | change))


BACKWARD_OPS = ["_flash_attention_backward", "_flash_attention_varlen_backward"]


def backward_args(op):
    shared = {"top_left": False, "window_left": -1, "window_right": -1, "scale": None}
    shared |= {"softcap": 0.0, "dropout_p": 0.0, "rng_state": None, "alibi_slopes": None}
    shared |= {"causal": False, "grad_lse": None}
    if "varlen" in op:
        args = packed_args() | {"lse": zeros(4, 6), "need_slopes": False}
        shape = (6, 4, 3)
    else:
        args = dense_args() | {"lse": zeros(2, 4, 5), "needs": [False] * 3, "bias": None}
        args["sinks"], shape = None, (2, 4, 5, 3)
    return args | shared | {"out": zeros(*shape), "grad_out": zeros(*shape)}


@pytest.mark.parametrize("op", BACKWARD_OPS)
def test_a_backward_has_no_backward(op):
    message = rf"tilewright::{op}: is not differentiable; second .* create_graph=True"
    args = backward_args(op)
    args["grad_out"].requires_grad_()
    grads = getattr(ops, op)(**args)
    with pytest.raises(RuntimeError, match=message):
        grads[0].sum().backward()


@pytest.mark.parametrize("op", BACKWARD_OPS)
def test_backward_arguments(device, op):
    """Gradients of what was not given, and dropout that nobody can repeat."""
    cases = [({"dropout_p": 0.5}, "rng_state must be given where dropout_p > 0")]
    if "varlen" in op:
        cases += [({"need_slopes": True}, "alibi_slopes must be a tensor, got None")]
    else:
        for i, name in enumerate(("bias", "alibi_slopes", "sinks")):
            needs = [j == i for j in range(3)]
            cases += [({"needs": needs}, f"{name} must be a tensor, got None")]
        keeps = zeros(5, 7, dtype=torch.bool)
        message = "bias must be floating to have a gradient, got Bool"
        cases += [({"needs": [True, False, False], "bias": keeps}, message)]
    for change, message in cases:
        refused(device, op, message, on(device, backward_args(op) | change))


def test_none_under_autocast():
    for op, missing in [("flash_attention_paged", "key_cache"), ("append_kv_", "value_cache")]:
        args = [None] * (5 if op == "flash_attention_paged" else 6)
        args[0] = zeros(1, 2, 3, 4)
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(RuntimeError, match=f"{op}: {missing} must be a tensor, got None"),
        ):
            getattr(ops, op)(*args)


def test_caches_of_inference_mode_are_left_alone():
    """Their versions cannot be counted outside of it: nothing is written before that is told."""
    with torch.inference_mode():
        caches = [zeros(2, 4, 2, 8) for _ in "kv"]
    rows = [torch.ones(1, 2, 3, 8) for _ in "kv"]
    table = zeros(1, 2, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="append_kv_: caches made in inference mode can only"):
        ops.append_kv_(*caches, *rows, table, zeros(1, dtype=torch.int32))
    assert not any(cache.any() for cache in caches)
    with torch.inference_mode():
        ops.append_kv_(*caches, *rows, table, zeros(1, dtype=torch.int32))
    assert all(cache.any() for cache in caches)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"out_a": zeros(2, 3, 4, dtype=torch.int32)}, "out_a must be float64, float32"),
        ({"out_b": zeros(4)}, r"out_b must have shape \(..., S, Dv\), got \(4,\)"),
        ({"lse_a": zeros(2, 4)}, r"lse_a must have the shape of out_a without its last dimension"),
        ({"lse_b": zeros(2, 3, 1)}, r"lse_b must have .*, \(2, 3\), got \(2, 3, 1\)"),
        ({"lse_b": zeros(2, 3).half()}, "lse_b must be float32 or float64, got Half"),
        ({"lse_a": zeros(2, 3, device="meta")}, "lse_a must be on the device of out_a"),
        (
            {"out_b": zeros(2, 4, 4), "lse_b": zeros(2, 4)},
            r"out_b must have the shape of out_a, \(2, 3, 4\), got \(2, 4, 4\)",
        ),
        (
            {"out_b": zeros(2, 3, 4, device="meta"), "lse_b": zeros(2, 3, device="meta")},
            "out_b must be on the device of out_a",
        ),
    ],
)
def test_merge_attention(device, change, message):
    args = {"out_a": zeros(2, 3, 4), "lse_a": zeros(2, 3)}
    args |= {"out_b": zeros(2, 3, 4), "lse_b": zeros(2, 3)}
    refused(device, "merge_attention", message, on(device, args | change))
