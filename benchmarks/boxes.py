"""Overlaps of all pairs of boxes against torchvision.ops, where it has them, and the patches of the
proposal losses: same inputs, same results, one process.

Both sides and their gradients are checked to agree before they are timed.
python benchmarks/boxes.py
"""

import torch
import torchvision
from harness import Table
from inputs import DEVICE, agree, agree_in_gradients, backward, boxes

import tilewright

COUNT = 2000
TURNED = 500  # box_iou_rotated holds some hundred matrices of pairs for its gradient
CELLS = 512  # as many as the proposal losses sample in two images
LEVELS = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]


def rotated(count):
    b = boxes(count, 800, 1216)
    angle = torch.rand(count, 1, device=DEVICE) * 3
    return torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2], angle], 1)


def bench_overlaps(table, threads, name):
    """The pairs of two sets of boxes, with the gradient of the first."""
    first, second = boxes(COUNT, 800, 1216), boxes(COUNT, 800, 1216)
    grad = torch.randn(COUNT, COUNT, device=DEVICE)

    def of(package):
        return lambda x: getattr(package, name)(x, second)

    ours, theirs = of(tilewright), of(torchvision.ops)
    agree(ours(first), theirs(first))
    agree_in_gradients(ours, theirs, first, grad)
    work = f"{name} {COUNT}x{COUNT}"
    both = {"peer": lambda: theirs(first), "ours": lambda: ours(first)}
    table.add(f"{work} forward", threads, both, DEVICE)
    both = {"peer": backward(theirs, first, grad), "ours": backward(ours, first, grad)}
    table.add(f"{work} forward + backward", threads, both, DEVICE)


def bench_rotated(table, threads):
    first, second = rotated(TURNED), rotated(TURNED)
    grad = torch.randn(TURNED, TURNED, device=DEVICE)

    def ours(x):
        return tilewright.box_iou_rotated(x, second)

    work = f"box_iou_rotated {TURNED}x{TURNED}"
    only = {"ours": lambda: ours(first)}
    table.add(f"{work} forward (torchvision has none)", threads, only, DEVICE)
    only = {"ours": backward(ours, first, grad)}
    table.add(f"{work} forward + backward", threads, only, DEVICE)


def bench_patches(table, threads):
    """Of two images, 256 channels on the levels of a pyramid; torchvision has nothing like it."""
    count = sum(2 * height * width for height, width in LEVELS)
    cells = torch.randint(count, (CELLS,), device=DEVICE)
    grad = torch.randn(CELLS, 9 * 256, device=DEVICE)
    layouts = {"": torch.contiguous_format, ", channels last": torch.channels_last}
    for layout, form in layouts.items():
        maps = [
            torch.randn(2, 256, *size, device=DEVICE).to(memory_format=form).requires_grad_()
            for size in LEVELS
        ]

        def ours(maps=maps):
            return torch.ops.tilewright.gather_patches(maps, cells)

        def learn(maps=maps, ours=ours):
            return torch.autograd.grad(ours(), maps, grad)

        work = f"gather_patches, {CELLS} cells"
        table.add(f"{work}, forward{layout}", threads, {"ours": ours}, DEVICE)
        table.add(f"{work}, forward + backward{layout}", threads, {"ours": learn}, DEVICE)


def bench(table, threads):
    for name in ("box_iou", "generalized_box_iou"):
        bench_overlaps(table, threads, name)
    bench_rotated(table, threads)
    bench_patches(table, threads)


def main():
    torch.manual_seed(0)
    table = Table("boxes", f"torchvision {torchvision.__version__.split('+')[0]}")
    for threads in (1, 2) if DEVICE == "cpu" else (1,):
        bench(table, threads)
    table.save()


if __name__ == "__main__":
    main()
