"""R-FCN: the C++ module and its scriptable twin agree, train, are saved and name what is wrong."""

import pytest
import torch
from detectors import (
    SMALL_RFCN,
    assert_equal_gradients,
    assert_equal_outputs,
    assert_same_everywhere,
    both_rfcn,
    images_and_targets,
    loss_history,
    rfcn_cpp_model,
    rfcn_model,
    run,
)

from tilewright import _C
from tilewright.models import RFCN, FasterRCNNCpp, RFCNCpp
from tilewright.models.position_sensitive_heads import PositionSensitiveVote

pytestmark = pytest.mark.usefixtures("one_thread")
POOLING = ["ps_roi_align", "ps_roi_pool", "deform_ps_roi_pool"]


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "ps_roi_pool", "pooled_size": 4, "frozen_batch_norm": True},
        {"pooling": "deform_ps_roi_pool", "deformable_stages": 1},
        {"resnet_depth": 50, "deformable_stages": 1, "sampling_ratio": 0},
        {"dilate_last_stage": False},
        {"feature_level": 3},
        {"feature_level": 2, "dilate_last_stage": False, "deformable_stages": 1},
    ],
)
def test_twins_agree(device, dtype, options, tmp_path):
    model = rfcn_model(device, **options).to(dtype)
    twin = rfcn_cpp_model(model, device, dtype, **options)
    assert list(twin.state_dict()) == list(model.state_dict())
    given = images_and_targets(device, dtype)
    assert_same_everywhere(model, twin, *given, tmp_path / "model.pt")


@pytest.mark.smoke
@pytest.mark.unchecked
@pytest.mark.kernels
@pytest.mark.parametrize("pooling", POOLING)
def test_gradients_of_the_twins_agree(device, pooling):
    assert_equal_gradients(*both_rfcn(device, pooling=pooling), *images_and_targets(device))


def test_export(device):
    model = rfcn_model(device).eval()
    images, _ = images_and_targets(device)
    program = torch.export.export(model, (images,)).module()
    for given in (images, [1 - image for image in images]):
        assert_equal_outputs(program(given), run(model, False, given, None))


@pytest.mark.smoke
@pytest.mark.parametrize("face", [RFCN, RFCNCpp])
def test_loss_falls(device, face):
    torch.manual_seed(0)
    model = face(4, **SMALL_RFCN).to(device)
    given = images_and_targets(device)
    history = loss_history(model, *given, rate=0.01, momentum=0.9, steps=25)
    assert history[-1] < 0.8 * history[0], history


def test_files_go_both_ways(device, tmp_path):
    model, twin = both_rfcn(device)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.01)
    twin.save(str(tmp_path / "cpp.pt"))
    model.load(tmp_path / "cpp.pt")
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    other = RFCNCpp(4, **SMALL_RFCN)
    torch.save(model.state_dict(), tmp_path / "python.pt")
    other.load(tmp_path / "python.pt")
    images, _ = images_and_targets(device)
    assert_equal_outputs(run(other, False, images, None), run(twin, False, images, None))
    with pytest.raises(RuntimeError, match=r"cls_score\.maps\.weight must have shape \(36, 48, 1"):
        model.load_state_dict(RFCNCpp(5, **SMALL_RFCN).state_dict())


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize("deformable_stages", [0, 2])
def test_a_resnet_of_torchvision_goes_in(device, depth, dilated, deformable_stages):
    vision = pytest.importorskip("torchvision.models")
    resnet = getattr(vision, f"resnet{depth}")().to(device).eval()
    weights = resnet.state_dict()
    options = {
        **SMALL_RFCN,
        "resnet_depth": depth,
        "dilate_last_stage": dilated,
        "deformable_stages": deformable_stages,
    }
    model = RFCN(4, **options).to(device).eval()
    model.load_state_dict(
        {
            name: weights.get(name.removeprefix("backbone.body."), own)
            for name, own in model.state_dict().items()
        }
    )
    if dilated:
        for block in resnet.layer4:
            for conv in (block.conv1, block.conv2)[depth == 50 :]:  # the 3x3 ones
                conv.stride, conv.dilation, conv.padding = (1, 1), (2, 2), (2, 2)
            if block.downsample is not None:
                block.downsample[0].stride = (1, 1)
    x = torch.rand(2, 3, 64, 96, device=device)
    with torch.no_grad():
        stem = resnet.maxpool(resnet.bn1(resnet.conv1(x)).relu())
        c4 = resnet.layer3(resnet.layer2(resnet.layer1(stem)))
        expected = [c4, resnet.layer4(c4)]
        found = model.backbone(x)
    assert found[1].shape[2:] == ((4, 6) if dilated else (2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def vote(**options):
    """k = 3 and two outputs, of maps that are the input's channels."""
    layer = PositionSensitiveVote(
        2, 16, {"head_channels": 18, "pooled_size": 3, "sampling_ratio": 2, **options}
    )
    with torch.no_grad():
        layer.maps.weight.copy_(torch.eye(18).view(18, 18, 1, 1))
    return layer


@pytest.mark.parametrize("pooling", POOLING)
def test_every_bin_votes_from_a_map_of_its_own(pooling):
    layer = vote(pooling=pooling)
    roi = torch.tensor([[0.0, 0, 0, 192, 192]])  # 12 x 12 cells, 4 x 4 a bin
    for output in range(2):
        for row in range(3):
            for column in range(3):
                channel = (output * 3 + row) * 3 + column
                maps = torch.zeros(1, 18, 14, 14)
                maps[0, channel, row * 4 + 1 : row * 4 + 3, column * 4 + 1 : column * 4 + 3] = 1
                found = layer(maps, roi)
                assert found[0, output] > 0.02 and found[0, 1 - output] == 0
                # Where the bin does not look the map does not count.
                moved = maps.roll((4, 4), (2, 3)) if row < 2 else maps.roll((-4, 4), (2, 3))
                assert layer(moved, roi)[0].abs().max() == 0
    assert torch.allclose(layer(torch.full((1, 18, 14, 14), 3.0), roi), torch.full((1, 2), 3.0))


def test_boxes_are_those_of_any_class(device):
    """Two classes found in one proposal have one box."""
    model = rfcn_model(device, box_score_thresh=0.0, box_detections_per_img=1000)
    images, _ = images_and_targets(device)
    found = run(model, False, images, None)[1][0]
    boxes = [{tuple(box) for box in found["boxes"][found["labels"] == c].tolist()} for c in (1, 2)]
    assert len(boxes[0] & boxes[1]) > 3


@pytest.mark.parametrize(
    "options", [{}, {"resnet_depth": 50, "frozen_batch_norm": True, "deformable_stages": 2}]
)
def test_folded_batch_norm_and_channels_last_detect_the_same(device, options):
    images, _ = images_and_targets(device, torch.float64)
    for model in both_rfcn(device, **options):
        model.to(torch.float64).eval()
        expected = run(model, False, images, None)
        assert all(len(detection["boxes"]) > 3 for detection in expected[1])
        model.fold_batch_norm()
        assert_equal_outputs(run(model, False, images, None), expected, exact=False)
        model.to(memory_format=torch.channels_last)
        assert_equal_outputs(run(model, False, images, None), expected, exact=False)
        with pytest.raises(RuntimeError, match="RFCN: batch norm was folded"):
            model.train()


def test_maps_are_channels_last_where_the_weights_are(device):
    model = rfcn_model(device, deformable_stages=1).to(memory_format=torch.channels_last).eval()
    c4, c5 = model.backbone(torch.rand(1, 3, 64, 96, device=device))
    assert c4.shape[2:] == c5.shape[2:] == (4, 6)
    maps = model.roi_heads.cls_score.maps(model.roi_heads.reduction(c5))
    for each in (c4, c5, maps):
        assert each.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pooling", POOLING)
def test_autocast(device, pooling):
    images, targets = images_and_targets(device)
    for each in both_rfcn(device, pooling=pooling):
        with torch.autocast(device.type, torch.bfloat16):
            losses, _ = run(each, True, images, targets)
            found = run(each, False, images, targets)[1]
        sum(losses.values()).backward()
        assert all(parameter.grad.isfinite().all() for parameter in each.parameters())
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        assert all(detection["boxes"].dtype == torch.float32 for detection in found)


class Maps(torch.nn.Module):
    """Maps at stride 16 of as many channels as asked for."""

    def __init__(self, *channels, levels=1):
        super().__init__()
        self.out_channels, self.num_levels, self.roi_strides = channels[0], levels, [16]
        if channels[-1] != channels[0]:
            self.last_channels = channels[-1]
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, c, 16, stride=16) for c in channels)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [layer(images) for layer in self.layers]


@pytest.mark.parametrize("channels", [(8,), (8, 12)])
def test_other_backbone(device, channels):
    model = torch.jit.script(RFCN(4, **SMALL_RFCN, backbone=Maps(*channels))).to(device)
    images, targets = images_and_targets(device)
    losses, _ = run(model, True, images, targets)
    sum(losses.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert len(run(model, False, images, targets)[1]) == 2


def test_a_backbone_of_several_levels_is_named():
    options = {**SMALL_RFCN, "anchor_sizes": ((16,), (32,))}
    with pytest.raises(ValueError, match="RFCN: backbone must have one level and one stride, got"):
        RFCN(4, **options, backbone=Maps(8, 8, levels=2))


def test_options_of_both_models():
    options, others = RFCNCpp(7).options, FasterRCNNCpp(7).options
    assert options == _C.rfcn_options(7)
    own = {name: options[name] for name in options if options[name] != others.get(name)}
    assert own == {
        "dilate_last_stage": True,
        "anchor_sizes": [[32, 64, 128, 256, 512]],
        "feature_level": 4,
        "head_channels": 1024,
        "pooled_size": 7,
        "pooling": "ps_roi_align",
        "sampling_ratio": 2,
    }
    assert set(others) - set(options) == {
        "fpn_channels",
        "representation_size",
        "deformable_pooling",
    }


@pytest.mark.parametrize("detector", [RFCN, RFCNCpp])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("pooling", "max", "pooling must be ps_roi_align, ps_roi_pool or deform_.*, got max"),
        ("pooling", 3, "RFCN: pooling must be a string, got 3"),
        ("feature_level", 1, "RFCN: feature_level must be a stage from 2 to 4, got 1"),
        ("feature_level", 5, "RFCN: feature_level must be a stage from 2 to 4, got 5"),
        ("pooled_size", 0, "RFCN: pooled_size must be positive, got 0"),
        ("head_channels", -1, "RFCN: head_channels must be positive, got -1"),
        ("sampling_ratio", 1025, "RFCN: sampling_ratio must be at most 1024, got 1025"),
        ("box_nms_thresh", 2.0, r"RFCN: box_nms_thresh must lie in \[0, 1\], got 2"),
        ("anchor_sizes", ((8,), (16,)), "RFCN: anchor_sizes must have one list for each of the 1"),
        ("fpn_channels", 64, "RFCN: unknown options {'fpn_channels'}, there are "),
        ("deformable_stages", 5, r"ResNet: deformable_stages must lie in \[0, 4\], .* got 5"),
        ("resnet_depth", 19, "ResNet: depth must be 18, 34, 50 or 101, got 19"),
    ],
)
def test_bad_options_are_named(detector, option, value, message):
    with pytest.raises((RuntimeError, TypeError, ValueError), match=message):
        detector(3, **{**SMALL_RFCN, option: value})


def test_bad_targets_are_named():
    images, targets = images_and_targets("cpu")
    targets[1]["labels"] = torch.tensor([4])
    model, twin = both_rfcn("cpu")
    for each in (model, twin, torch.jit.script(model)):
        each.train()
        with pytest.raises(Exception, match=r"labels\[1\] must lie in \[1, 4\)"):
            each(images, targets)
        with pytest.raises(Exception, match="tilewright::RFCN: targets must be given in training"):
            each(images)
        with pytest.raises(Exception, match=r"tilewright::RFCN: targets\[0\] must have boxes and"):
            each(images, [{}, {}])
