"""Gradient reports by hand, their pictures; gradient_exponents by definition."""

import math

import pytest
import torch
from checks import opcheck
from conftest import DTYPES
from torch import nn

from tilewright import amp
from tilewright.amp import LossScaler

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(3, 1, bias=False)


def net_with_gradients(device="cpu"):
    net = Net().to(device)
    net.first.weight.grad = torch.full((3, 4), 2.0**-30, device=device)
    net.first.bias.grad = torch.tensor([0.0, 1.0, math.inf], device=device)
    net.last.weight.grad = torch.tensor([[2.0**-20, 2.0**14, -(2.0**-26)]], device=device)
    return net


@kernels
def test_a_report_by_hand(device):
    net = net_with_gradients(device)
    found = amp.report(net, 4.0)
    assert [layer.name for layer in found.layers] == ["first", "last"]
    first, last = found.layers
    # Times 4: 2^-28 vanishes (12 of 13), 1 stays; 2^-18 is subnormal, 2^16 overflows, 2^-24 is the
    # smallest subnormal.
    assert (first.flushed, first.subnormal, first.overflowed) == (12 / 13, 0, 0)
    assert (first.zeros, first.not_finite) == (1 / 15, 1)
    assert (last.flushed, last.subnormal, last.overflowed) == (0, 2 / 3, 1 / 3)
    assert found.total.counts.sum() == 18 and found.scale == 4.0
    assert found.advised_scale == 2.0 ** (15 - 3 - 14)  # what the largest allows
    text = str(found)
    assert "gradients in float16 at a loss scale of 4 (advised: 0.25)" in text
    assert text.splitlines()[3].split() == [
        "first",
        "<",
        "2^1",
        *["92.31%", "0.00%", "0.00%", "6.67%", "1"],
    ]
    assert text.splitlines()[-1].split()[0] == "all"
    wide = amp.report(net, 4.0, format="bf16")
    assert wide.total.flushed == wide.total.overflowed == 0 and wide.advised_scale == 1.0
    with_scale = amp.report([("layer", net.last.weight.grad * 4)], 4.0, scaled=True)
    assert torch.equal(with_scale.layers[0].counts, last.counts)


def test_a_report_of_a_scaler_and_its_picture(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    scaler, optimizer = LossScaler(init_scale=2.0**8), torch.optim.SGD(model.parameters(), 0.1)
    scaler.scale(model(torch.randn(9, 5)).square().mean() * 1e-9).backward()
    before = amp.report(model, scaler, scaled=True)
    scaler.unscale_(optimizer)
    after = amp.report(model, scaler)
    assert torch.equal(before.total.counts, after.total.counts) and after.scale == 2.0**8
    assert after.total.flushed + after.total.subnormal > 0.5 and after.advised_scale > 2.0**8
    # At the scale it advises nothing vanishes.
    assert amp.report(model, after.advised_scale).total.flushed == 0
    figure = after.plot(tmp_path / "gradients.png")
    assert (tmp_path / "gradients.png").stat().st_size > 5000
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["0", "2"]
    assert "advised" in figure.axes[0].get_title()


def test_reports_of_nothing():
    with pytest.raises(ValueError, match="the model has no gradients: call backward"):
        amp.report(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"scale must be positive and finite, got 0\.0"):
        amp.report(net_with_gradients(), 0.0)
    model = nn.Linear(2, 2)
    for wrong, message in (
        (model.parameters(), "pairs of names and gradients, got Parameter among them"),
        (model.named_parameters(), "got the parameter 'weight' itself"),
        ({"w": torch.ones(1)}, "pairs of names and gradients, got dict"),
        ([("w", [1.0])], "got list as 'w'"),
    ):
        with pytest.raises(ValueError, match=message):
            amp.report(wrong)
    zeros = amp.report([("w", torch.zeros(3))])
    assert zeros.advised_scale == 1.0 and zeros.total.zeros == 1.0
    assert "-" in str(zeros).splitlines()[3]
    zeros.plot()


def exponents(grads):
    """By numpy's frexp, one by one."""
    counts = torch.zeros(256, dtype=torch.int64)
    for grad in grads:
        for value in grad.flatten().tolist():
            if not math.isfinite(value):
                place = 255
            else:
                place = min(max(math.frexp(value)[1] - 1 + 127, 0), 255) if value else 0
            counts[place] += 1
    return counts


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_exponents(device, dtype):
    wide = torch.randn(5000, device=device).double() * torch.exp2(
        torch.empty(5000, device=device).uniform_(-160, 140).double()
    )
    special = torch.tensor(
        [0.0, -0.0, 1.0, -1.0, 0.99, 2.0, math.inf, -math.inf, math.nan, 1e-45, 2.0**-126, 1e300],
        dtype=torch.float64,
        device=device,
    )
    grads = [wide.to(dtype), special.to(dtype), torch.randn(3, 4, device=device).to(dtype).t()]
    grads += [torch.empty(0, dtype=dtype, device=device), torch.ones(70000, device=device)[1:]]
    found = ops.gradient_exponents(grads)
    assert found.dtype == torch.int64
    assert torch.equal(found.cpu(), exponents(grads))


@kernels
def test_exponents_of_others(device):
    x = torch.randn(10, device=device, requires_grad=True)
    assert not ops.gradient_exponents([x]).requires_grad
    opcheck(ops.gradient_exponents.default, ([x, x.detach().half()],))
    with pytest.raises(RuntimeError, match="grads must hold at least one tensor"):
        ops.gradient_exponents([])
    with pytest.raises(RuntimeError, match=r"grads\[1\] must be float64"):
        ops.gradient_exponents([x, x.long()])
