"""The kinds of NMS against torchvision.ops: same inputs, same results, one process.

Both sides are checked to agree before they are timed. python benchmarks/nms.py [--quick]
"""

import argparse

import torch
import torchvision
from harness import Table
from inputs import DEVICE, boxes

import tilewright

COUNTS = (10, 100, 1000, 10_000, 100_000)


def uniform(count):
    """Sides uniform up to half an image of 800 x 1216: most boxes overlap many others."""
    return boxes(count, 800, 1216)


def clusters(count):
    """As a region proposal network gives them: a hundred boxes around each object."""
    objects = uniform(max(count // 100, 1))
    heap = objects[torch.randint(len(objects), (count,), device=DEVICE)]
    side = (heap[:, 2:] - heap[:, :2]).repeat(1, 2)
    return heap + torch.randn(count, 4, device=DEVICE) * side / 8


def tiles(count):
    """Boxes that do not meet: all are kept."""
    place = torch.arange(count, device=DEVICE)
    corner = torch.stack([place % 316, place // 316], 1).float() * 8
    return torch.cat([corner, corner + 7], 1)


def pair(table, work, threads, ours, theirs):
    assert torch.equal(ours(), theirs())
    table.add(work, threads, {"peer": theirs, "ours": ours}, DEVICE)


def bench(table, threads, quick):
    vision = torchvision.ops
    for count in COUNTS[:-1] if quick else COUNTS:
        b, s = uniform(count), torch.randperm(count, device=DEVICE).float()
        c = torch.randint(0, 80, (count,), device=DEVICE)
        pair(
            table,
            f"nms, {count} boxes",
            threads,
            lambda b=b, s=s: tilewright.nms(b, s, 0.5),
            lambda b=b, s=s: vision.nms(b, s, 0.5),
        )
        pair(
            table,
            f"batched_nms, {count} boxes, 80 classes",
            threads,
            lambda b=b, s=s, c=c: tilewright.batched_nms(b, s, c, 0.5),
            lambda b=b, s=s, c=c: vision.batched_nms(b, s, c, 0.5),
        )
    for name, make in (("clusters", clusters), ("tiles", tiles)):
        count = 10_000
        b, s = make(count), torch.randperm(count, device=DEVICE).float()
        pair(
            table,
            f"nms, {count} boxes, {name}",
            threads,
            lambda b=b, s=s: tilewright.nms(b, s, 0.5),
            lambda b=b, s=s: vision.nms(b, s, 0.5),
        )
    b, s = uniform(10_000), torch.rand(10_000, device=DEVICE)
    for method in ("gaussian", "linear"):
        table.add(
            f"soft_nms, 10000 boxes, {method} (torchvision has none)",
            threads,
            {"ours": lambda m=method: tilewright.soft_nms(b, s, min_score=0.05, method=m)},
            DEVICE,
        )
    angle = torch.rand(10_000, 1, device=DEVICE) * 3
    rotated = torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2], angle], 1)
    table.add(
        "nms_rotated, 10000 boxes (torchvision has none)",
        threads,
        {"ours": lambda: tilewright.nms_rotated(rotated, s, 0.5)},
        DEVICE,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the longest rows")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    table = Table("nms", f"torchvision {torchvision.__version__.split('+')[0]}")
    for threads in (1, 2) if DEVICE == "cpu" else (1,):
        bench(table, threads, quick)
    table.save()


if __name__ == "__main__":
    main()
