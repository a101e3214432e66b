"""Faster R-CNN: the C++ module and its scriptable twin agree, train and meet odd images."""

import inspect

import pytest
import torch
from detectors import (
    SMALL,
    assert_equal_gradients,
    assert_equal_outputs,
    assert_same_everywhere,
    both,
    cpp_model,
    images_and_targets,
    loss_history,
    python_model,
    run,
)

from tilewright.models import FasterRCNN, FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.smoke
@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twins_agree(device, dtype, tmp_path):
    model = python_model(device).to(dtype)
    twin = cpp_model(model, device, dtype)
    for name, value in twin.state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype, name
    given = images_and_targets(device, dtype)
    assert_same_everywhere(model, twin, *given, tmp_path / "model.pt")


@pytest.mark.smoke
@pytest.mark.kernels
def test_gradients_of_the_twins_agree(device):
    model = python_model(device)
    twin = cpp_model(model, device)
    assert_equal_gradients(model, twin, *images_and_targets(device))


@pytest.mark.smoke
def test_export(device):
    """The number of proposals and detections depends on data; the sizes of images are fixed."""
    model = python_model(device).eval()
    images, _ = images_and_targets(device)
    program = torch.export.export(model, (images,)).module()
    for given in (images, [1 - image for image in images]):
        assert_equal_outputs(program(given), run(model, False, given, None))


def test_options_are_the_same():
    parameters = inspect.signature(FasterRCNN).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("num_classes", "backbone")
    }

    def listed(value):
        return [listed(x) for x in value] if isinstance(value, (list, tuple)) else value

    options = FasterRCNNCpp(7).options
    assert options.pop("num_classes") == 7
    assert options == {name: listed(value) for name, value in defaults.items()}


@pytest.mark.smoke
@pytest.mark.parametrize("face", ["python", "cpp"])
def test_loss_falls(device, face):
    torch.manual_seed(0)
    model = (FasterRCNN if face == "python" else FasterRCNNCpp)(4, **SMALL).to(device)
    history = loss_history(model, *images_and_targets(device))
    assert history[-1] < 0.7 * history[0], history


@pytest.mark.kernels
def test_image_without_objects(device):
    images, targets = images_and_targets(device)
    targets[1] = {
        "boxes": torch.zeros(0, 4, device=device),
        "labels": torch.zeros(0, dtype=torch.int64, device=device),
    }
    for given in (targets, [targets[1], targets[1]]):
        outputs = [run(model, True, images, given) for model in both(device)]
        assert all(loss.isfinite() for loss in outputs[0][0].values())
        assert_equal_outputs(outputs[1], outputs[0])
        sum(outputs[0][0].values()).backward()


def test_no_detections(device):
    images, targets = images_and_targets(device)
    for model in both(device, box_score_thresh=1.0):
        _, detections = run(model, False, images, targets)
        assert [x["boxes"].shape for x in detections] == [(0, 4), (0, 4)]
        assert [x["labels"].dtype for x in detections] == [torch.int64] * 2


def test_other_backbone(device):
    class Single(torch.nn.Module):
        """One map at stride 16, for proposals and for boxes."""

        def __init__(self):
            super().__init__()
            self.out_channels, self.num_levels, self.roi_strides = 8, 1, [16]
            self.layer = torch.nn.Conv2d(3, 8, 16, stride=16)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.layer(images)]

    model = FasterRCNN(4, **{**SMALL, "anchor_sizes": ((16, 32, 64),)}, backbone=Single())
    model = torch.jit.script(model).to(device)
    images, targets = images_and_targets(device)
    losses, _ = run(model, True, images, targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert len(run(model, False, images, targets)[1]) == 2
    model = FasterRCNN(4, **{**SMALL, "anchor_sizes": ((16, 32, 64),)}, backbone=Single()).eval()
    with pytest.raises(RuntimeError, match="it has no method fold_batch_norm"):
        model.fold_batch_norm()
