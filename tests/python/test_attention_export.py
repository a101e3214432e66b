"""Attention's operators under opcheck, exported with other sizes, trained under torch.compile."""

import pytest
import torch
from attention_bad_input import offsets
from checks import export_and_run, opcheck
from functorch.compile import make_boxed_func

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def make(device, *shapes, grad=False):
    return [torch.randn(s, device=device).requires_grad_(grad) for s in shapes]


def dense(device, grad=False):
    return make(device, (2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 3), grad=grad)


def packed(device, grad=False):
    tensors = make(device, (6, 4, 8), (9, 2, 8), (9, 2, 3), grad=grad)
    return [*tensors, offsets(0, 2, 6).to(device), offsets(0, 5, 9).to(device), 4, 5]


OPTIONS = {"top_left": False, "window_left": -1, "window_right": 3, "scale": None, "softcap": 2.0}


@kernels
@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_forward(device, grad):
    state = torch.tensor([1, 2], device=device)
    bias, slopes, sinks = make(device, (4, 1, 7), (2, 4), (4,), grad=grad)
    opcheck(ops.flash_attention.default, tuple(dense(device, grad)), {"causal": True})
    opcheck(
        ops.flash_attention.default,
        (*dense(device, grad), bias, slopes, sinks),
        OPTIONS | {"dropout_p": 0.3, "rng_state": state},
    )
    opcheck(
        ops.flash_attention_varlen.default,
        tuple(packed(device, grad)),
        OPTIONS | {"dropout_p": 0.3, "rng_state": state, "alibi_slopes": slopes},
    )


@kernels
def test_opcheck_memory_order(device):
    """Shape functions lay results out as kernels do."""
    query, key, value = (
        x.transpose(1, 2).contiguous().transpose(1, 2).detach().requires_grad_()
        for x in dense(device)
    )
    opcheck(ops.flash_attention.default, (query, key, value))
    query = query.detach().permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    opcheck(ops.flash_attention.default, (query.requires_grad_(), key, value[..., ::2]))


@kernels
def test_opcheck_backward(device):
    shared = OPTIONS | {"causal": True, "dropout_p": 0.2}
    shared |= {"rng_state": torch.tensor([1, 2], device=device)}
    bias, slopes, sinks = make(device, (4, 1, 7), (2, 4), (4,))
    args = dense(device)
    out, lse = ops.flash_attention(*args, bias, slopes, sinks, **shared)
    opcheck(
        ops._flash_attention_backward.default,
        (torch.randn_like(out), torch.randn_like(lse), *args, out, lse, bias, slopes, sinks),
        shared | {"needs": [True, True, True]},
    )
    opcheck(
        ops._flash_attention_backward.default,
        (torch.randn_like(out), None, *args, out, lse, bias, slopes, sinks),
        shared | {"needs": [False, False, False]},
    )
    args = packed(device)
    shared |= {"alibi_slopes": slopes}
    out, lse = ops.flash_attention_varlen(*args, **shared)
    opcheck(
        ops._flash_attention_varlen_backward.default,
        (torch.randn_like(out), torch.randn_like(lse), *args[:3], out, lse, *args[3:]),
        shared | {"need_slopes": True},
    )


@kernels
def test_opcheck_paged(device):
    query, keys, values = make(device, (2, 4, 3, 8), (6, 5, 2, 8), (6, 5, 2, 3))
    table = torch.tensor([[4, 0, 2], [3, 1, 5]], dtype=torch.int32, device=device)
    args = (query, keys, values, table, offsets(12, 4).to(device))
    opcheck(ops.flash_attention_paged.default, args, {"window_left": 3})


@kernels
def test_export_with_other_sizes(device):
    def attend(query, key, value):
        return tilewright.flash_attention(query, key, value, causal=True)

    batch, heads, q_len, k_len = (torch.export.Dim(n) for n in ("b", "h", "s", "t"))
    shapes = ({0: batch, 1: 2 * heads, 2: q_len}, *({0: batch, 1: heads, 2: k_len},) * 2)
    others = make(device, (3, 10, 9, 8), (3, 5, 13, 8), (3, 5, 13, 3))
    found = export_and_run(attend, *dense(device), dynamic_shapes=(shapes,), other_args=others)
    assert torch.equal(found, attend(*others))


@kernels
def test_compiled_training_takes_the_kernels(device):
    """The composite, which stores the scores, is for second derivatives alone."""
    called = []

    def record(graph, _):
        called.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    def loss(query, key, value):
        out = tilewright.flash_attention(query, key, value, causal=True, dropout_p=0.2)
        return out.square().sum()

    args = dense(device, grad=True)
    backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=record, bw_compiler=record)
    torch.compile(loss, fullgraph=True, backend=backend)(*args).backward()
    assert called.count("tilewright.flash_attention.default") == 1
    assert called.count("tilewright._flash_attention_backward.default") == 1
    assert all(x.grad.isfinite().all() for x in args)
