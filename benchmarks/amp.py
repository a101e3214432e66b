"""Unscaling, with and without the norm, against torch's multi-tensor operators, on the same
gradients in turns; a training step with the loss scaler beside one without.

    python benchmarks/amp.py [--threads 2]

torch: `_amp_foreach_non_finite_check_and_unscale_`, and for the norm `_foreach_mul_` and
`_foreach_norm`. The plain multiplication is the bound: it reads and writes the same bytes.
"""

import argparse
import json
import statistics

import torch
from harness import RESULTS, machine, measure

from tilewright.amp import LossScaler, unscale_, unscale_and_norm_

FILE = RESULTS / "amp.json"
COLUMNS = ["work", "torch", "plain multiply", "tilewright", "faster than torch", "of the bandwidth"]
STEPS = ["training step", "whole", "optimizer", "by GradScaler", "by LossScaler", "added"]


def many(count, elements, dtype=torch.float32):
    return [torch.randn(elements // count).to(dtype) for _ in range(count)]


def torchs(grads, found, inv_scale):
    return lambda: torch._amp_foreach_non_finite_check_and_unscale_(grads, found, inv_scale)


def torchs_with_norm(grads, found, inv_scale):
    def run():
        torch._foreach_mul_(grads, inv_scale)
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))

    return run


def loop(grads, found, inv_scale):
    """What is written by hand."""

    def run():
        bad = False
        for grad in grads:
            grad.mul_(inv_scale)
            bad |= not torch.isfinite(grad).all().item()
        return bad

    return run


def unscaling(title, grads, theirs, ours):
    found = torch.zeros(1)
    # Their values stay what they are: a factor beside 1 that float32 keeps.
    inv_scale = torch.tensor(1.0 + 2.0**-23)
    whole = torch.cat([g.flatten() for g in grads])
    contenders = {
        "torch": theirs(grads, found, inv_scale),
        "multiply": lambda: whole.mul_(inv_scale),
        "ours": lambda: ours(grads, found, inv_scale),
    }
    ms = {name: statistics.median(t) for name, t in measure(contenders, most=40).items()}
    line = [
        title,
        f"{ms['torch']:.3g} ms",
        f"{ms['multiply']:.3g} ms",
        f"{ms['ours']:.3g} ms",
        f"{ms['torch'] / ms['ours']:.1f}x",
        f"{ms['multiply'] / ms['ours']:.2f}",
    ]
    print(*line, sep=" | ", flush=True)
    return line, {"work": title, "ms": ms}


def training(title, model, x, fused):
    """What a scaler adds to the optimizer's step, the steps in turns on the same gradients, as a
    share of the whole training step: a difference of whole steps would be lost in their noise."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6, fused=fused)

    def forward_backward():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).square().mean()
        loss.backward()

    def scaled(scaler):
        scaler.scale(torch.zeros(1))  # the scale lies somewhere from now on

        def run():
            scaler.step(optimizer)
            scaler.update()

        return run

    steps = {
        "without": optimizer.step,
        "GradScaler": scaled(torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=10**6)),
        "LossScaler": scaled(LossScaler(init_scale=1.0 + 2.0**-20, growth_interval=10**6)),
    }
    forward_backward()
    passes = statistics.median(measure({"passes": forward_backward}, 10.0)["passes"])
    ms = {name: statistics.median(t) for name, t in measure(steps, 10.0, most=60).items()}
    whole = passes + ms["without"]
    line = [
        title,
        f"{whole:.3g} ms",
        *(f"{ms[name]:.3g} ms" for name in steps),
        f"{100 * (ms['LossScaler'] - ms['without']) / whole:.2f} %",
    ]
    print(*line, sep=" | ", flush=True)
    return line, {"work": title, "ms": ms | {"step": whole}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    threads = f"{torch.get_num_threads()} threads"
    # The small ones first: what thousands of tensors cost is the memory that they lie in, and a
    # process that has held hundreds of megabytes scatters them.
    small = many(5000, 5000 * 200)
    found = [
        unscaling(f"5,000 tensors of 200, unscale_, {threads}", small, torchs, unscale_),
        unscaling(f"5,000 tensors of 200, against a loop, {threads}", small, loop, unscale_),
    ]
    big = many(200, 50_000_000)
    halves = many(200, 50_000_000, torch.bfloat16)
    found += [
        unscaling(f"200 tensors of 50M float32, unscale_, {threads}", big, torchs, unscale_),
        unscaling(
            f"200 tensors of 50M float32, with the norm, {threads}",
            big,
            torchs_with_norm,
            unscale_and_norm_,
        ),
        unscaling(f"200 tensors of 50M bfloat16, unscale_, {threads}", halves, torchs, unscale_),
    ]
    model = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, dropout=0.0), 4
    )
    x = torch.randn(8, 256, 512)
    steps = [
        training(f"TransformerEncoder, 4 layers of 512, {name}, {threads}", model, x, fused)
        for name, fused in (("AdamW", False), ("AdamW(fused=True)", True))
    ]
    tables = {
        "machine": machine(),
        "columns": COLUMNS,
        "lines": [line for line, _ in found],
        "rows": [row for _, row in [*found, *steps]],
    }
    FILE.write_text(json.dumps(tables, indent=1) + "\n")
    step_table = {"columns": STEPS, "lines": [line for line, _ in steps]}
    (RESULTS / "amp_steps.json").write_text(json.dumps(step_table, indent=1) + "\n")


if __name__ == "__main__":
    main()
