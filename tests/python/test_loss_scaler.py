"""LossScaler: GradScaler's behaviour where that works, and the hostile cases where it does not."""

import copy
import math
import pickle
import random

import pytest
import torch
from torch import nn

from tilewright.amp import LossScaleError, LossScaler

kernels = pytest.mark.kernels
FUSED = [
    lambda p: torch.optim.SGD(p, 0.1, fused=True),
    lambda p: torch.optim.AdamW(p, 0.1, fused=True),
]
PLAIN = [
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    lambda p: torch.optim.AdamW(p, 0.1),
]
optimizers = pytest.mark.parametrize("make", PLAIN + FUSED)


def net(device, dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).to(device, dtype)


def loss_of(model, step=0, factor=1.0):
    parameter = next(model.parameters())
    torch.manual_seed(100 + step)
    x = torch.randn(5, 6).to(parameter.device, parameter.dtype)
    return model(x).float().square().mean() * factor


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def one_step(scaler, model, optimizer, step=0, factor=1.0, before=None):
    optimizer.zero_grad()
    scaler.scale(loss_of(model, step, factor)).backward()
    if before is not None:
        before()
    returned = scaler.step(optimizer)
    scaler.update()
    return returned


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
    junk = [torch.full_like(p, math.nan) for p in model.parameters()]
    del junk  # what an allocator may hand out next
    scaler = LossScaler(init_scale=8.0)
    one_step(scaler, model, optimizer, 0, math.inf)
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


@pytest.mark.parametrize("grown", [0, 2])
def test_state_goes_both_ways(grown):
    """In the middle of growth too."""
    model = net("cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    options = {
        "init_scale": 128.0,
        "growth_interval": 3,
        "growth_factor": 4.0,
        "backoff_factor": 0.25,
    }
    ours, torchs = LossScaler(**options), torch.amp.GradScaler("cpu", **options)
    for step in range(grown):
        one_step(ours, model, optimizer, step)
        one_step(torchs, model, optimizer, step)
    to_torch, to_ours = torch.amp.GradScaler("cpu"), LossScaler()
    to_torch.load_state_dict(ours.state_dict())
    to_ours.load_state_dict(torchs.state_dict())
    assert to_torch.state_dict() == torchs.state_dict()
    assert to_ours.state_dict() == ours.state_dict()
    running = LossScaler()
    one_step(running, model, optimizer, 0, math.inf)
    running.load_state_dict(ours.state_dict())
    copied = pickle.loads(pickle.dumps(ours))
    for scaler in (to_torch, to_ours, running, copied):
        for step in range(3 - grown):
            assert scaler.get_scale() == 128.0
            one_step(scaler, model, optimizer, step)
        assert scaler.get_scale() == 512.0
    assert LossScaler(enabled=False).state_dict() == {}


def test_not_enabled():
    scaled, plain = net("cpu"), net("cpu")
    first, second = (torch.optim.SGD(m.parameters(), 0.1) for m in (scaled, plain))
    scaler = LossScaler(enabled=False)
    one_step(scaler, scaled, first, 0, 1.0, lambda: scaler.unscale_(first))
    loss_of(plain).backward()
    second.step()
    assert same(values(scaled), values(plain)) and scaler.get_scale() == 1.0
    scaler.load_state_dict({})


def test_calls_out_of_order():
    model = net("cpu")
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), LossScaler()
    with pytest.raises(RuntimeError, match=r"step\(\) comes after scale\(loss\)\.backward\(\)"):
        scaler.step(optimizer)
    scaler.scale(loss_of(model)).backward()
    with pytest.raises(RuntimeError, match=r"update\(\) comes after step\(\) or unscale_\(\)"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="between"):
        pickle.dumps(scaler)
    with pytest.raises(RuntimeError, match="closure comes once after update"):
        scaler.step(optimizer, lambda: None)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step\(\)"):
        scaler.unscale_(optimizer)
    scaler.update()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"init_scale": math.inf}, "a scale must be finite and not negative, got inf"),
        ({"growth_factor": 1.0}, "growth_factor must be above 1, got 1.0"),
        ({"backoff_factor": 1.0}, r"backoff_factor must lie in \(0, 1\), got 1.0"),
        ({"growth_interval": 0}, "growth_interval must be positive, got 0"),
        ({"hysteresis": 0}, "hysteresis must be positive, got 0"),
        ({"min_scale": -1.0}, "min_scale must not be negative, got -1.0"),
        ({"min_scale": 4.0, "max_scale": 2.0}, r"at least min_scale \(4.0\), got 2.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LossScaler(**options)


def test_bad_calls():
    scaler = LossScaler()
    with pytest.raises(
        ValueError, match="takes a tensor or an iterable of them, got <class 'float'>"
    ):
        scaler.scale(1.0)
    scaler.scale(torch.ones(1))
    before = scaler.state_dict()
    for wrong in ({"scale": -1.0}, {"growth_interval": 0}, {"growth_factor": 0.5}):
        with pytest.raises(ValueError, match="got"):
            scaler.load_state_dict(before | wrong)
    with pytest.raises(KeyError):
        scaler.load_state_dict({"scale": 1.0})
    with pytest.raises(RuntimeError, match="The source state dict is empty"):
        scaler.load_state_dict({})
    assert scaler.state_dict() == before
