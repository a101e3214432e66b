"""The detector against torchvision's: names, options, initialisation, and the same numbers."""

import inspect

import pytest
import torch
from detectors import (
    SMALL,
    assert_equal_outputs,
    cpp_model,
    images_and_targets,
    python_model,
    randomise,
    run,
)
from torch.testing import assert_close
from torchvision_detectors import even_out_classes, torchvision_model

from tilewright.models import FasterRCNN, FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")


def test_options_are_torchvisions():
    detection = pytest.importorskip("torchvision.models.detection")
    theirs = inspect.signature(detection.FasterRCNN).parameters
    options = FasterRCNNCpp(7).options
    for name in options:
        if name in theirs and theirs[name].default is not None:
            assert options[name] == theirs[name].default, name


def names_and_shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}


ONE_MAP = {"feature_level": 3, "anchor_sizes": ((32, 64, 128, 256, 512),)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resnet_depth": 34, "frozen_batch_norm": True},
        {"resnet_depth": 50},
        {"resnet_depth": 101, **ONE_MAP},
        {"resnet_depth": 18, "feature_level": 2, "anchor_sizes": ((32, 64),)},
    ],
)
def test_parameters_have_torchvisions_names_and_shapes(options):
    theirs = names_and_shapes(torchvision_model("cpu", **options))
    assert names_and_shapes(FasterRCNN(4, **options)) == theirs
    twin = FasterRCNNCpp(4, **options)
    assert names_and_shapes(twin) == theirs
    assert list(twin.state_dict()) == list(theirs)


@pytest.mark.parametrize("layers", range(6))
def test_the_same_layers_learn(layers):
    options = {**SMALL, "trainable_backbone_layers": layers}
    theirs = torchvision_model("cpu", **options).named_parameters()
    expected = {name: value.requires_grad for name, value in theirs}
    for model in (FasterRCNN(4, **options), FasterRCNNCpp(4, **options)):
        parameters = dict(model.named_parameters())
        assert {name: p.requires_grad for name, p in parameters.items()} == expected


@pytest.mark.kernels
def test_same_numbers_as_torchvision(device, monkeypatch):
    boxes = pytest.importorskip("torchvision.ops.boxes")
    # Its way of shifting classes apart rounds the boxes, which now and then flips a suppression.
    monkeypatch.setattr(boxes, "_batched_nms_coordinate_trick", boxes._batched_nms_vanilla)
    theirs = torchvision_model(device, **SMALL)
    model = python_model(device)
    theirs.load_state_dict(model.state_dict())
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    expected = run(theirs, False, images, targets)
    for each in (model, twin):
        assert_equal_outputs(run(each, False, images, targets), ({}, expected), exact=False)
    expected = run(theirs, True, images, targets)
    for each in (model, twin):
        assert_equal_outputs(run(each, True, images, targets), (expected, []), exact=False)


def test_initialisation(device):
    """Both twins start from the distributions that torchvision starts from."""
    theirs = torchvision_model(device).state_dict()
    for model in (FasterRCNN(4), FasterRCNNCpp(4)):
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.numel() > 1000:
                ratio = value.std() / theirs[name].std()
                assert 0.9 < ratio < 1.1, name
            elif value.is_floating_point() and not name.startswith("roi_heads"):
                assert torch.equal(value, theirs[name].cpu()) or "cls_logits" in name, name


def assert_same_detections(got, expected):
    for ours, theirs in zip(got, expected, strict=True):
        assert len(theirs["boxes"]) >= 50
        assert len(theirs["labels"].unique()) > 10
        assert torch.equal(ours["labels"], theirs["labels"])
        assert_close(ours["boxes"], theirs["boxes"], rtol=0, atol=1e-2)
        assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-4)


SETTINGS = {
    "fasterrcnn_resnet50_fpn": {"resnet_depth": 50},
    "frozen": {"resnet_depth": 50, "frozen_batch_norm": True, "batch_norm_eps": 0.0},
    "one_map": {"resnet_depth": 18, **ONE_MAP},
}


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "setting",
    [pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.kernels), "frozen", "one_map"],
)
def test_detects_what_torchvision_detects(device, setting, tmp_path):
    """With torchvision's weights from a file, for images of two sizes in a batch."""
    torch.manual_seed(3)
    options = SETTINGS[setting]
    small = {"min_size": 256, "max_size": 320, "box_score_thresh": 0.0}
    small["rpn_post_nms_top_n_test"] = 300
    if setting == "fasterrcnn_resnet50_fpn":
        detection = pytest.importorskip("torchvision.models.detection")
        theirs = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **small)
    else:
        theirs = torchvision_model(device, 91, **options, **small)
    images = [torch.rand(3, 150, 200), torch.rand(3, 260, 180)]
    images = [image.to(device) for image in images]
    theirs = even_out_classes(randomise(theirs).to(device), images)
    torch.save(theirs.state_dict(), tmp_path / "torchvision.pth")
    with torch.inference_mode():
        expected = theirs(images)
        for kind in (FasterRCNN, FasterRCNNCpp):
            model = kind(91, **options, **small).to(device).eval()
            model.load(tmp_path / "torchvision.pth")
            assert_same_detections(model(images)[1], expected)
            model.fold_batch_norm()
            assert_same_detections(model(images)[1], expected)


@pytest.mark.kernels
def test_frozen_batch_norm_trains_as_torchvisions(device):
    """Losses and gradients; the batch norm goes through the weights here, over the maps there. In
    float64: in float32 a rounding may move the kink of a ReLU across a value."""
    options = {**SMALL, "frozen_batch_norm": True, "trainable_backbone_layers": 3}
    theirs = randomise(torchvision_model(device, **options)).to(torch.float64)
    model = FasterRCNN(4, **options).to(device, torch.float64)
    model.load_state_dict(theirs.state_dict())
    twin = cpp_model(model, device, torch.float64, **options)
    images, targets = images_and_targets(device, torch.float64)
    expected = run(theirs, True, images, targets)
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for each in (model, twin):
        losses, _ = run(each, True, images, targets)
        for name, loss in expected.items():  # its loss_objectness is in float32 always
            assert_close(losses[name], loss.double(), rtol=1e-6, atol=1e-6)
        sum(losses.values()).backward()
        for name, parameter in dict(each.named_parameters()).items():
            if gradients[name] is None:
                assert parameter.grad is None, name
            else:
                scale = gradients[name].abs().max().item()
                assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-5 * scale + 1e-9)
