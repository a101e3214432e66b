"""The room's table: pooling, NMS, boxes and whole detectors against torchvision, same inputs,
same results, one process.

Both sides are checked to agree before they are timed. roi_pools.py, nms.py, boxes.py and
detector.py hold more rows of their own. python benchmarks/detection.py [--quick]
"""

import argparse

import detector
import nms
import roi_pools
import torch
import torchvision
from boxes import bench as bench_boxes
from harness import Table
from inputs import DEVICE, agree, agree_in_gradients, backward, boxes, rois_of

import tilewright


def bench_roi_align(table, threads):
    x = torch.randn(1, 256, 200, 304, device=DEVICE)
    last = x.contiguous(memory_format=torch.channels_last)
    rois = rois_of(512, 800, 1216)
    for title, bins, ratio in [("7x7", 7, 2), ("7x7, adaptive", 7, -1), ("14x14", 14, 2)]:

        def ours(x, bins=bins, ratio=ratio):
            return tilewright.roi_align(x, rois, bins, 0.25, ratio)

        def theirs(x, bins=bins, ratio=ratio):
            return torchvision.ops.roi_align(x, rois, bins, 0.25, ratio)

        agree(ours(x), theirs(x))
        agree(ours(last), theirs(last))
        grad = torch.randn(512, 256, bins, bins, device=DEVICE)
        agree_in_gradients(ours, theirs, x, grad)
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
    few = rois_of(10, 100, 100)
    small = torch.randn(1, 64, 25, 25, device=DEVICE)
    agree(
        tilewright.roi_align(small, few, 7, 0.25, 2),
        torchvision.ops.roi_align(small, few, 7, 0.25, 2),
    )
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

    def ours():
        return tilewright.multiscale_roi_align(
            list(maps.values()), [proposals], 7, [0.25, 0.125, 0.0625, 0.03125]
        )

    def peer():
        return theirs(maps, [proposals], [(800, 1216)])

    agree(ours(), peer())
    table.add(
        "multiscale_roi_align, 4 levels, forward", threads, {"peer": peer, "ours": ours}, DEVICE
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
        for name in roi_pools.OPS:
            roi_pools.bench(table, threads, name)
        nms.bench(table, threads, quick)
        bench_boxes(table, threads)
        if not quick and DEVICE == "cpu":
            detector.bench_inference(table, threads)
            detector.bench_training(table, threads)
    table.save()


if __name__ == "__main__":
    main()
