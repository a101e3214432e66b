"""LossScaler: GradScaler's behaviour where that works, and the hostile cases where it does not."""

import copy
import math
import random

import pytest
import torch
from scaler_cases import loss_of, net, one_step, optimizers, same, values
from torch import nn

from tilewright.amp import LossScaleError, LossScaler

kernels = pytest.mark.kernels


@kernels
@pytest.mark.smoke
@optimizers
def test_steps_are_those_without_a_scaler(device, make):
    """Powers of 2 change no digit."""
    scaled, plain = net(device), net(device)
    first, second = make(scaled.parameters()), make(plain.parameters())
    scaler = LossScaler(init_scale=2.0**10, growth_interval=2)
    for step in range(6):
        one_step(scaler, scaled, first, step)
        second.zero_grad()
        loss_of(plain, step).backward()
        second.step()
    assert same(values(scaled), values(plain))
    assert scaler.get_scale() == 2.0**13


@kernels
@optimizers
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_steps_of_inf_and_nan_change_nothing(device, make, bad):
    model = net(device)
    optimizer = make(model.parameters())
    scaler = LossScaler(init_scale=8.0)
    one_step(scaler, model, optimizer)
    before, state = values(model), copy.deepcopy(optimizer.state_dict())
    one_step(scaler, model, optimizer, 1, bad)
    assert same(before, values(model)) and scaler.get_scale() == 4.0
    for old, new in zip(
        state["state"].values(), optimizer.state_dict()["state"].values(), strict=True
    ):
        for name, value in old.items():
            assert value is None or torch.equal(value, new[name]), name
    one_step(scaler, model, optimizer, 2)
    assert not same(before, values(model)) and all(p.isfinite().all() for p in model.parameters())


@kernels
def test_a_first_step_left_out(device):
    """torch's fused SGD makes its momentum buffers by then, and never writes to them."""
    model = net(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=True)
    plain = net(device)
    second = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9)
    scaler = LossScaler(init_scale=8.0)
    one_step(scaler, model, optimizer, 0, math.inf)
    assert not any(optimizer.state.values())  # no buffer was made
    for step in range(2):
        one_step(scaler, model, optimizer, step)
        second.zero_grad()
        loss_of(plain, step).backward()
        second.step()
    for p, q in zip(values(model), values(plain), strict=True):
        torch.testing.assert_close(p, q)


@kernels
def test_the_scale_is_gradscalers_over_ten_thousand_events(device):
    """With hysteresis 1 and no floor or ceiling; gradients by hand, so that events are cheap."""
    draw = random.Random(5)
    options = {"init_scale": 2.0**20, "growth_interval": 3}
    ours = LossScaler(min_scale=0.0, **options)
    torchs = torch.amp.GradScaler(device.type, **options)
    parameters = [nn.Parameter(torch.ones(1, device=device)) for _ in range(2)]
    both = [torch.optim.SGD([p], 0.0) for p in parameters]
    events = 10000 if device.type == "cpu" else 500
    rate, seen = 0.2, set()
    for event in range(events):
        if event % 20 == 0:
            rate = draw.choice([0.0, 0.1, 0.25, 0.5, 0.9])
            if not 2.0**-60 < ours.get_scale() < 2.0**100:
                rate = 0.0 if ours.get_scale() < 1 else 0.9
        value = draw.choice([math.inf, -math.inf, math.nan]) if draw.random() < rate else 1.0
        for scaler, parameter, optimizer in zip((ours, torchs), parameters, both, strict=True):
            scaler.scale(torch.zeros(1, device=device))
            parameter.grad = torch.full((1,), value, device=device)
            scaler.step(optimizer)
            scaler.update()
        assert ours.get_scale() == torchs.get_scale()
        seen.add(ours.get_scale())
    assert len(seen) > 30
    theirs, own = torchs.state_dict(), ours.state_dict()
    assert {name: own[name] for name in theirs} == theirs


@kernels
@optimizers
def test_two_hundred_overflows_and_a_healthy_step(device, make):
    """GradScaler's scale reaches 0 here, and the healthy step writes NaN."""
    model = net(device)
    optimizer, scaler = make(model.parameters()), LossScaler(init_scale=2.0**16)
    before, raised = values(model), 0
    for step in range(200):
        try:
            one_step(scaler, model, optimizer, step, math.inf)
        except LossScaleError as error:
            assert "parameter 0 of param_groups[0], of shape (8, 6)" in str(error)
            raised += 1
            scaler.update()
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        assert raised == 200 - 16 - 126
        assert scaler.get_scale() == 2.0**-126
    else:  # the next read on the host
        with pytest.raises(LossScaleError, match=r"is at its floor, 1\.17549e-38"):
            scaler.get_scale()
        assert scaler.get_scale() == 2.0**-126
    assert same(before, values(model))
    one_step(scaler, model, optimizer)
    assert not same(before, values(model)) and all(p.isfinite().all() for p in model.parameters())


@kernels
def test_a_scale_of_zero_is_harmless(device):
    model = net(device)
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), LossScaler(min_scale=0.0)
    scaler.scale(loss_of(model))
    scaler.update(0.0)
    before = values(model)
    for step in range(3):
        with pytest.raises(LossScaleError, match="its floor, 0, and the gradient of parameter 0"):
            one_step(scaler, model, optimizer, step)
        scaler.update(0.0)
    assert same(before, values(model))


@kernels
def test_names_of_parameters(device):
    model = net(device)
    optimizer = torch.optim.SGD(model.named_parameters(), 0.1)
    scaler = LossScaler(init_scale=1.0, min_scale=1.0)
    optimizer.zero_grad()
    scaler.scale(loss_of(model)).backward()
    model[2].bias.grad[1] = math.nan
    with pytest.raises(LossScaleError, match=r"parameter '2\.bias' of shape \(2,\) is still inf"):
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 1.0  # said once


@kernels
def test_what_overflows_by_unscaling_is_found(device):
    """A scale below 1: finite gradients whose quotients are not. GradScaler applies them."""
    p = nn.Parameter(torch.ones(3, device=device))
    optimizer, scaler = torch.optim.SGD([p], 0.1), LossScaler(init_scale=2.0**-100)
    scaler.scale(p.sum())
    p.grad = torch.full((3,), 2.0**60, device=device)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [1.0] * 3 and scaler.get_scale() == 2.0**-101


@kernels
def test_parameters_of_every_kind(device):
    """Without gradient, empty, of float16 and float64, with sparse gradients."""
    embedding = nn.Embedding(9, 4, sparse=True, device=device)
    parameters = [
        nn.Parameter(torch.ones(3, device=device)),
        nn.Parameter(torch.ones(0, device=device)),
        nn.Parameter(torch.ones(3, device=device, dtype=torch.float16)),
        nn.Parameter(torch.ones(3, device=device, dtype=torch.float64)),
        embedding.weight,
    ]
    optimizer, scaler = torch.optim.SGD(parameters, 1.0), LossScaler(init_scale=4.0)
    before = embedding.weight.detach().clone()
    index = torch.tensor([2, 5, 2], device=device)
    for bad in (True, False):
        optimizer.zero_grad()
        loss = parameters[1].sum() + parameters[2].float().sum() + parameters[3].sum().float()
        scaler.scale(loss + embedding(index).sum()).backward()
        if bad:
            parameters[4].grad._values()[2, 1] = math.inf
        scaler.step(optimizer)
        scaler.update()
        if bad:
            assert torch.equal(before, embedding.weight) and parameters[3].tolist() == [1.0] * 3
    expected = before.clone()
    expected[2] -= 2
    expected[5] -= 1
    torch.testing.assert_close(embedding.weight.detach(), expected)
    assert parameters[0].tolist() == [1.0] * 3 and parameters[2].tolist() == [0.0] * 3
    assert scaler.get_scale() == 2.0
