"""LossScaler's states, what comes out of order, what raises, optimizers of other habits."""

import contextlib
import math
import pickle

import pytest
import torch
from scaler_cases import FUSED, loss_of, net, one_step, same, values

from tilewright.amp import LossScaleError, LossScaler


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
        ({"init_scale": math.inf}, r"init_scale must lie between .*1\.17549e-38 and .* got inf"),
        ({"init_scale": 1e39}, "init_scale must lie between the floor and the ceiling"),
        ({"init_scale": 1.0, "min_scale": 4.0}, r"floor and the ceiling, 4 and .* got 1\.0"),
        ({"max_scale": 1024.0}, r"1\.17549e-38 and 1024, got 65536\.0"),
        ({"growth_factor": 1.0}, r"growth_factor must be finite and above 1, got 1\.0"),
        ({"growth_factor": math.inf}, "growth_factor must be finite and above 1, got inf"),
        ({"backoff_factor": 1.0}, r"backoff_factor must lie in \(0, 1\), got 1\.0"),
        ({"growth_interval": 0}, r"growth_interval must be a whole number in \[1, 2\^31\), got 0"),
        ({"growth_interval": 2.5}, r"growth_interval must be a whole number .* got 2\.5"),
        ({"growth_interval": 2**31}, r"growth_interval must be a whole number .* got 2147483648"),
        ({"hysteresis": 0}, "hysteresis must be a whole number .* got 0"),
        ({"min_scale": -1.0}, r"min_scale must be finite and not negative, got -1\.0"),
        ({"min_scale": math.inf}, "min_scale must be finite and not negative, got inf"),
        ({"min_scale": 4.0, "max_scale": 2.0}, r"at least min_scale \(4\.0\), got 2\.0"),
        ({"device": 1024.0}, r"device must be a device, and comes before init_scale, got 1024\.0"),
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
    for wrong in (
        {"scale": -1.0},
        {"scale": 1e39},
        {"growth_interval": 0},
        {"growth_factor": 0.5},
        {"_growth_tracker": 2**31},
        {"_growth_tracker": -1},
        {"_hysteresis_left": "x"},
    ):
        with pytest.raises(ValueError, match="got"):
            scaler.load_state_dict(before | {"scale": 3.0} | wrong)
        assert scaler.state_dict() == before
    for wrong in (math.nan, -4.0, math.inf):
        for new_scale in (wrong, torch.tensor(wrong)):
            with pytest.raises(ValueError, match="new_scale must lie between the floor"):
                scaler.update(new_scale)
    scaler.load_state_dict(before | {"scale": 0.0})  # a GradScaler's that has fallen
    assert scaler.get_scale() == 2.0**-126
    scaler.load_state_dict(before)
    with pytest.raises(KeyError):
        scaler.load_state_dict({"scale": 1.0})
    with pytest.raises(RuntimeError, match="The source state dict is empty"):
        scaler.load_state_dict({})
    assert scaler.state_dict() == before


def test_a_step_without_gradients_is_a_clean_one():
    model = net("cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = LossScaler(init_scale=2.0, growth_interval=1)
    scaler.scale(loss_of(model))
    assert scaler.unscale_and_clip_(optimizer, 1.0).item() == 0
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1), FUSED[1]])
def test_a_step_that_raises_may_be_tried_again(make, monkeypatch):
    model, plain = net("cpu"), net("cpu")
    optimizer, second = make(model.parameters()), make(plain.parameters())
    scaler = LossScaler(init_scale=2.0**6)
    scaler.scale(loss_of(model)).backward()
    with monkeypatch.context() as patch:

        def broken(*_):
            raise ValueError("full disk")

        patch.setattr(type(optimizer), "step", broken)
        with pytest.raises(ValueError, match="full disk"):
            scaler.step(optimizer)
    scaler.step(optimizer)
    scaler.update()
    loss_of(plain).backward()
    second.step()
    assert same(values(model), values(plain))


def test_a_closure_that_raises_locks_nothing():
    model = net("cpu")
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), LossScaler(init_scale=4.0)

    def broken():
        scaler.scale(loss_of(model)).backward()
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        scaler.step(optimizer, broken)
    one_step(scaler, model, optimizer)


class Swallows(torch.optim.SGD):
    """Goes on whatever its closure does, and counts in its groups."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
        loss = None
        with contextlib.suppress(Exception):
            loss = closure()
        super().step()
        return loss


def test_an_optimizer_that_takes_any_exception():
    model = net("cpu")
    optimizer, scaler = Swallows(model.parameters(), 0.1), LossScaler(init_scale=4.0)
    optimizer.param_groups[0]["count"] = 5
    before = values(model)

    def closure():
        optimizer.zero_grad()
        scaler.scale(loss_of(model, 0, math.inf)).backward()

    assert scaler.step(optimizer, closure) is None
    scaler.update()
    assert same(before, values(model)) and optimizer.param_groups[0]["count"] == 5


class AsksForAScaler(torch.optim.SGD):
    """As GradScaler's older interface has it."""

    _step_supports_amp_scaling = True

    def step(self, closure=None, *, grad_scaler=None):
        return super().step(closure)


def test_an_optimizer_that_asks_for_a_scaler_gets_true_gradients():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer, scaler = AsksForAScaler([p], 1.0), LossScaler(init_scale=8.0)
    for factor, expected in ((1.0, 0.0), (math.inf, 0.0)):
        optimizer.zero_grad()
        scaler.scale(p.sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert p.tolist() == [expected] * 2


def test_a_scale_of_the_users_own_is_multiplied_in():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer, scaler = torch.optim.SGD([p], 1.0, fused=True), LossScaler(init_scale=8.0)
    scaler.scale(p.sum()).backward()
    optimizer.grad_scale = torch.tensor(4.0)
    scaler.step(optimizer)
    assert p.tolist() == [0.75, 0.75]


@pytest.mark.parametrize("max_norm", [1.0, math.inf])
@pytest.mark.parametrize("fused", [False, True])
def test_a_norm_beyond_float32_leaves_the_step_out(max_norm, fused):
    p = torch.nn.Parameter(torch.ones(200))
    optimizer, scaler = torch.optim.SGD([p], 1.0, fused=fused), LossScaler(init_scale=4.0)
    scaler.scale(p.sum())
    p.grad = torch.full_like(p, 3e38)
    scaler.unscale_and_clip_(optimizer, max_norm)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [1.0] * 200 and scaler.get_scale() == 2.0
    p.grad = torch.full_like(p, 2.0)
    assert scaler.unscale_and_clip_(optimizer, math.inf).isfinite()
    scaler.step(optimizer)
    assert p.tolist() == [0.0] * 200


def test_other_ranks_raise_at_the_floor_too(monkeypatch):
    """What another rank found is an error here as there, or the ranks part."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda found, *_, **__: found.fill_(1))
    for fused in (False, True):
        p = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([p], 1.0, fused=fused)
        scaler = LossScaler(init_scale=1.0, min_scale=1.0, process_group=object())
        scaler.scale(p.sum()).backward()
        with pytest.raises(LossScaleError, match="a parameter of another rank"):
            scaler.step(optimizer)
            scaler.update()
            scaler.get_scale()
        assert p.tolist() == [1.0, 1.0]
    assert pickle.loads(pickle.dumps(LossScaler(process_group=object()))).get_scale() == 65536


def test_a_compiled_step():
    """The scaler's own calls stay outside of the graph."""
    model, plain = net("cpu"), net("cpu")
    make = FUSED[1]
    optimizer, second = make(model.parameters()), make(plain.parameters())
    scaler = LossScaler(init_scale=2.0**7)

    def step(x):
        optimizer.zero_grad()
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    compiled = torch.compile(step, backend="aot_eager")
    for _ in range(3):
        x = torch.randn(5, 6)
        compiled(x)
        second.zero_grad()
        plain(x).square().mean().backward()
        second.step()
    for p, q in zip(values(model), values(plain), strict=True):
        torch.testing.assert_close(p, q)
