"""torch.classes.tilewright.LossScaler: in TorchScript, through files, beside the Python class."""

import copy
import io
import math
from typing import List  # noqa: UP035  (TorchScript reads it)

import pytest
import torch

from tilewright.amp import LossScaler

kernels = pytest.mark.kernels


class Trainer(torch.nn.Module):
    """A model, its gradient descent and its scaler, all in TorchScript."""

    def __init__(self, scale: float, interval: int):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.scaler = torch.classes.tilewright.LossScaler(scale, 2.0, 0.5, interval)

    def forward(self, x, factor: float):
        loss = self.scaler.scale(self.layer(x).square().mean() * factor)
        weight, bias = self.layer.weight, self.layer.bias
        found = torch.autograd.grad([loss], [weight, bias])
        grads: List[torch.Tensor] = []  # noqa: UP006
        for grad in found:
            if grad is not None:
                grads.append(grad)
        self.scaler.unscale_(grads)
        stepped = self.scaler.should_step()
        if stepped:
            with torch.no_grad():
                weight.sub_(grads[0] * 0.1)
                bias.sub_(grads[1] * 0.1)
        self.scaler.update()
        return stepped


@pytest.mark.smoke
@kernels
def test_a_scripted_trainer_keeps_its_state(device):
    """Saved in the middle of growth; the Python class follows the same scale."""
    torch.manual_seed(3)
    trainer = torch.jit.script(Trainer(2.0**8, 3).to(device))
    reference = torch.nn.Linear(4, 3).to(device)
    with torch.no_grad():
        reference.weight.copy_(trainer.layer.weight), reference.bias.copy_(trainer.layer.bias)
    optimizer, python = (
        torch.optim.SGD(reference.parameters(), 0.1),
        LossScaler(init_scale=2.0**8, growth_interval=3),
    )
    for step, factor in enumerate([1.0, 1.0, math.inf, 1.0, 1.0, 1.0, math.nan, 1.0]):
        x = torch.randn(5, 4, device=device)
        optimizer.zero_grad()
        python.scale(reference(x).square().mean() * factor).backward()
        python.step(optimizer)
        python.update()
        assert trainer(x, factor) == math.isfinite(factor)
        assert trainer.scaler.get_scale() == python.get_scale()
        if step in (1, 4):
            buffer = io.BytesIO()
            torch.jit.save(trainer, buffer)
            buffer.seek(0)
            trainer = torch.jit.load(buffer)
            assert trainer.scaler.get_scale() == python.get_scale()
    torch.testing.assert_close(trainer.layer.weight, reference.weight)
    state = python.state_dict()
    assert trainer.scaler.state() == {
        name: state[name] for name in ("scale", "_growth_tracker", "_hysteresis_left")
    }


@kernels
def test_calls(device):
    scaler = torch.classes.tilewright.LossScaler(4.0, min_scale=2.0, hysteresis=2)
    with pytest.raises(RuntimeError, match=r"gradients come after a scaled loss: scale\(loss\)"):
        scaler.unscale_([torch.ones(2, device=device)])
    assert scaler.scale(torch.ones((), device=device)).item() == 4.0
    with pytest.raises(RuntimeError, match=r"update\(\) comes after unscale_\(\)"):
        scaler.update()
    norm = scaler.unscale_and_norm_([torch.full((4,), 8.0, device=device)])
    assert norm.item() == 4.0 and scaler.should_step() and scaler.found_inf().item() == 0
    scaler.update()
    bad = torch.full((2,), math.inf, device=device)
    for expected in (4.0, 2.0):
        scaler.unscale_([bad])
        assert not scaler.should_step()
        scaler.update()
        assert scaler.get_scale() == expected
    scaler.unscale_([torch.ones(1, device=device), bad])
    scaler.update()
    with pytest.raises(
        RuntimeError, match=r"at its floor, 2, and grads\[1\] of unscale_\(\) is still"
    ):
        scaler.get_scale()
    assert scaler.get_scale() == 2.0


def test_states_and_options():
    scaler = torch.classes.tilewright.LossScaler()
    assert scaler.state() == {"scale": 65536.0, "_growth_tracker": 0.0, "_hysteresis_left": 1.0}
    scaler.load_state({"scale": 8.0, "_growth_tracker": 5.0, "_hysteresis_left": 1.0})
    assert copy.deepcopy(scaler).state() == scaler.state() and scaler.get_scale() == 8.0
    with pytest.raises(RuntimeError, match="the state lacks '_growth_tracker'"):
        scaler.load_state({"scale": 8.0})
    for options, message in (
        ({"growth_factor": 0.5}, r"growth_factor must be finite and above 1, got 0\.5"),
        (
            {"init_scale": math.nan},
            "the scale must lie between the floor and .* got nan",
        ),
        (
            {"min_scale": 4.0, "max_scale": 1.0},
            r"max_scale must be at least min_scale \(4\), got 1",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.classes.tilewright.LossScaler(**options)
    off = torch.classes.tilewright.LossScaler(enabled=False)
    grads = [torch.full((2,), 4.0)]
    assert off.scale(torch.ones(2)).tolist() == [1.0, 1.0]
    off.unscale_(grads)
    off.update()
    assert grads[0].tolist() == [4.0, 4.0] and off.get_scale() == 1.0 and off.should_step()
