"""The ways to run a detector: dtypes, autocast, channels last, folded batch norm."""

import copy

import pytest
import torch
from detectors import (
    SMALL,
    assert_equal_outputs,
    both,
    cpp_model,
    images_and_targets,
    python_model,
    randomise,
    run,
)

from tilewright.models import FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.unchecked
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


def gradients(model):
    return {name: p.grad for name, p in dict(model.named_parameters()).items()}


@pytest.mark.unchecked
@pytest.mark.kernels
def test_channels_last(device):
    """Results are those of contiguous weights. In float64: in float32 a rounding may move the kink
    of a ReLU across a value, and gradients jump."""
    images, targets = images_and_targets(device, torch.float64)
    for model, other in zip(both(device), both(device), strict=True):
        model.to(torch.float64)
        other.to(torch.float64)
        other.to(memory_format=torch.channels_last)
        weight = dict(other.named_parameters())["backbone.body.layer1.0.conv1.weight"]
        assert weight.is_contiguous(memory_format=torch.channels_last)
        expected = run(model, False, images, targets)
        assert_equal_outputs(run(other, False, images, targets), expected, exact=False)
        expected = run(model, True, images, targets)
        got = run(other, True, images, targets)
        assert_equal_outputs(got, expected, exact=False)
        for losses, _ in (expected, got):
            sum(losses.values()).backward()
        for name, gradient in gradients(model).items():
            scale = gradient.abs().max().item()
            found = gradients(other)[name]
            torch.testing.assert_close(found, gradient, rtol=0, atol=1e-9 * scale + 1e-12)


def test_maps_are_channels_last_where_the_weights_are(device):
    model = python_model(device).to(memory_format=torch.channels_last).eval()
    for feature in model.backbone(torch.rand(1, 3, 64, 96, device=device)):
        assert feature.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.unchecked
@pytest.mark.kernels
def test_autocast_channels_last(device):
    """In bfloat16 the same objects are found, give or take its rounding; steps stay finite."""
    images, targets = images_and_targets(device)
    for model in both(device):
        expected = run(model, False, images, targets)[1]
        model.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            found = run(model, False, [image.bfloat16() for image in images], targets)[1]
            losses = run(model, True, images, targets)[0]
        for ours, theirs in zip(found, expected, strict=True):
            near = torch.cdist(theirs["boxes"][:3], ours["boxes"], p=float("inf")).amin(1)
            assert near.max() < 5
        sum(losses.values()).backward()
        for name, gradient in gradients(model).items():
            assert gradient.isfinite().all(), name
            assert gradient.dtype == torch.float32


@pytest.mark.unchecked
@pytest.mark.kernels
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frozen_batch_norm": True, "resnet_depth": 50},
        {"feature_level": 3, "anchor_sizes": ((16, 32, 64),)},
    ],
)
def test_folded_batch_norm_detects_the_same(device, options):
    torch.manual_seed(0)
    images, _ = images_and_targets(device)
    model = randomise(python_model(device, box_score_thresh=0.0, **options)).eval()
    twin = cpp_model(model, device, box_score_thresh=0.0, **options).eval()
    expected = run(model, False, images, None)
    assert all(len(detection["boxes"]) > 3 for detection in expected[1])
    scripted_before = torch.jit.script(copy.deepcopy(model))
    for each in (model, twin):
        assert each.fold_batch_norm() is each
        assert_equal_outputs(run(each, False, images, None), expected, exact=False)
        each.fold_batch_norm()  # once more changes nothing
        assert_equal_outputs(run(each, False, images, None), expected, exact=False)
    for scripted in (scripted_before, torch.jit.script(model)):
        assert_equal_outputs(run(scripted, False, images, None), expected, exact=False)
    names = dict(model.named_parameters())
    assert "backbone.body.bn1.bias" in names
    assert not any("running" in name for name, _ in model.named_buffers())
    assert list(twin.state_dict()) == list(model.state_dict())


def test_folded_batch_norm_cannot_train(device):
    for model in both(device):
        with pytest.raises(RuntimeError, match=r"is for inference: call eval\(\) first"):
            model.train().fold_batch_norm()
        model.eval().fold_batch_norm()
        model.eval()
        with pytest.raises(RuntimeError, match="cannot train any more"):
            model.train()
        assert not model.training
        with pytest.raises(RuntimeError, match=r"key backbone\.body\.bn1\.weight is not in the"):
            model.load_state_dict(FasterRCNNCpp(4, **SMALL).state_dict())


def test_folded_weights_move_between_folded_models(device, tmp_path):
    model, twin = both(device)
    twin.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})
    model.eval().fold_batch_norm()
    twin.eval().fold_batch_norm()
    twin.save(str(tmp_path / "folded.pt"))
    model.load(tmp_path / "folded.pt")
    images, _ = images_and_targets(device)
    assert_equal_outputs(run(model, False, images, None), run(twin, False, images, None))


def test_memory_format_must_be_one():
    with pytest.raises(TypeError, match=r"memory_format must be a torch\.memory_format, got"):
        FasterRCNNCpp(4, **SMALL).to(memory_format="channels_last")


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "Half"), (torch.float64, "Double")])
def test_images_of_another_dtype_are_named(dtype, name):
    """Not as an error of the first convolution."""
    images = [torch.rand(3, 40, 50), torch.rand(3, 40, 50, dtype=dtype)]
    message = rf"images\[1\] must have the dtype of the model, Float, got {name}"
    for model in both("cpu"):
        with pytest.raises(RuntimeError, match=message):
            model.eval()(images)
        # Under autocast those of its dtype are fine too.
        with torch.autocast("cpu", torch.bfloat16):
            with pytest.raises(RuntimeError, match=message):
                model(images)
            assert len(model([images[0], images[0].bfloat16()])[1]) == 2


def test_images_in_0_to_255_are_named():
    images = [torch.rand(3, 40, 50), torch.randint(0, 256, (3, 40, 50)).float()]
    for model in both("cpu"):
        with pytest.raises(
            RuntimeError,
            match=r"images\[1\] must hold pixels in \[0, 1\], got a maximum of 255",
        ):
            model.eval()(images)
        model([images[0] * 1.9])  # brightened images pass
    for model in both("cpu", image_mean=(104.0, 116.0, 124.0), image_std=(1.0, 1.0, 1.0)):
        assert len(model.eval()(images)[1]) == 2  # a normalisation for such images
