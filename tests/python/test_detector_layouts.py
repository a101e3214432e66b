"""The ways to run a detector: dtypes, autocast, channels last, folded batch norm."""

import pytest
import torch
from detectors import (
    SMALL,
    cpp_model,
    images_and_targets,
    python_model,
    run,
)

from tilewright.models import FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast(device, dtype):
    model = python_model(device)
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    with torch.autocast(device.type, dtype):
        for each in (model, twin):
            losses, _ = run(each, True, images, targets)
            sum(losses.values()).backward()
            assert all(loss.isfinite() for loss in losses.values())
            for detection in run(each, False, images, targets)[1]:
                assert detection["boxes"].dtype == torch.float32


def test_moves_to_a_dtype():
    model = FasterRCNNCpp(4, **SMALL)
    images, _ = images_and_targets("cpu", torch.float64)
    model.to(torch.float64).eval()
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert model(images)[1][0]["boxes"].dtype == torch.float64
    with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype, got <class 'str'>"):
        model.to("cpu", "float64")
