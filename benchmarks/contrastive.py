"""Contrastive losses against what they are written with: the matrix of scores and cross entropy,
and the best such formulation by hand; forward and backward, on the same features in turns.

    python benchmarks/contrastive.py [--threads 2]
"""

import argparse
import json
import math
import statistics

import torch
import torch.nn.functional as F
from harness import RESULTS, machine, measure, peak_memory

import tilewright

COLUMNS = [
    "work",
    "usual",
    "by hand",
    "tilewright",
    "faster than usual",
    "than by hand",
    "extra MB",
]
TEMPERATURE, DEPTH = 0.1, 128


def usual_nt_xent(first, second):
    z = F.normalize(torch.cat([first, second]), dim=1)
    n = len(first)
    scores = z @ z.t() / TEMPERATURE
    scores = scores.masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(scores, torch.arange(2 * n).roll(n))


class NtXentByHand(torch.autograd.Function):
    """One matrix, written over in place; no mask, no labels, gradients by two products as one."""

    @staticmethod
    def forward(ctx, z):
        n = len(z) // 2
        own = (z[:n] * z[n:]).sum(1).mean() / TEMPERATURE
        scores = z @ (z.t() / TEMPERATURE)
        scores.fill_diagonal_(float("-inf"))
        lse = scores.logsumexp(1)
        ctx.save_for_backward(z, scores, lse)
        return lse.mean() - own

    @staticmethod
    def backward(ctx, grad):
        z, scores, lse = ctx.saved_tensors
        n = len(z) // 2
        weights = scores.sub_(lse[:, None]).exp_()
        found = weights @ z + weights.t() @ z - 2 * z.roll(n, 0)
        return found * (grad / (TEMPERATURE * len(z)))


def nt_xent_by_hand(first, second):
    return NtXentByHand.apply(F.normalize(torch.cat([first, second]), dim=1))


def usual_info_nce(query, key):
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    return F.cross_entropy(query @ key.t() / TEMPERATURE, torch.arange(len(query)))


def usual_clip(first, second):
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    scores, own = first @ second.t() / TEMPERATURE, torch.arange(len(first))
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.t(), own)) / 2


def usual_supervised(features, labels):
    z = F.normalize(features, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool)
    scores = (z @ z.t() / TEMPERATURE).masked_fill(itself, float("-inf"))
    log_share = scores - scores.logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels) & ~itself
    counts = positive.sum(1)
    return -(log_share.masked_fill(~positive, 0).sum(1) / counts.clamp_min(1))[counts > 0].mean()


def usual_infomax(whole, local):
    n, places, _ = local.shape
    scores = whole @ local.flatten(0, 1).t()  # (N, N L)
    own = (whole[:, None] * local).sum(2)
    mine = torch.eye(n, dtype=torch.bool).repeat_interleave(places, 1)
    others = scores.masked_fill(mine, float("-inf")).logsumexp(1, keepdim=True)
    return (torch.logaddexp(own, others) - own).mean()


def usual_sampled_softmax(hidden, weight, target, words, log_noise):
    log_times = (log_noise[words] + math.log(len(words)))[None]
    scores = hidden @ weight[words].t() - log_times
    scores = scores.masked_fill(words == target[:, None], float("-inf"))
    own = (hidden * weight[target]).sum(1, keepdim=True)
    first = torch.zeros(len(hidden), dtype=torch.int64)
    return F.cross_entropy(torch.cat([own, scores], 1), first)


def training(loss, tensors):
    def run():
        for tensor in tensors:
            tensor.grad = None
        loss(*tensors).backward()

    return run


def compare(title, sizes, usual, ours, by_hand=None):
    """Features of each size, of which the last dimension is left to this."""
    shapes = [size if isinstance(size, tuple) else (size,) for size in sizes]
    tensors = [torch.randn(*shape, DEPTH, requires_grad=True) for shape in shapes]
    losses = {"usual": usual, "hand": by_hand, "ours": ours}
    losses = {name: loss for name, loss in losses.items() if loss is not None}
    grads = []
    for loss in losses.values():  # the same work, or there is nothing to compare
        training(loss, tensors)()
        grads.append(tensors[0].grad.clone())
        torch.testing.assert_close(loss(*tensors), usual(*tensors), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grads[-1], grads[0], rtol=1e-3, atol=1e-7)
    contenders = {name: training(loss, tensors) for name, loss in losses.items()}
    ms = {name: statistics.median(t) for name, t in measure(contenders, 10.0).items()}
    megabytes = {name: peak_memory(run) for name, run in contenders.items()}
    line = [
        title,
        f"{ms['usual']:.3g} ms",
        f"{ms['hand']:.3g} ms" if by_hand else "-",
        f"{ms['ours']:.3g} ms",
        f"{ms['usual'] / ms['ours']:.1f}x",
        f"{ms['hand'] / ms['ours']:.1f}x" if by_hand else "-",
        f"{megabytes['usual']:.0f} and {megabytes['ours']:.0f}",
    ]
    print(*line, sep=" | ", flush=True)
    return line, {"work": title, "ms": ms, "mb": megabytes}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    threads = f"{torch.get_num_threads()} threads"

    def nt_xent(first, second):
        return tilewright.nt_xent(first, second, TEMPERATURE)

    def info_nce(query, key):
        return tilewright.info_nce(query, key, None, TEMPERATURE)

    def clip_loss(first, second):
        return tilewright.clip_loss(first, second, TEMPERATURE)

    found = []
    for n in (2048, 4096):
        title = f"nt_xent, {2 * n} views, {threads}"
        found.append(compare(title, (n, n), usual_nt_xent, nt_xent, nt_xent_by_hand))
    found.append(
        compare(f"info_nce, 4096 to 8192 keys, {threads}", (4096, 8192), usual_info_nce, info_nce)
    )
    found.append(compare(f"clip_loss, 4096 pairs, {threads}", (4096, 4096), usual_clip, clip_loss))
    labels = torch.arange(8192) % 100
    found.append(
        compare(
            f"supervised_contrastive, 8192 rows of 100 labels, {threads}",
            (8192,),
            lambda z: usual_supervised(z, labels),
            lambda z: tilewright.supervised_contrastive(z, labels, TEMPERATURE),
        )
    )
    found.append(
        compare(
            f"local_global_infomax, 256 examples of 64 places, {threads}",
            (256, (256, 64)),
            lambda whole, local: usual_infomax(whole / DEPTH, local),
            lambda whole, local: tilewright.local_global_infomax(whole / DEPTH, local),
        )
    )
    noise = tilewright.NoiseDistribution(1 / torch.arange(1.0, 50_001))
    words, target = noise.sample(8192), torch.randint(50_000, (2048,))
    given = (target, words, noise.log_prob)
    found.append(
        compare(
            f"sampled_softmax_loss, 2048 rows, 8192 of 50,000 words, {threads}",
            (2048, 50_000),
            lambda x, w: usual_sampled_softmax(x / DEPTH, w, *given),
            lambda x, w: tilewright.sampled_softmax_loss(x / DEPTH, w, *given),
        )
    )
    views = [torch.randn(32768, DEPTH, requires_grad=True) for _ in range(2)]
    most = peak_memory(training(nt_xent, views))
    print(f"nt_xent of 65,536 views: {most:.0f} MB beyond its {2 * 32768 * DEPTH * 4 / 2**20:.0f}")
    tables = {
        "machine": machine(),
        "columns": COLUMNS,
        "lines": [line for line, _ in found],
        "rows": [row for _, row in found]
        + [{"work": "nt_xent, 65536 views", "mb": {"ours": most}}],
    }
    (RESULTS / "contrastive.json").write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
