"""Whole models of torchvision and torch before accelerate() and while it stands: the same model and
inputs in one process, in turns. Beside the time of a call that of the operators which are replaced,
as torch's profiler has it. python benchmarks/dropin.py [--quick]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
import torchvision
from harness import RESULTS, machine, measure
from torch import nn
from torch.profiler import ProfilerActivity, profile

import tilewright

sys.path.append(str(Path(__file__).parent.parent / "tests" / "python"))
from detectors import randomise

COLUMNS = [
    "work",
    "as it is",
    "accelerated",
    "faster",
    "its replaced operators",
    "accelerated",
    "faster",
]
DETECTION = torchvision.models.detection
DETECTORS = {
    "Faster R-CNN R50-FPN": DETECTION.fasterrcnn_resnet50_fpn,
    "Mask R-CNN R50-FPN": DETECTION.maskrcnn_resnet50_fpn,
    "RetinaNet R50-FPN": DETECTION.retinanet_resnet50_fpn,
    "FCOS R50-FPN": DETECTION.fcos_resnet50_fpn,
    "SSD300 VGG16": DETECTION.ssd300_vgg16,
}
CLASS_FACTOR = 25  # of the class weights: ninety classes spread further than the tests' few


def detector(name):
    """Without trained weights; those of the detection head are spread, so that there are boxes."""
    torch.manual_seed(0)
    options = {} if "R-CNN" in name else {"score_thresh": 0.01}
    model = DETECTORS[name](weights=None, weights_backbone=None, **options)
    return randomise(model, CLASS_FACTOR)


def inference(name, size):
    model, images = detector(name).eval(), [torch.rand(3, *size)]

    def run():
        with torch.inference_mode():
            return model(images)

    return run


def training(name, size):
    model = detector(name).train()
    images, targets = [torch.rand(3, *size) for _ in range(2)], []
    for image in images:
        height, width = image.shape[1:]
        corner = torch.rand(10, 2) * torch.tensor([width, height]) * 0.6
        side = (0.1 + 0.3 * torch.rand(10, 2)) * torch.tensor([width, height])
        masks = torch.rand(10, height, width).gt(0.5).to(torch.uint8)
        labels = torch.randint(1, 91, (10,))
        boxes = torch.cat([corner, corner + side], 1)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    model.transform.min_size = (size[0],)

    def run():
        torch.manual_seed(0)  # the same anchors and boxes are sampled
        model.zero_grad()
        sum(model(images, targets).values()).backward()

    return run


def transformer(length, mask):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).train()
    x = torch.randn(4, length, 512)
    options = {}
    if mask:
        square = nn.Transformer.generate_square_subsequent_mask(length)
        options = {"mask": square, "is_causal": True}

    def run():
        model.zero_grad()
        model(x, **options).square().mean().backward()

    return run


def works(quick):
    if quick:
        yield "SSD300 VGG16, inference", lambda: inference("SSD300 VGG16", (300, 300))
        yield "TransformerEncoder, step", lambda: transformer(64, False)
        return
    for name in DETECTORS:
        size = (300, 300) if "SSD" in name else (800, 1066)
        title = f"{name}, inference, {size[0]}x{size[1]}"
        yield title, lambda name=name, size=size: inference(name, size)
    for name in ("Faster R-CNN R50-FPN", "Mask R-CNN R50-FPN"):
        yield f"{name}, training step, 2x480x640", lambda name=name: training(name, (480, 640))
    for length in (512, 1024):
        for mask in (False, True):
            title = f"TransformerEncoder, 4 layers of 512, 4x{length}{', causal' * mask}, step"
            yield title, lambda length=length, mask=mask: transformer(length, mask)


def accelerated(function):
    def run():
        with tilewright.accelerate():
            return function()

    return run


def operator_ms(function, names):
    """Milliseconds that the operators of these names take in a call, with all that they call."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        function()
    return sum(event.cpu_time_total for event in seen.key_averages() if event.key in names) / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small works, nothing saved")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="works whose title has this, anew"
    )
    given = parser.parse_args()
    with tilewright.accelerate() as active:
        names = {name.split(" on ")[0] for name in active.replaced}
    print(json.dumps(machine()))
    saved = RESULTS / "dropin.json"
    kept = json.loads(saved.read_text()) if given.only and saved.exists() else {}
    lines, rows = kept.get("lines", []), kept.get("rows", [])
    for title, make in works(given.quick):
        if given.only not in title:
            continue
        function = make()
        contenders = {"plain": function, "ours": accelerated(function)}
        times = measure(contenders, seconds=40, most=25, least=9)
        ms = {name: statistics.median(taken) for name, taken in times.items()}
        parts = {
            name: statistics.median(operator_ms(f, names) for _ in range(3))
            for name, f in contenders.items()
        }
        title += f", {torch.get_num_threads()} threads"
        row = {"work": title, "ms": ms, "operators_ms": parts}
        cells = []
        for taken in (ms, parts):
            cells += [f"{taken['plain']:.3g} ms", f"{taken['ours']:.3g} ms"]
            cells.append(f"{taken['plain'] / taken['ours']:.2f}x" if taken["ours"] else "")
        print(title, *cells, sep=" | ", flush=True)
        place = next((i for i, old in enumerate(rows) if old["work"] == title), len(rows))
        rows[place : place + 1], lines[place : place + 1] = [row], [[title, *cells]]
    if not given.quick:
        data = {"machine": machine(), "columns": COLUMNS, "lines": lines, "rows": rows}
        saved.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
