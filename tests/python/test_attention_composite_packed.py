"""The second derivatives of packed attention, held against loops written from the definition."""

import math

import pytest
import torch
from attention_definition import sequences_apart
from test_attention_composite import make

ops = torch.ops.tilewright


@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True, "slopes": (4, 2)}, {"slopes": (2,), "dropout_p": 0.4, "window_left": 2}],
)
def test_packed_sequences(options):
    options = dict(options)
    cu_q, cu_k = [0, 3, 3, 5, 7], [0, 4, 6, 6, 8]
    query, key, value = make(7, 2, 3), make(8, 1, 3), make(8, 1, 2)
    shape = options.pop("slopes", None)
    slopes = make(*shape) if shape else None
    if "dropout_p" in options:
        options["rng_state"] = torch.tensor([99, 1])
    offsets = torch.tensor(cu_q, dtype=torch.int32), torch.tensor(cu_k, dtype=torch.int32)
    wanted = [query, key, value] + ([slopes] if shape else [])

    def call(query, key, value, slopes=None):
        return ops.flash_attention_varlen(
            query, key, value, *offsets, 4, 4, alibi_slopes=slopes, **options
        )

    out, lse = call(*wanted)
    expected_out, expected_lse = sequences_apart(query, key, value, cu_q, cu_k, slopes, options)
    torch.testing.assert_close(out, expected_out)
    torch.testing.assert_close(lse, expected_lse)
    seen = expected_lse > -math.inf
    ours = torch.autograd.grad(
        out.square().sum() + lse[seen].sin().sum(), wanted, create_graph=True
    )
    theirs = torch.autograd.grad(
        expected_out.square().sum() + expected_lse[seen].sin().sum(), wanted
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(lambda *args: call(*args)[0], wanted)
