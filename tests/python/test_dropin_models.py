"""accelerate() under torchvision's own detectors and torch's transformer: the same results."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import detection

import tilewright

NONE = {"weights": None, "weights_backbone": None, "num_classes": 4}
SMALL = {"min_size": 96, "max_size": 128}
DETECTORS = {
    "faster_rcnn": lambda: detection.fasterrcnn_resnet50_fpn(**NONE, **SMALL),
    "mask_rcnn": lambda: detection.maskrcnn_resnet50_fpn(**NONE, **SMALL),
    "retinanet": lambda: detection.retinanet_resnet50_fpn(**NONE, **SMALL, score_thresh=0.01),
    "fcos": lambda: detection.fcos_resnet50_fpn(**NONE, **SMALL, score_thresh=0.01),
    "ssd": lambda: detection.ssd300_vgg16(**NONE),
}
POOLS = ("faster_rcnn", "mask_rcnn")


def scenes():
    images = [torch.rand(3, 96, 128), torch.rand(3, 110, 96)]
    masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
    masks[0, 10:50, 10:60] = masks[1, 20:90, 40:100] = 1
    targets = []
    for image in images:
        boxes = torch.tensor([[10.0, 10, 60, 50], [40, 20, 95, 90]])
        crop = masks[:, : image.shape[1], : image.shape[2]]
        crop = nn.functional.pad(
            crop, (0, image.shape[2] - crop.shape[2], 0, image.shape[1] - crop.shape[1])
        )
        targets.append({"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": crop})
    return images, targets


def trained_step(model, images, targets):
    """Losses and gradients of a step whose draws are seeded."""
    torch.manual_seed(5)
    model.train().zero_grad()
    losses = model(images, copy.deepcopy(targets))
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name):
    model = DETECTORS[name]()
    if name in POOLS:
        with torch.no_grad():  # untrained scores are all alike, and order them rounding
            model.roi_heads.box_predictor.cls_score.weight.mul_(30)
    images, targets = scenes()
    before_step = trained_step(model, images, targets)
    with torch.no_grad():
        before = model.eval()(images)
        assert any(len(found["boxes"]) > 0 for found in before)
        with tilewright.accelerate():
            during = model(images)
    for ours, theirs in zip(during, before, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-3)
    with tilewright.accelerate():
        losses, grads = trained_step(model, images, targets)
    torch.testing.assert_close(losses, before_step[0], rtol=1e-4, atol=1e-5)
    assert grads.keys() == before_step[1].keys()
    for key, grad in grads.items():
        limit = 1e-3 * before_step[1][key].abs().max().item() + 1e-6
        torch.testing.assert_close(grad, before_step[1][key], rtol=1e-3, atol=limit)


@pytest.mark.parametrize("mask", [None, "causal", "padding"])
def test_transformer_encoder(mask):
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(3, 10, 32, requires_grad=True)
    options = {}
    if mask == "causal":
        options = {"mask": nn.Transformer.generate_square_subsequent_mask(10), "is_causal": True}
    elif mask == "padding":
        options = {"src_key_padding_mask": torch.arange(10) >= torch.tensor([[10], [7], [4]])}

    def run():
        out = model(x, **options)
        out.sin().sum().backward()
        return out.detach(), x.grad.clone(), [p.grad.clone() for p in model.parameters()]

    before = run()
    model.zero_grad()
    x.grad = None
    with tilewright.accelerate():
        torch.testing.assert_close(run(), before, rtol=1e-4, atol=1e-5)
    model.eval()
    with torch.no_grad():  # torch's fused layer, which calls no attention operator
        alone = model(x, **options)
        with tilewright.accelerate():
            torch.testing.assert_close(model(x, **options), alone)
