"""Deformable convolution against torchvision's, and beside the plain convolution of the same size,
which bounds it: same data, in turns in one process, 3 x 3, padding 1, with masks. bfloat16, which
torchvision's CPU kernels do not have, beside float32. Then deform_aggregate against the composition
around grid_sample, all that there is for the CPU. python benchmarks/deform.py [--quick]
"""

import argparse
import json
import statistics
import sys

import torch
import torchvision
from harness import RESULTS, ROOT, machine, measure

import tilewright

sys.path.insert(0, str(ROOT / "tests" / "python"))
from reference_aggregate import composed

COLUMNS = ["work", "torchvision", "conv2d", "tilewright", "faster", "of conv2d's time", "bfloat16"]
# batch, channels (in and out), side, groups
CASES = {
    "2x256x50x50": (2, 256, 50, 1),
    "16x64x56x56": (16, 64, 56, 1),
    "2x256x50x50, 32 groups": (2, 256, 50, 32),
}
AGGREGATE_COLUMNS = ["work", "grid_sample", "tilewright", "faster", "bfloat16"]
# batch, side, channels, groups: InternImage-T's stages 1 and 3; a detector's map with wide groups
AGGREGATE_CASES = {
    "8x56x56x64, 4 groups": (8, 56, 64, 4),
    "8x14x14x256, 16 groups": (8, 14, 256, 16),
    "2x100x100x256, 4 groups": (2, 100, 256, 4),
}


class Case:
    """Tensors of one size; `dtype` of all but offsets and masks."""

    def __init__(self, batch, channels, side, groups, dtype=torch.float32):
        g = torch.Generator().manual_seed(0)

        def random(*sizes):
            return torch.randn(*sizes, generator=g)

        self.groups = groups
        self.x = random(batch, channels, side, side).to(dtype).requires_grad_()
        weight = random(channels, channels // groups, 3, 3) / (9 * channels / groups) ** 0.5
        self.weight = weight.to(dtype).requires_grad_()
        self.bias = random(channels).to(dtype).requires_grad_()
        self.offset = random(batch, 18, side, side).requires_grad_()
        self.mask = random(batch, 9, side, side).sigmoid().requires_grad_()
        self.grad = random(batch, channels, side, side).to(dtype)
        self.given = [self.x, self.offset, self.weight, self.bias, self.mask]

    def torchvision(self):
        return torchvision.ops.deform_conv2d(
            self.x, self.offset, self.weight, self.bias, padding=1, mask=self.mask
        )

    def tilewright(self):
        return tilewright.deform_conv2d(
            self.x, self.offset, self.weight, self.bias, padding=1, mask=self.mask
        )

    def conv2d(self):
        return torch.nn.functional.conv2d(
            self.x, self.weight, self.bias, padding=1, groups=self.groups
        )

    def forward(self, name):
        def run():
            with torch.no_grad():
                getattr(self, name)()

        return run

    def both(self, name):
        def run():
            for tensor in self.given:
                tensor.grad = None
            getattr(self, name)().backward(self.grad)

        return run


PASSES = (("forward", Case.forward), ("forward + backward", Case.both))


class AggregateCase(Case):
    """Tensors of deform_aggregate; `dtype` of the features."""

    def __init__(self, batch, side, channels, groups, dtype=torch.float32):
        g = torch.Generator().manual_seed(0)

        def random(last):
            return torch.randn(batch, side, side, last, generator=g)

        self.groups = groups
        self.x = random(channels).to(dtype).requires_grad_()
        self.offset = random(groups * 18).requires_grad_()
        shares = random(groups * 9).reshape(batch, side, side, groups, 9).softmax(-1)
        self.mask = shares.flatten(3).requires_grad_()
        self.grad = random(channels).to(dtype)
        self.given = [self.x, self.offset, self.mask]

    def grid_sample(self):
        one, three = (1, 1), (3, 3)
        return composed(self.x, self.offset, self.mask, three, one, one, one, self.groups)

    def tilewright(self):
        return tilewright.deform_aggregate(*self.given, 3, padding=1, groups=self.groups)


def measured(case, half, names, what):
    """Medians in milliseconds, of `half`'s tensors under "bfloat16"; `what`: a method of Case."""
    contenders = {name: what(case, name) for name in names}
    contenders["bfloat16"] = what(half, "tilewright")
    return {name: statistics.median(t) for name, t in measure(contenders).items()}


def aggregate_rows(cases):
    """(lines of a table, rows)."""
    lines, rows = [], []
    for title, size in cases.items():
        full, half = AggregateCase(*size), AggregateCase(*size, dtype=torch.bfloat16)
        torch.testing.assert_close(full.tilewright(), full.grid_sample(), rtol=1e-3, atol=1e-3)
        for what, kind in PASSES:
            ms = measured(full, half, ("grid_sample", "tilewright"), kind)
            ours, peer = ms["tilewright"], ms["grid_sample"]
            work = f"{title}, {what}, {torch.get_num_threads()} threads"
            rows.append({"work": work, "ms": ms, "ratio": peer / ours})
            half_time = f"{ms['bfloat16']:.3g} ms, {ours / ms['bfloat16']:.1f}x"
            lines.append(
                [work, f"{peer:.3g} ms", f"{ours:.3g} ms", f"{peer / ours:.1f}x", half_time]
            )
            print(*lines[-1], sep=" | ", flush=True)
    return lines, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small size, nothing saved")
    quick = parser.parse_args().quick
    print(json.dumps(machine()))
    lines, rows = [], []
    for title, size in {"1x32x20x20": (1, 32, 20, 1)}.items() if quick else CASES.items():
        full, half = Case(*size), Case(*size, dtype=torch.bfloat16)
        torch.testing.assert_close(full.tilewright(), full.torchvision(), rtol=1e-3, atol=1e-3)
        names = ("torchvision", "conv2d", "tilewright")
        for what, kind in PASSES:
            ms = measured(full, half, names, kind)
            ours = ms["tilewright"]
            work = f"{title}, {what}, {torch.get_num_threads()} threads"
            rows.append({"work": work, "ms": ms, "ratio": ms["torchvision"] / ours})
            times = [f"{ms[name]:.3g} ms" for name in names]
            half_time = f"{ms['bfloat16']:.3g} ms, {ours / ms['bfloat16']:.1f}x"
            ratios = [f"{ms['torchvision'] / ours:.1f}x", f"{ours / ms['conv2d']:.1f}x"]
            lines.append([work, *times, *ratios, half_time])
            print(*lines[-1], sep=" | ", flush=True)
    found = {"deform": (COLUMNS, lines, rows)}
    small = {"1x12x12x32, 2 groups": (1, 12, 32, 2)}
    found["aggregate"] = (AGGREGATE_COLUMNS, *aggregate_rows(small if quick else AGGREGATE_CASES))
    for name, (columns, lines, rows) in {} if quick else found.items():
        data = {"machine": machine(), "columns": columns, "lines": lines, "rows": rows}
        (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
