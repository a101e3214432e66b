"""nade and nade_sample name what they cannot take: shapes, dtypes, pixels that are not binary."""

import pytest
import torch

import tilewright

pytestmark = pytest.mark.kernels


def good():
    return {
        "x": torch.ones(2, 4),
        "weight_in": torch.ones(3, 4),
        "bias_in": torch.ones(3),
        "weight_out": torch.ones(4, 3),
        "bias_out": torch.ones(4),
    }


BAD = [
    ("x", torch.ones(4), r"x must have shape \(N, D\), got \(4,\)"),
    ("x", torch.ones(2, 5), r"x must have shape \(N, 4\), as weight_in has pixels, got \(2, 5\)"),
    ("x", torch.ones(2, 4).double(), r"x must have weight_in's dtype \(Float\), got Double"),
    ("x", torch.ones(2, 4, requires_grad=True), "x is data and has no gradient, but it requires"),
    ("weight_in", torch.ones(3, 4).int(), "weight_in must be float64, float32, float16 or bfloat"),
    ("weight_in", torch.ones(12), r"weight_in must have shape \(H, D\), got \(12,\)"),
    ("weight_in", torch.ones(0, 4), r"weight_in must have hidden units and pixels, got \(0, 4\)"),
    ("bias_in", torch.ones(4), r"bias_in must have shape \(H,\) = \(3,\), got \(4,\)"),
    ("weight_out", torch.ones(3, 4), r"weight_out must have shape \(D, H\) = \(4, 3\), got \(3, 4"),
    (
        "weight_out",
        torch.ones(4, 3).half(),
        r"weight_out must have weight_in's dtype \(Float\)",
    ),
    ("bias_out", torch.ones(4, 1), r"bias_out must have shape \(D,\) = \(4,\), got \(4, 1\)"),
]


@pytest.mark.no_launch
@pytest.mark.parametrize("name,value,message", BAD)
def test_bad_input(device, name, value, message):
    given = {key: tensor.to(device) for key, tensor in (good() | {name: value}).items()}
    if value.requires_grad:
        given[name] = given[name].detach().requires_grad_()
    with pytest.raises(RuntimeError, match="tilewright::nade: " + message):
        tilewright.nade(**given)


@pytest.mark.no_launch
def test_bad_input_of_samples(device):
    *_, w = good(), [t.to(device) for t in list(good().values())[1:]]
    for given, message in (
        (torch.ones(2, 5), r"given must have shape \(n, d\) = \(2, at most 4\), got \(2, 5\)"),
        (torch.ones(3, 2), r"given must have shape \(n, d\) = \(2, at most 4\), got \(3, 2\)"),
        (torch.ones(2), r"given must have shape \(n, d\)"),
        (torch.ones(2, 1).half(), r"given must have weight_in's dtype \(Float\), got Half"),
    ):
        with pytest.raises(RuntimeError, match="tilewright::nade_sample: " + message):
            tilewright.nade_sample(2, *w, given=given.to(device))
    with pytest.raises(RuntimeError, match="nade_sample: n must not be negative, got -1"):
        tilewright.nade_sample(-1, *w)


def test_pixels_that_are_not_binary(device, data_raises):
    w = [t.to(device) for t in list(good().values())[1:]]
    for wrong in (0.5, -1.0, 2.0, float("nan")):
        x = torch.ones(2, 4, device=device)
        x[1, 2] = wrong
        if not data_raises:
            tilewright.nade(x, *w)
            tilewright.nade_sample(2, *w, given=x)
            continue
        with pytest.raises(
            RuntimeError, match=rf"nade: pixels must be 0 or 1, got {wrong:g} in x\[1, 2\]"
        ):
            tilewright.nade(x, *w)
        with pytest.raises(RuntimeError, match=r"nade_sample: pixels must be 0 or 1, got .*given"):
            tilewright.nade_sample(2, *w, given=x)


def test_data_that_others_differentiate():
    """Where no gradient is asked for, x may be a leaf of another graph."""
    x = torch.ones(2, 3, requires_grad=True)
    weights = torch.randn(4, 3), torch.randn(4), torch.randn(3, 4), torch.randn(3)
    with torch.no_grad():
        found = tilewright.nade(x, *weights)
    assert torch.equal(found, tilewright.nade(x.detach(), *weights))
