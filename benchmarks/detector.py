"""Faster R-CNN with a ResNet-50 and a feature pyramid against torchvision's: one process, the same
weights, images and thresholds, each called as its documentation has it.

Detections are checked to agree before they are timed. Training steps draw their anchors and boxes
at random, so that single losses differ; that losses and gradients agree under equal choices is a
test (tests/python/test_torchvision_parity.py). python benchmarks/detector.py
"""

import sys
from pathlib import Path

import torch
import torchvision
from harness import Table

from tilewright.models import FasterRCNN, FasterRCNNCpp

sys.path.append(str(Path(__file__).parent.parent / "tests" / "python"))
from detectors import randomise

DETECTION = torchvision.models.detection
CLASSES = 91
CLASS_FACTOR = 25  # of the class weights: ninety classes spread further than the tests' few


def torchvision_model(frozen):
    """As fasterrcnn_resnet50_fpn() without weights; frozen: as it is with weights, to fine-tune."""
    torch.manual_seed(0)
    if not frozen:
        return DETECTION.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    backbone = DETECTION.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, trainable_layers=3
    )
    return DETECTION.FasterRCNN(backbone, num_classes=CLASSES)


def pair(frozen, kind=FasterRCNN, channels_last=True):
    """torchvision's model and ours with the same weights, as users would set them up on a CPU."""
    theirs = randomise(torchvision_model(frozen), CLASS_FACTOR)
    ours = kind(
        CLASSES,
        resnet_depth=50,
        frozen_batch_norm=frozen,
        trainable_backbone_layers=3 if frozen else 5,
    )
    ours.load_state_dict(theirs.state_dict())
    if channels_last:
        ours.to(memory_format=torch.channels_last)
    return theirs, ours


def agree(detections, expected, tolerance):
    """At least nine in ten of torchvision's detections are among ours."""
    for ours, theirs in zip(detections, expected, strict=True):
        assert len(theirs["boxes"]) >= 50
        near = torch.cdist(theirs["boxes"], ours["boxes"], p=float("inf")) < tolerance
        same = near & (theirs["labels"][:, None] == ours["labels"])
        assert same.any(1).float().mean() > 0.9


def bench_inference(table, threads, frozen=False):
    images = [torch.rand(3, 800, 1066)]
    name = "R50-FPN inference 800x1066" + (", frozen batch norm" if frozen else "")
    for kind in (FasterRCNN, FasterRCNNCpp):
        theirs, ours = pair(frozen, kind)
        theirs.eval()
        ours.eval()
        ours.fold_batch_norm()
        with torch.inference_mode():
            agree(ours(images)[1], theirs(images), 0.1)
            table.add(
                name + (", C++" if kind is FasterRCNNCpp else ""),
                threads,
                {"peer": lambda m=theirs: m(images), "ours": lambda m=ours: m(images)},
                seconds=20,
            )
            if kind is FasterRCNNCpp or frozen:
                continue
            both = {"peer": lambda m=theirs: m(images), "ours": lambda m=ours: m(images)}
            theirs.to(memory_format=torch.channels_last)
            agree(ours(images)[1], theirs(images), 0.1)
            table.add(name + ", both channels last", threads, both, seconds=20)
            with torch.autocast("cpu", torch.bfloat16):
                table.add(name + ", both channels last, bf16 autocast", threads, both, seconds=10)


def targets_of(images):
    """Ten boxes per image, of random classes."""
    targets = []
    for image in images:
        height, width = image.shape[-2:]
        corner = torch.rand(10, 2) * torch.tensor([width, height]) * 0.6
        side = (0.1 + 0.3 * torch.rand(10, 2)) * torch.tensor([width, height])
        labels = torch.randint(1, CLASSES, (10,))
        targets.append({"boxes": torch.cat([corner, corner + side], 1), "labels": labels})
    return targets


def step(model, images, targets):
    """A training step: losses, gradients, SGD."""
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-6, momentum=0.9)

    def run():
        optimizer.zero_grad()
        losses = model(images, targets)
        sum((losses[0] if isinstance(losses, tuple) else losses).values()).backward()
        optimizer.step()

    return run


def bench_training(table, threads, frozen=False):
    """min_size=480 keeps the images at 480x640; as many anchors and boxes are sampled by both."""
    images = [torch.rand(3, 480, 640) for _ in range(2)]
    targets = targets_of(images)
    name = "R50-FPN training step 2x480x640"
    if frozen:
        name += ", frozen batch norm, 3 layers learn"
    for kind in (FasterRCNN, FasterRCNNCpp):
        torch.manual_seed(0)
        theirs = randomise(torchvision_model(frozen), CLASS_FACTOR)
        theirs.transform.min_size = (480,)
        ours = kind(
            CLASSES,
            min_size=480,
            resnet_depth=50,
            frozen_batch_norm=frozen,
            trainable_backbone_layers=3 if frozen else 5,
        )
        ours.load_state_dict(theirs.state_dict())
        ours.to(memory_format=torch.channels_last)
        table.add(
            name + (", C++" if kind is FasterRCNNCpp else ""),
            threads,
            {"peer": step(theirs, images, targets), "ours": step(ours, images, targets)},
            seconds=30,
        )


def bench_models(table, threads):
    for frozen in (False, True):
        bench_inference(table, threads, frozen)
        bench_training(table, threads, frozen)


def main():
    torch.manual_seed(0)
    table = Table("detector", f"torchvision {torchvision.__version__.split('+')[0]}")
    for threads in (1, 2):
        bench_models(table, threads)
    table.save()


if __name__ == "__main__":
    main()
