"""nade against the loop over pixels that it is written as, MADE's masked layer against its formula
and its samples against a network's run for each pixel; on the same weights in turns.

    python benchmarks/density.py [--threads 2]
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F
from harness import RESULTS, machine, measure, peak_memory

import tilewright

COLUMNS = ["work", "written with torch", "tilewright", "faster", "extra MB"]
PIXELS, HIDDEN, BATCH = 784, 500, 100


def loop(x, weight_in, bias_in, weight_out, bias_out):
    """The usual way: 784 steps, a loss of logits at the end."""
    activation = bias_in.expand(len(x), -1)
    logits = []
    for d in range(x.shape[1]):
        logits.append(torch.sigmoid(activation) @ weight_out[d] + bias_out[d])
        activation = activation + x[:, d : d + 1] * weight_in[:, d]
    loss = F.binary_cross_entropy_with_logits(torch.stack(logits, 1), x, reduction="none")
    return -loss.sum(1)


def sampling_loop(n, weight_in, bias_in, weight_out, bias_out):
    activation = bias_in.expand(n, -1)
    pixels = []
    for d in range(len(bias_out)):
        p = torch.sigmoid(torch.sigmoid(activation) @ weight_out[d] + bias_out[d])
        x = torch.bernoulli(p)
        activation = activation + x[:, None] * weight_in[:, d]
        pixels.append(x)
    return torch.stack(pixels, 1)


def training(run, tensors):
    def step():
        for tensor in tensors:
            tensor.grad = None
        run().sum().backward()

    return step


def without_grad(run):
    def step():
        with torch.no_grad():
            run()

    return step


def compare(title, peer, ours, seconds, most=25):
    contenders = {"peer": peer, "ours": ours}
    ms = {
        name: statistics.median(times)
        for name, times in measure(contenders, seconds, most=most).items()
    }
    megabytes = {name: peak_memory(run) for name, run in contenders.items()}
    line = [
        title,
        f"{ms['peer']:.3g} ms",
        f"{ms['ours']:.3g} ms",
        f"{ms['peer'] / ms['ours']:.3g}x",
        f"{megabytes['peer']:.0f} and {megabytes['ours']:.0f}",
    ]
    print(*line, sep=" | ", flush=True)
    return line, {"work": title, "ms": ms, "mb": megabytes}


def nade_work(threads):
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(BATCH, PIXELS, generator=generator) < 0.5).float()
    sizes = ((HIDDEN, PIXELS), (HIDDEN,), (PIXELS, HIDDEN), (PIXELS,))
    w = [(torch.randn(s, generator=generator) * 0.05).requires_grad_() for s in sizes]
    # The same work, or there is nothing to compare.
    found = tilewright.nade(x, *w), loop(x, *w)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-3)
    grads = [torch.autograd.grad(f.sum(), w) for f in found]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    of = f"{PIXELS} pixels, {HIDDEN} units, batch {BATCH}, {threads}"
    yield compare(
        f"nade forward + backward, {of}",
        training(lambda: loop(x, *w), w),
        training(lambda: tilewright.nade(x, *w), w),
        8.0,
    )
    yield compare(
        f"nade forward, {of}",
        without_grad(lambda: loop(x, *w)),
        without_grad(lambda: tilewright.nade(x, *w)),
        4.0,
    )
    yield compare(
        f"nade_sample, {of}",
        without_grad(lambda: sampling_loop(BATCH, *w)),
        without_grad(lambda: tilewright.nade_sample(BATCH, *w)),
        4.0,
    )


def masked_work(threads):
    """A layer of MADE: what the module costs beyond its formula."""
    layer = tilewright.MaskedLinear(torch.rand(HIDDEN, PIXELS) < 0.5)
    x = torch.rand(BATCH, PIXELS)
    mask = layer.mask[0].clone()

    def formula():
        return F.linear(x, layer.weight * mask, layer.bias)

    torch.testing.assert_close(layer(x), formula())
    title = f"MaskedLinear forward + backward, {PIXELS} to {HIDDEN}, batch {BATCH}, {threads}"
    parameters = list(layer.parameters())
    steps = training(formula, parameters), training(lambda: layer(x), parameters)
    yield compare(title, *steps, seconds=6.0, most=1000)


def made_work(threads):
    """Samples: the usual way runs the network for each pixel and reads one output."""
    model = tilewright.models.MADE(PIXELS, HIDDEN)
    layer, output, direct = (
        m.weight * m.mask[0] for m in (model.layers[0], model.output, model.direct)
    )

    def loop():
        x = torch.zeros(BATCH, PIXELS)
        for d in range(PIXELS):
            hidden = F.relu(F.linear(x, layer, model.layers[0].bias))
            logits = F.linear(hidden, output, model.output.bias) + F.linear(x, direct)
            x[:, d] = torch.bernoulli(torch.sigmoid(logits[:, d]))
        return x

    title = f"MADE.sample, {PIXELS} pixels, {HIDDEN} units, batch {BATCH}, {threads}"
    yield compare(title, without_grad(loop), without_grad(lambda: model.sample(BATCH)), 4.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    threads = f"{torch.get_num_threads()} threads"
    found = [*nade_work(threads), *masked_work(threads), *made_work(threads)]
    tables = {
        "machine": machine(),
        "columns": COLUMNS,
        "lines": [line for line, _ in found],
        "rows": [row for _, row in found],
    }
    (RESULTS / "density.json").write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
