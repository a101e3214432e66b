"""What a detector cannot work with is named: targets, images and options."""

import pytest
import torch
from detectors import both, images_and_targets

from tilewright.models import FasterRCNN, FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")

BAD_TARGETS = [
    (None, "targets must be given in training mode"),
    ([], "targets must have one entry for each of 2 images, got 0"),
    ([{}, {"labels": [1]}], "targets[1] must have boxes and labels"),
    ([{}, {"boxes": [[1, 2, 3]]}], "boxes[1] must have shape (G, 4), got (1, 3)"),
    ([{}, {"boxes": [1, 2, 3, 4]}], "boxes[1] must have shape (G, 4), got (4,)"),
    (
        [{}, {"boxes": [[1, 1, 5, 5], [4, 4, 4, 9]]}],
        "boxes[1] must hold finite boxes with x2 > x1 and y2 > y1, got box 1: (4, 4, 4, 9)",
    ),
    (
        [{"boxes": [[float("nan"), 1, 5, 5]]}, {}],
        "boxes[0] must hold finite boxes with x2 > x1 and y2 > y1, got box 0: (nan, 1, 5, 5)",
    ),
    ([{}, {"boxes": [[1, 1, 5, 5]], "labels": [4]}], "labels[1] must lie in [1, 4)"),
    ([{"boxes": [[1, 1, 5, 5]], "labels": [0]}, {}], "labels[0] must lie in [1, 4)"),
    ([{}, {"boxes": [[1, 1, 5, 5]], "labels": [1, 2]}], "labels[1] must have shape (G,)"),
    ([{}, {"boxes": [[1, 1, 5, 5]], "labels": [1.0]}], "labels[1] must be int64, got Float"),
]


def build_targets(description):
    """Missing parts are filled in with what fits, unless labels stand alone."""
    if description is None:
        return None
    targets = []
    for given in description:
        target = {}
        if "boxes" in given or not given:
            target["boxes"] = torch.tensor(given.get("boxes", [[1, 1, 9, 9]]), dtype=torch.float32)
        if "labels" in given:
            target["labels"] = torch.tensor(given["labels"])
        elif "boxes" in target:
            target["labels"] = torch.ones(len(target["boxes"]), dtype=torch.int64)
        targets.append(target)
    return targets


@pytest.mark.parametrize(("description", "message"), BAD_TARGETS)
def test_bad_targets_are_named(description, message):
    images, _ = images_and_targets("cpu")
    model, twin = both("cpu")
    for each in (model, twin, torch.jit.script(model)):
        with pytest.raises((RuntimeError, ValueError, torch.jit.Error)) as error:
            each.train()
            each(images, build_targets(description))
        assert message in str(error.value)
        assert "tilewright::" in str(error.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(20, 30), "images[1] must have shape (3, H, W) and not be empty, got (20, 30)"),
        (torch.rand(1, 20, 30), "images[1] must have shape (3, H, W)"),
        (torch.rand(3, 0, 30), "images[1] must have shape (3, H, W)"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), "images[1] must be float64, float32, float16"),
    ],
)
def test_bad_images_are_named(image, message):
    for model in both("cpu"):
        model.eval()
        with pytest.raises(RuntimeError) as error:
            model([torch.rand(3, 20, 30), image])
        assert message in str(error.value)
        with pytest.raises(RuntimeError, match="images must hold at least one image"):
            model([])


def test_bad_options_are_named():
    for face in (FasterRCNN, FasterRCNNCpp):
        with pytest.raises((ValueError, RuntimeError), match="must be at least 2, got 1"):
            face(1)
        with pytest.raises((ValueError, RuntimeError), match="one list for each of the 5 levels"):
            face(3, anchor_sizes=[[8], [16]])
        with pytest.raises((ValueError, RuntimeError), match="as many sizes at each level"):
            face(3, anchor_sizes=[[8], [16], [32], [64], [128, 256]])
        with pytest.raises((ValueError, RuntimeError), match="one list for each of the 1 levels"):
            face(3, feature_level=3)
        with pytest.raises((ValueError, RuntimeError), match=r"feature_level must be 0 .*, got 5"):
            face(3, feature_level=5)
        with pytest.raises((ValueError, RuntimeError), match="18, 34, 50 or 101, got 19"):
            face(3, resnet_depth=19)
        with pytest.raises((ValueError, RuntimeError), match=r"must lie in \[0, 5\], got 6"):
            face(3, trainable_backbone_layers=6)
        with pytest.raises(TypeError, match="bogus"):
            face(3, bogus=1)
    with pytest.raises(TypeError, match="min_size must be an integer"):
        FasterRCNNCpp(3, min_size="large")


def test_deviation_of_images_must_be_positive():
    image, mean = torch.rand(3, 40, 40), [0.5, 0.5, 0.5]
    with pytest.raises(RuntimeError, match="std must be positive, got 0"):
        torch.ops.tilewright.resize_images([image], mean, [0.2, 0.0, 0.2], 32, 64)
