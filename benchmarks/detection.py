"""The pooling ops and NMS against torchvision.ops: same inputs, same results, one process.

Both sides are checked to agree before they are timed. python benchmarks/detection.py [--quick]
"""

import argparse
import os

import torch
import torchvision
from harness import Table

import tilewright

DEVICE = "cuda" if os.environ.get("TILEWRIGHT_DEVICE") == "cuda" else "cpu"


def boxes(count, height, width):
    """Boxes in image coordinates whose sides are uniform up to half the image."""
    centre = torch.rand(count, 2) * torch.tensor([width, height])
    side = torch.rand(count, 2) * torch.tensor([width, height]) / 2
    return torch.cat([centre - side / 2, centre + side / 2], 1).to(DEVICE)


def backward(function, x, grad):
    """The function with its gradient."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def run():
        leaf.grad = None
        function(leaf).backward(grad)

    return run


def agree(ours, theirs, tolerance=2e-4):
    torch.testing.assert_close(ours.contiguous(), theirs.contiguous(), rtol=0, atol=tolerance)


def bench_roi_align(table, threads):
    x = torch.randn(1, 256, 200, 304, device=DEVICE)
    last = x.contiguous(memory_format=torch.channels_last)
    rois = torch.cat([torch.zeros(512, 1, device=DEVICE), boxes(512, 800, 1216)], 1)
    for title, bins, ratio in [("7x7", 7, 2), ("7x7, adaptive", 7, -1), ("14x14", 14, 2)]:

        def ours(x, bins=bins, ratio=ratio):
            return tilewright.roi_align(x, rois, bins, 0.25, ratio)

        def theirs(x, bins=bins, ratio=ratio):
            return torchvision.ops.roi_align(x, rois, bins, 0.25, ratio)

        agree(ours(x), theirs(x))
        agree(ours(last), theirs(last))
        name = f"roi_align {title}"
        table.add(
            f"{name} forward", threads, {"peer": lambda: theirs(x), "ours": lambda: ours(x)}, DEVICE
        )
        table.add(
            f"{name} forward, channels last",
            threads,
            {"peer": lambda: theirs(last), "ours": lambda: ours(last)},
            DEVICE,
        )
        grad = torch.randn(512, 256, bins, bins, device=DEVICE)
        table.add(
            f"{name} forward + backward",
            threads,
            {"peer": backward(theirs, x, grad), "ours": backward(ours, x, grad)},
            DEVICE,
        )
    half = x.bfloat16()
    table.add(
        "roi_align 7x7 forward, bf16 (torchvision has none)",
        threads,
        {"ours": lambda: tilewright.roi_align(half, rois, 7, 0.25, 2)},
        DEVICE,
    )
    few = torch.cat([torch.zeros(10, 1, device=DEVICE), boxes(10, 100, 100)], 1)
    small = torch.randn(1, 64, 25, 25, device=DEVICE)
    table.add(
        "roi_align 7x7 forward, 10 boxes, 64x25x25",
        threads,
        {
            "peer": lambda: torchvision.ops.roi_align(small, few, 7, 0.25, 2),
            "ours": lambda: tilewright.roi_align(small, few, 7, 0.25, 2),
        },
        DEVICE,
    )


def bench_multiscale(table, threads):
    names = ["0", "1", "2", "3"]
    maps = {n: torch.randn(1, 256, 200 >> i, 304 >> i, device=DEVICE) for i, n in enumerate(names)}
    proposals = boxes(512, 800, 1216)
    theirs = torchvision.ops.MultiScaleRoIAlign(names, 7, 2)
    rois = torch.cat([torch.zeros(512, 1, device=DEVICE), proposals], 1)

    def ours():
        return tilewright.multiscale_roi_align(
            list(maps.values()), rois, 7, [0.25, 0.125, 0.0625, 0.03125]
        )

    def peer():
        return theirs(maps, [proposals], [(800, 1216)])

    agree(ours(), peer())
    table.add(
        "multiscale_roi_align, 4 levels, forward", threads, {"peer": peer, "ours": ours}, DEVICE
    )


def bench_nms(table, threads, quick):
    for count in (1000, 10_000) if quick else (1000, 10_000, 100_000):
        b, s = boxes(count, 800, 1216), torch.randperm(count, device=DEVICE).float()
        c = torch.randint(0, 80, (count,), device=DEVICE)
        ours, theirs = tilewright.nms(b, s, 0.5), torchvision.ops.nms(b, s, 0.5)
        assert torch.equal(ours, theirs)
        table.add(
            f"nms, {count} boxes",
            threads,
            {
                "peer": lambda b=b, s=s: torchvision.ops.nms(b, s, 0.5),
                "ours": lambda b=b, s=s: tilewright.nms(b, s, 0.5),
            },
            DEVICE,
        )
        table.add(
            f"batched_nms, {count} boxes, 80 classes",
            threads,
            {
                "peer": lambda b=b, s=s, c=c: torchvision.ops.batched_nms(b, s, c, 0.5),
                "ours": lambda b=b, s=s, c=c: tilewright.batched_nms(b, s, c, 0.5),
            },
            DEVICE,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the longest rows")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    table = Table("detection", f"torchvision {torchvision.__version__.split('+')[0]}")
    for threads in (1, 2) if DEVICE == "cpu" else (1,):
        bench_roi_align(table, threads)
        bench_multiscale(table, threads)
        bench_nms(table, threads, quick)
    table.save()


if __name__ == "__main__":
    main()
