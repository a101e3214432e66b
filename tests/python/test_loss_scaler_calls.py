"""LossScaler's calls: clipping, closures, several optimizers, states, what is out of order."""

import math

import pytest
import torch
from scaler_cases import loss_of, net, one_step, optimizers, same, values
from torch import nn

from tilewright.amp import LossScaler

kernels = pytest.mark.kernels


@kernels
@optimizers
@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_clipping(device, make, max_norm):
    scaled, plain = net(device), net(device)
    first, second = make(scaled.parameters()), make(plain.parameters())
    scaler = LossScaler(init_scale=2.0**9)
    for step in range(3):
        norms = []

        def clip(norms=norms):
            norms.append(scaler.unscale_and_clip_(first, max_norm))

        one_step(scaler, scaled, first, step, 3.0, clip)
        second.zero_grad()
        loss_of(plain, step, 3.0).backward()
        expected = nn.utils.clip_grad_norm_(plain.parameters(), max_norm)
        second.step()
        torch.testing.assert_close(norms[0], expected)
        for p, q in zip(scaled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-9)
    before = values(scaled)
    one_step(scaler, scaled, first, 9, math.inf, lambda: scaler.unscale_and_clip_(first, max_norm))
    assert same(before, values(scaled)) and scaler.get_scale() == 2.0**8


@kernels
def test_several_losses_groups_and_optimizers(device):
    """One optimizer's inf leaves out its step alone, and the scale falls once."""
    one, two = net(device), net(device)
    groups = [{"params": one[0].parameters()}, {"params": one[2].parameters(), "lr": 0.5}]
    optimizers = [torch.optim.SGD(groups, 0.1), torch.optim.Adam(two.parameters(), 0.1)]
    scaler = LossScaler(init_scale=64.0)
    losses = scaler.scale((loss_of(one), [loss_of(two, factor=math.inf)]))
    assert isinstance(losses, tuple) and isinstance(losses[1], list)
    losses[0].backward(retain_graph=True)
    losses[1][0].backward()
    before = values(one), values(two)
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert not same(before[0], values(one)) and same(before[1], values(two))
    assert scaler.get_scale() == 32.0


@kernels
def test_accumulation(device):
    scaled, plain = net(device), net(device)
    first, second = (torch.optim.SGD(m.parameters(), 0.1) for m in (scaled, plain))
    scaler = LossScaler(init_scale=2.0**8)
    for step in range(4):
        scaler.scale(loss_of(scaled, step)).backward()
        loss_of(plain, step).backward()
    scaler.unscale_(first)
    scaler.step(first)
    scaler.update()
    second.step()
    assert same(values(scaled), values(plain))


@kernels
def test_a_static_scale(device):
    model = net(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = LossScaler(init_scale=32.0, dynamic=False, growth_interval=1)
    before = values(model)
    for factor in (math.inf, math.nan):
        one_step(scaler, model, optimizer, 0, factor)
    assert same(before, values(model)) and scaler.get_scale() == 32.0
    one_step(scaler, model, optimizer)
    assert not same(before, values(model)) and scaler.get_scale() == 32.0


@kernels
def test_floor_ceiling_and_hysteresis(device):
    model = net(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    scaler = LossScaler(
        init_scale=4.0, growth_interval=1, min_scale=2.0, max_scale=8.0, hysteresis=2
    )
    scales = []
    for factor in (1, 1, math.inf, math.inf, math.inf, 1, math.inf):
        one_step(scaler, model, optimizer, 0, factor)
        scales.append(scaler.get_scale())
    assert scales == [8, 8, 8, 4, 2, 4, 4]


@kernels
@pytest.mark.parametrize("kind", ["LBFGS", "SGD"])
def test_closures(device, kind):
    """A step whose closure meets an inf, at once or later, is undone; others are as without."""
    scaled, plain = net(device), net(device)
    first, second = (getattr(torch.optim, kind)(m.parameters(), 0.1) for m in (scaled, plain))
    scaler = LossScaler(init_scale=2.0**6)

    def closure(model, optimizer, through, factor=lambda: 1.0):
        def evaluate():
            optimizer.zero_grad()
            loss = loss_of(model, 0, factor())
            through(loss).backward()
            return loss

        return evaluate

    for _ in range(2):
        scaler.step(first, closure(scaled, first, scaler.scale))
        scaler.update()
        second.step(closure(plain, second, lambda loss: loss))
    assert same(values(scaled), values(plain))
    for at in (0, 3) if kind == "LBFGS" else (0,):
        before = values(scaled)
        count = iter(range(100))
        bad = closure(scaled, first, scaler.scale, lambda: math.inf if next(count) >= at else 1.0)  # noqa: B023
        assert scaler.step(first, bad) is None
        scaler.update()
        assert same(before, values(scaled)) and next(count) == at + 1
    scale = scaler.get_scale()
    scaler.step(first, closure(scaled, first, scaler.scale))
    scaler.update()
    second.step(closure(plain, second, lambda loss: loss))
    assert same(values(scaled), values(plain)) and scaler.get_scale() == scale < 2.0**6
