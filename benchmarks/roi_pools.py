"""roi_pool, ps_roi_pool and ps_roi_align against torchvision.ops: same inputs, same results, one
process.

Both sides and their gradients are checked to agree before they are timed (but for ps_roi_pool's
gradient, which torchvision gives to a row and a column more than it pools): 512 boxes, 7 x 7
bins, sampling ratio 2, on maps of 200 x 304 with 256 channels (roi_pool) or 490 (the
position-sensitive ones: 10 outputs of 49 bins). python benchmarks/roi_pools.py
"""

import torch
import torchvision
from harness import Table
from inputs import DEVICE, agree, agree_in_gradients, backward, rois_of

import tilewright

OPS = {"roi_pool": (256, ()), "ps_roi_pool": (490, ()), "ps_roi_align": (490, (2,))}
SMALL = {"roi_pool": 64, "ps_roi_pool": 98, "ps_roi_align": 98}


def pools(name, rois, scale, extra):
    """(ours, theirs) as functions of the map."""

    def of(package):
        return lambda x: getattr(package, name)(x, rois, 7, scale, *extra)

    return of(tilewright), of(torchvision.ops)


def bench(table, threads, name):
    channels, extra = OPS[name]
    x = torch.randn(1, channels, 200, 304, device=DEVICE)
    last = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = pools(name, rois_of(512, 800, 1216), 0.25, extra)
    agree(ours(x), theirs(x))
    agree(ours(last), theirs(last))
    work = f"{name} 7x7"
    for layout, maps in (("", x), (", channels last", last)):
        table.add(
            f"{work} forward{layout}",
            threads,
            {"peer": lambda maps=maps: theirs(maps), "ours": lambda maps=maps: ours(maps)},
            DEVICE,
        )
        grad = torch.randn_like(ours(maps))
        if (
            name != "ps_roi_pool"
        ):  # torchvision's gradient reaches a row and a column it never pooled
            agree_in_gradients(ours, theirs, maps, grad)
        table.add(
            f"{work} forward + backward{layout}",
            threads,
            {"peer": backward(theirs, maps, grad), "ours": backward(ours, maps, grad)},
            DEVICE,
        )
    half = x.bfloat16()
    table.add(
        f"{work} forward, bf16 (torchvision has none)",
        threads,
        {"ours": lambda: ours(half)},
        DEVICE,
    )
    few, their_few = pools(name, rois_of(10, 100, 100), 0.25, extra)
    small = torch.randn(1, SMALL[name], 25, 25, device=DEVICE)
    agree(few(small), their_few(small))
    grad = torch.randn_like(few(small))
    for title, pair in (
        ("forward", (lambda: their_few(small), lambda: few(small))),
        ("forward + backward", (backward(their_few, small, grad), backward(few, small, grad))),
    ):
        table.add(
            f"{work} {title}, 10 boxes, {SMALL[name]}x25x25",
            threads,
            {"peer": pair[0], "ours": pair[1]},
            DEVICE,
            most=200,
        )


def main():
    torch.manual_seed(0)
    table = Table("roi_pools", f"torchvision {torchvision.__version__.split('+')[0]}")
    for threads in (1, 2) if DEVICE == "cpu" else (1,):
        for name in OPS:
            bench(table, threads, name)
    table.save()


if __name__ == "__main__":
    main()
