"""Detectors whose last stages have deformable convolutions: twins, plain weights, layouts."""

import pytest
import torch
from detectors import (
    SMALL,
    assert_equal_gradients,
    assert_equal_outputs,
    both,
    cpp_model,
    images_and_targets,
    loss_history,
    python_model,
    randomise,
    run,
)

from tilewright.models import FasterRCNN, FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = [
    {"deformable_stages": 1},
    {"deformable_pooling": True},
    {"deformable_stages": 3, "modulated_deformation": True, "resnet_depth": 50},
    {"deformable_stages": 2, "frozen_batch_norm": True, "resnet_depth": 50},
    {
        "deformable_stages": 1,
        "modulated_deformation": True,
        "feature_level": 4,
        "dilate_last_stage": True,
        "anchor_sizes": ((16, 32, 64),),
    },
]


@pytest.mark.smoke
@pytest.mark.parametrize("options", OPTIONS)
def test_twins_agree(device, options):
    model, twin = both(device, **options)
    randomise(model, class_factor=1)
    twin.load_state_dict(model.state_dict())
    assert list(twin.state_dict()) == list(model.state_dict())
    scripted = torch.jit.script(model)
    images, targets = images_and_targets(device)
    for training in (False, True):
        expected = run(model, training, images, targets)
        assert_equal_outputs(run(twin, training, images, targets), expected)
        assert_equal_outputs(run(scripted, training, images, targets), expected)
    assert_equal_gradients(*both(device, **options), images, targets)


@pytest.mark.unchecked
@pytest.mark.kernels
def test_a_step_on_small_images(device):
    options = {"deformable_stages": 1, "deformable_pooling": True}
    twins = both(device, **options, min_size=40, max_size=64)
    images, targets = images_and_targets(device)
    outputs = [run(model, False, images, None) for model in twins]
    assert_equal_outputs(*outputs)
    assert_equal_gradients(*twins, images, targets)


@pytest.mark.parametrize("depth", [18, 50])
def test_the_layers_that_are_deformable(depth):
    model = FasterRCNN(4, **SMALL, resnet_depth=depth, deformable_stages=2)
    names = {name.rsplit(".conv_offset")[0] for name in model.state_dict() if "conv_offset" in name}
    blocks = {18: {3: 2, 4: 2}, 50: {3: 6, 4: 3}}[depth]
    assert names == {
        f"backbone.body.layer{stage}.{block}.conv2"
        for stage, count in blocks.items()
        for block in range(count)
    }


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2], OPTIONS[3]])
def test_plain_weights_go_in(device, options, tmp_path):
    """Offsets of 0: without masks a deformable model detects what the plain one does."""
    plain_options = {
        name: value
        for name, value in options.items()
        if name not in ("deformable_stages", "modulated_deformation")
    }
    options = {**options, "modulated_deformation": False, "box_score_thresh": 0.0}
    plain = randomise(python_model(device, **plain_options, box_score_thresh=0.0))
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    images, _ = images_and_targets(device)
    expected = run(plain, False, images, None)
    for face in (FasterRCNN, FasterRCNNCpp):
        model = face(4, **{**SMALL, **options}).to(device)
        with pytest.raises(RuntimeError, match=r"key \S+\.conv2\.conv_offset\.weight is missing"):
            model.load(tmp_path / "plain.pt")
        own = model.state_dict()
        offsets = {name: own[name] for name in own if "conv_offset" in name}
        model.load_state_dict({**plain.state_dict(), **offsets})
        assert_equal_outputs(run(model, False, images, None), expected, exact=False)


@pytest.mark.parametrize("options", OPTIONS)
def test_folded_batch_norm_and_channels_last_detect_the_same(device, options):
    images, _ = images_and_targets(device, torch.float64)
    model = randomise(python_model(device, box_score_thresh=0.0, **options))
    twin = cpp_model(model, device, box_score_thresh=0.0, **options)
    for each in (model, twin):
        each.to(torch.float64).eval()
        expected = run(each, False, images, None)
        assert all(len(detection["boxes"]) > 3 for detection in expected[1])
        each.fold_batch_norm()
        assert_equal_outputs(run(each, False, images, None), expected, exact=False)
        each.to(memory_format=torch.channels_last)
        assert_equal_outputs(run(each, False, images, None), expected, exact=False)
    scripted = torch.jit.script(model)
    assert_equal_outputs(run(scripted, False, images, None), expected, exact=False)
    assert "backbone.body.layer4.0.bn2.bias" in model.state_dict()
    assert list(twin.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("options", OPTIONS[1:3])
def test_autocast_channels_last(device, options):
    images, targets = images_and_targets(device)
    for model in both(device, **options):
        model.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            losses = run(model, True, images, targets)[0]
        sum(losses.values()).backward()
        for name, parameter in dict(model.named_parameters()).items():
            assert parameter.grad.isfinite().all() and parameter.grad.dtype == torch.float32, name


@pytest.mark.parametrize("face", [FasterRCNN, FasterRCNNCpp])
def test_loss_falls_and_offsets_learn(device, face):
    torch.manual_seed(0)
    model = face(4, **SMALL, deformable_stages=2).to(device)
    history = loss_history(model, *images_and_targets(device))
    assert history[-1] < 0.7 * history[0], history
    offset = dict(model.named_parameters())["backbone.body.layer4.1.conv2.conv_offset.weight"]
    assert offset.abs().max() > 0


def test_frozen_stages_keep_their_offsets():
    for face in (FasterRCNN, FasterRCNNCpp):
        model = face(4, **SMALL, deformable_stages=3, trainable_backbone_layers=1)
        learning = {name for name, p in dict(model.named_parameters()).items() if p.requires_grad}
        assert "backbone.body.layer4.0.conv2.conv_offset.weight" in learning
        assert "backbone.body.layer3.0.conv2.conv_offset.weight" not in learning


def test_dilation_keeps_the_map(device):
    """And sees farther: a cell of the last map answers to pixels twice as far away."""
    options = {"feature_level": 4, "anchor_sizes": ((16, 32, 64),)}
    image = torch.rand(1, 3, 64, 96, device=device)
    for depth, channels in ((18, 512), (50, 2048)):
        model = python_model(device, **options, dilate_last_stage=True, resnet_depth=depth).eval()
        (dilated,) = model.backbone(image)
        assert dilated.shape == (1, channels, 4, 6) and model.backbone.roi_strides == [16]
        plain = python_model(device, **options, resnet_depth=depth).eval()
        plain.load_state_dict(model.state_dict())  # the same names and shapes
        assert plain.backbone(image)[0].shape == (1, channels, 2, 3)


@pytest.mark.parametrize("detector", [FasterRCNN, FasterRCNNCpp])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deformable_stages": -1}, r"deformable_stages must lie in \[0, 4\].*, got -1"),
        (
            {"deformable_stages": 4, "feature_level": 3, "anchor_sizes": ((8,),)},
            r"deformable_stages must lie in \[0, 3\], the stages that are built, got 4",
        ),
        ({"modulated_deformation": True}, "modulated_deformation needs deformable_stages, got 0"),
        ({"dilate_last_stage": True}, "dilate_last_stage needs feature_level=4, got 0"),
        ({"deformable_stages": "all"}, "deformable_stages must be an integer, got 'all'"),
    ],
)
def test_bad_options_are_named(detector, options, message):
    with pytest.raises((RuntimeError, TypeError, ValueError), match=message):
        detector(3, **options)


def test_stages_of_a_backbone_that_was_given_are_not_made_deformable():
    backbone = FasterRCNN(3, **SMALL).backbone
    with pytest.raises(
        ValueError, match="deformable_stages is the default backbone's, got 2 beside"
    ):
        FasterRCNN(3, **SMALL, backbone=backbone, deformable_stages=2)
