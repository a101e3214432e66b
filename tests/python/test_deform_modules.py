"""DeformConv2d and DeformRoIPool: what their constructors and calls refuse, and how they say so."""

import pytest
import torch

from tilewright import DeformConv2d, DeformRoIPool, deform_conv2d


@pytest.mark.parametrize(
    "options,message",
    [
        ({"kernel_size": 0}, r"kernel_size must be an int of at least 1, or two .* got 0"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size must be .* got \(3, 3, 3\)"),
        ({"kernel_size": -3}, "kernel_size must be .* got -3"),
        ({"stride": 0}, "stride must be an int of at least 1.* got 0"),
        ({"stride": 1.5}, r"stride must be an int .* got 1\.5"),
        ({"padding": "same"}, "padding must be an int of at least 0.* got 'same'"),
        ({"padding": (1, -1)}, r"padding must be .* got \(1, -1\)"),
        ({"dilation": 0}, "dilation must be an int of at least 1.* got 0"),
        ({"in_channels": 0}, "in_channels must be a positive int, got 0"),
        ({"groups": 4}, r"groups \(4\) must divide in_channels \(6\)"),
    ],
)
def test_convolutions_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        DeformConv2d(**{"in_channels": 6, "out_channels": 4, "kernel_size": 3} | options)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"output_size": 0}, "output_size must be an int of at least 1.* got 0"),
        ({"output_size": "7"}, "output_size must be .* got '7'"),
        ({"output_size": (3, 3, 3)}, r"output_size must be .* got \(3, 3, 3\)"),
        ({"spatial_scale": 0.0}, r"spatial_scale must be positive and finite, got 0\.0"),
        ({"gamma": float("nan")}, "gamma must be finite, got nan"),
        ({"sampling_ratio": 1025}, "sampling_ratio must be an int of at most 1024, got 1025"),
        ({"in_channels": 0}, "in_channels must be a positive int, got 0"),
        ({"in_channels": 4, "fc_channels": 0}, "fc_channels must be a positive int, got 0"),
    ],
)
def test_pools_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        DeformRoIPool(**{"output_size": 3} | options)


def test_calls():
    layer, pool = DeformConv2d(6, 4, 3), DeformRoIPool(3, 0.5, in_channels=6, fc_channels=8)
    with pytest.raises(ValueError, match=r"input must have shape \(N, C, H, W\), got \[6, 9, 9\]"):
        layer.predict(torch.ones(6, 9, 9))
    rois = torch.tensor([[0, 0.0, 0, 8, 8]])
    for one in (pool, torch.jit.script(pool)):
        assert one(torch.ones(1, 6, 9, 9), rois).shape == (1, 6, 3, 3)
        with pytest.raises(Exception, match=r"input must have in_channels \(6\) channels, got 5"):
            one(torch.ones(1, 5, 9, 9), rois)


def test_half_of_the_offsets_is_a_damaged_file():
    layer = DeformConv2d(6, 4, 3)
    state = layer.state_dict()
    del state["conv_offset.bias"]
    with pytest.raises(RuntimeError, match=r"conv_offset\.bias"):
        layer.load_state_dict(state)
    del state["conv_offset.weight"]
    layer.load_state_dict(state)


def test_early_names_of_the_offsets():
    state = torch.nn.Sequential(DeformConv2d(6, 4, 3)).state_dict()
    state["0.conv_offset.weight"].normal_()
    early = {key.replace("conv_offset", "conv_offset_mask"): value for key, value in state.items()}
    layer = torch.nn.Sequential(DeformConv2d(6, 4, 3))
    layer.load_state_dict(early)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_functions_of_what_is_no_tensor():
    x, offset, weight = torch.zeros(1, 4, 8, 8), torch.zeros(1, 18, 6, 6), torch.zeros(5, 4, 3, 3)
    assert deform_conv2d(x, offset, weight).shape == (1, 5, 6, 6)
    for name, given in (
        ("input", (None, offset, weight)),
        ("offset", (x, offset.numpy(), weight)),
        ("weight", (x, offset, 1.0)),
    ):
        with pytest.raises(ValueError, match=f"{name} must be a tensor, got (NoneT|ndarr|float)"):
            deform_conv2d(*given)
