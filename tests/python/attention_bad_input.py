"""What the tests of attention on input that does not fit share: the operators' arguments, the
options that all of them check, and the check of a message."""

import math
import re

import pytest
import torch

ops = torch.ops.tilewright
nan, inf = math.nan, math.inf


def refused(device, name, message, args):
    """The operator raises the message, on the device and for shapes alone."""
    message = rf"tilewright::{name}: {message}"
    with pytest.raises(RuntimeError, match=message):
        getattr(ops, name)(**args)
    if any(isinstance(x, torch.Tensor) and x.is_meta for x in args.values()):
        return
    args = {n: x.to("meta") if isinstance(x, torch.Tensor) else x for n, x in args.items()}
    with pytest.raises(RuntimeError, match=re.sub(r"\(cpu\)|cuda:\d", "meta", message)):
        getattr(ops, name)(**args)


def on(device, args):
    return {
        n: x.to(device) if isinstance(x, torch.Tensor) and not x.is_meta else x
        for n, x in args.items()
    }


def zeros(*shape, dtype=torch.float32, device=None):
    return torch.zeros(*shape, dtype=dtype, device=device)


def dense_args():
    return {"query": zeros(2, 4, 5, 8), "key": zeros(2, 2, 7, 8), "value": zeros(2, 2, 7, 3)}


OPTIONS = [
    ({"dropout_p": -0.1}, r"dropout_p must lie in \[0, 1\), got -0.1"),
    ({"dropout_p": 1.0}, r"dropout_p must lie in \[0, 1\), got 1"),
    ({"dropout_p": nan}, r"dropout_p must lie in \[0, 1\), got nan"),
    ({"softcap": -1.0}, r"softcap must be finite and not negative \(0: none\), got -1"),
    ({"softcap": inf}, r"softcap must be finite and not negative \(0: none\), got inf"),
    ({"scale": nan}, "scale must be finite, got nan"),
    ({"scale": -inf}, "scale must be finite, got -inf"),
    ({"window_left": -2}, r"window_left must be -1 \(unlimited\) or more, got -2"),
    ({"window_right": -3}, r"window_right must be -1 \(unlimited\) or more, got -3"),
    ({"alibi_slopes": zeros(3)}, r"alibi_slopes must have shape \(H,\) = \(4,\) or \(B, H\) = "),
    ({"alibi_slopes": zeros(4, 2)}, r"alibi_slopes must have .* \(2, 4\), got \(4, 2\)"),
    ({"alibi_slopes": zeros(4, dtype=torch.int64)}, "alibi_slopes must be float64, .* got Long"),
    ({"alibi_slopes": zeros(4, device="meta")}, "alibi_slopes must be on the device of query"),
]
RNG_STATES = [
    (zeros(2), "rng_state must be int64, got float32"),
    (zeros(3, dtype=torch.int64), r"rng_state must have shape \(2,\), got \(3,\)"),
    (zeros(1, 2, dtype=torch.int64), r"rng_state must have shape \(2,\), got \(1, 2\)"),
    (
        zeros(2, dtype=torch.int64, device="meta"),
        r"rng_state must be on the device of query \(.*\), got meta; move it with rng_state.to",
    ),
]
OPTIONS += [({"dropout_p": 0.5, "rng_state": state}, message) for state, message in RNG_STATES]


def offsets(*values):
    return torch.tensor(values, dtype=torch.int32)


def packed_args():
    return {
        "query": zeros(6, 4, 8),
        "key": zeros(9, 2, 8),
        "value": zeros(9, 2, 3),
        "cu_seqlens_q": offsets(0, 2, 6),
        "cu_seqlens_k": offsets(0, 5, 9),
        "max_seqlen_q": 4,
        "max_seqlen_k": 5,
    }


def paged_args():
    return {
        "query": zeros(2, 4, 3, 8),
        "key_cache": zeros(6, 5, 2, 8),
        "value_cache": zeros(6, 5, 2, 3),
        "block_table": torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32),
        "cache_seqlens": offsets(12, 4),
    }
