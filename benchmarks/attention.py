"""The room's table: attention against F.scaled_dot_product_attention, same inputs, same results,
one process.

Both sides are checked to agree before they are timed. Where torch has no kernel for the work, the
peer is what its users write: a mask for a window, a loop over sequences, the mathematical
composition for a bias that learns. python benchmarks/attention.py [--quick]
"""

import argparse
import itertools

import torch
import torch.nn.functional as F
from harness import Table
from inputs import DEVICE, agree

import tilewright

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# Both sides round; bf16 has 8 bits.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2}


def inputs(heads, queries, keys, size, dtype, kv_heads=None):
    def make(h, s):
        return torch.randn(1, h, s, size, device=DEVICE).to(dtype)

    kv_heads = kv_heads or heads
    return make(heads, queries), make(kv_heads, keys), make(kv_heads, keys)


def with_gradients(function, tensors, grad):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]

    def run():
        return torch.autograd.grad(function(*leaves), leaves, grad)

    return run


def add(table, title, threads, ours, theirs, tensors, dtype, backward=False):
    """One row; with gradients of all `tensors` where `backward`."""
    tolerance = TOLERANCES[dtype]
    result = theirs(*tensors)
    agree(ours(*tensors), result, tolerance * max(1.0, result.abs().max().item()))
    contenders = {"peer": lambda: theirs(*tensors), "ours": lambda: ours(*tensors)}
    if backward:
        grad = torch.randn_like(result)
        contenders = {
            "peer": with_gradients(theirs, tensors, grad),
            "ours": with_gradients(ours, tensors, grad),
        }
        for mine, peer in zip(contenders["ours"](), contenders["peer"](), strict=True):
            # torch sums bf16 gradients in bf16: facts say 3x off.
            agree(mine, peer, 2 * tolerance * max(1.0, peer.abs().max().item()))
    title = f"{NAMES[dtype]} {title}, {'forward + backward' if backward else 'forward'}"
    table.add(title, threads, contenders, DEVICE)


def bench_dense(table, threads, dtype, quick):
    for length, size, causal, passes in [
        (512, 64, True, (False,)),
        (512, 128, True, (False,)),
        (2048, 64, False, (False, True)),
        (2048, 64, True, (False, True)),
        (2048, 128, False, (False, True)),
        (2048, 128, True, (False, True)),
    ]:
        if quick and length > 512:
            continue
        for backward in passes:
            add(
                table,
                f"8 heads of {size}, {length}{', causal' if causal else ''}",
                threads,
                lambda q, k, v, causal=causal: tilewright.flash_attention(q, k, v, causal=causal),
                lambda q, k, v, causal=causal: F.scaled_dot_product_attention(
                    q, k, v, is_causal=causal
                ),
                inputs(8, length, length, size, dtype),
                dtype,
                backward,
            )


def bench_short(table, threads, dtype):
    """Many short sequences, as of windows and images."""
    for length in (16, 64):
        for backward in (False, True):
            add(
                table,
                f"64 x 8 heads of 64, {length}",
                threads,
                lambda q, k, v: tilewright.flash_attention(q, k, v),
                lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
                [x.unflatten(1, (64, 8))[0] for x in inputs(512, length, length, 64, dtype)],
                dtype,
                backward,
            )


def bench_grouped(table, threads, dtype):
    for backward in (False, True):
        add(
            table,
            "8 query heads on 2, 2048, causal",
            threads,
            lambda q, k, v: tilewright.flash_attention(q, k, v, causal=True),
            lambda q, k, v: F.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=True
            ),
            inputs(8, 2048, 2048, 64, dtype, kv_heads=2),
            dtype,
            backward,
        )


def bench_decode(table, threads, dtype):
    for kv_heads in (64, 8):
        add(
            table,
            f"decode, 64 heads on {kv_heads} of 128, 1 query, 4096 keys",
            threads,
            lambda q, k, v: tilewright.flash_attention(q, k, v),
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            inputs(64, 1, 4096, 128, dtype, kv_heads=kv_heads),
            dtype,
        )


def bench_one_head(table, threads, dtype):
    add(
        table,
        "one head of 64, 4096",
        threads,
        lambda q, k, v: tilewright.flash_attention(q, k, v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        inputs(1, 4096, 4096, 64, dtype),
        dtype,
        backward=True,
    )


def bench_bias(table, threads, dtype):
    q, k, v = inputs(8, 2048, 2048, 64, dtype)
    bias = torch.randn(1, 8, 2048, 2048, device=DEVICE).to(dtype)
    add(
        table,
        "8 heads of 64, 2048, a bias that learns",
        threads,
        lambda q, k, v, b: tilewright.flash_attention(q, k, v, b),
        lambda q, k, v, b: F.scaled_dot_product_attention(q, k, v, attn_mask=b),
        (q, k, v, bias),
        dtype,
        backward=True,
    )


def bench_window(table, threads, dtype):
    length, left = 8192, 256
    place = torch.arange(length, device=DEVICE)
    distance = place[:, None] - place
    mask = (distance >= 0) & (distance <= left)
    add(
        table,
        f"8 heads of 64, {length}, causal window of {left}",
        threads,
        lambda q, k, v: tilewright.flash_attention(q, k, v, causal=True, window_left=left),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        inputs(8, length, length, 64, dtype),
        dtype,
    )


def bench_varlen(table, threads, dtype):
    lengths = [512, 1024, 333, 801, 1500, 64, 1011, 1024]
    offsets = torch.tensor([0, *lengths], device=DEVICE).cumsum(0)
    cu_seqlens = offsets.int()
    ends = offsets.tolist()

    def ours(q, k, v):
        return tilewright.flash_attention_varlen(
            q, k, v, cu_seqlens, cu_seqlens, max(lengths), max(lengths)
        )

    def theirs(q, k, v):
        parts = []
        for a, b in itertools.pairwise(ends):
            one = (x[a:b].transpose(0, 1)[None] for x in (q, k, v))
            parts.append(F.scaled_dot_product_attention(*one)[0].transpose(0, 1))
        return torch.cat(parts)

    tensors = [torch.randn(sum(lengths), 8, 64, device=DEVICE).to(dtype) for _ in range(3)]
    for backward in (False, True):
        add(
            table,
            f"{len(lengths)} packed sequences, {sum(lengths)} tokens, 8 heads of 64",
            threads,
            ours,
            theirs,
            tensors,
            dtype,
            backward,
        )


def bench_long(table, threads, dtype):
    """Its memory columns are the point."""
    add(
        table,
        "one head of 64, 16384",
        threads,
        lambda q, k, v: tilewright.flash_attention(q, k, v),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        inputs(1, 16384, 16384, 64, dtype),
        dtype,
        backward=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short sequences only, nothing saved")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    table = Table("attention", f"torch {torch.__version__.split('+')[0]}")
    most = torch.get_num_threads()
    for dtype in (torch.float32, torch.bfloat16):
        for threads in sorted({most, 1}, reverse=True):
            bench_dense(table, threads, dtype, quick)
            bench_decode(table, threads, dtype)
            bench_short(table, threads, dtype)
            if quick:
                continue
            bench_grouped(table, threads, dtype)
            bench_one_head(table, threads, dtype)
            bench_bias(table, threads, dtype)
            bench_window(table, threads, dtype)
            bench_varlen(table, threads, dtype)
        if not quick:
            bench_long(table, most, dtype)
    if not quick:
        table.save()


if __name__ == "__main__":
    main()
