"""update_scale_ against torch's rule and by hand."""

import math
import random

import pytest
import torch
from checks import NoSynchronisation, opcheck, script_round_trip
from conftest import MACHINE

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


class State:
    def __init__(self, device, scale=65536.0, hysteresis=None):
        self.scale = torch.full((1,), scale, device=device)
        self.growth = torch.zeros(1, dtype=torch.int32, device=device)
        self.hysteresis = None
        if hysteresis is not None:
            self.hysteresis = torch.full((1,), hysteresis, dtype=torch.int32, device=device)

    def update(self, bad, growth=2.0, backoff=0.5, interval=3, low=0.0, high=None, hysteresis=1):
        found = torch.full((1,), float(bad), device=self.scale.device)
        ops.update_scale_(
            self.scale,
            self.growth,
            found,
            growth,
            backoff,
            interval,
            low,
            high,
            self.hysteresis,
            hysteresis,
        )
        return self.scale.item()


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("growth,backoff,interval", [(2.0, 0.5, 7), (1.7, 0.3, 2), (4.0, 0.9, 1)])
def test_torchs_rule_over_random_events(device, growth, backoff, interval):
    """Down to 0 and up to the largest number."""
    draw = random.Random(3)
    ours = State(device)
    scale, tracker = torch.full((1,), 65536.0), torch.zeros(1, dtype=torch.int32)
    seen = set()
    rate = 0.1
    for step in range(2000 if MACHINE == "cpu" else 400):
        if step % 200 == 0:
            rate = draw.choice([0.0, 0.02, 0.3, 1.0])
        bad = draw.random() < rate
        found = torch.full((1,), float(bad))
        torch._amp_update_scale_(scale, tracker, found, growth, backoff, interval)
        assert ours.update(bad, growth, backoff, interval) == scale.item()
        assert ours.growth.item() == tracker.item()
        seen.add(scale.item())
    assert len(seen) > 10


@kernels
def test_floor_and_ceiling(device):
    state = State(device, 8.0)
    assert [state.update(True, low=1.0) for _ in range(5)] == [4.0, 2.0, 1.0, 1.0, 1.0]
    found = [state.update(False, interval=1, growth=3.0, high=20.0) for _ in range(5)]
    assert found == [3.0, 9.0, 20.0, 20.0, 20.0]
    largest = State(device, 2.0**127)
    assert largest.update(False, interval=1) == 2.0**127  # twice as much would be infinite
    assert largest.growth.item() == 0


@kernels
def test_hysteresis_by_hand(device):
    """Three bad steps in a row before the scale falls; a clean one and all begins again."""
    state = State(device, 16.0, hysteresis=3)
    events = [1, 1, 0, 1, 1, 1, 1, 0, 1]
    scales = [state.update(bad, hysteresis=3, interval=100) for bad in events]
    assert scales == [16, 16, 16, 16, 16, 8, 4, 4, 4]
    assert state.hysteresis.item() == 2 and state.growth.item() == 0
    state.update(False, hysteresis=3, interval=100)
    assert state.hysteresis.item() == 3 and state.growth.item() == 1


@kernels
def test_a_tracker_at_its_end(device):
    scale, tracker = torch.ones(1, device=device), torch.tensor([2**31 - 1]).int().to(device)
    ops.update_scale_(scale, tracker, torch.zeros(1, device=device), 2.0, 0.5, 2**31 - 1)
    assert (scale.item(), tracker.item()) == (2.0, 0)


@kernels
def test_bad_input(device):
    state = State(device)
    given = (state.scale, state.growth, torch.zeros(1, device=device))
    for numbers, message in (
        ((0.0, 0.5, 1), "growth_factor must be positive and finite, got 0"),
        ((2.0, math.nan, 1), "backoff_factor must be positive and finite, got nan"),
        ((2.0, 0.5, 0), r"growth_interval must lie in \[1, 2\^31\), got 0"),
        ((2.0, 0.5, 1, -1.0), "min_scale must be finite in float32 and not neg.* got -1"),
        ((2.0, 0.5, 1, 1e300), "min_scale must be finite in float32 .* got 1e.300"),
        ((2.0, 0.5, 1, 2.0, 1.0), r"max_scale must not be below min_scale \(2\), got 1"),
        ((2.0, 0.5, 1, 0.0, None, None, 0), "hysteresis must lie in"),
        ((2.0, 0.5, 1, 0.0, None, None, 2), "hysteresis 2 needs a hysteresis_tracker"),
    ):
        with pytest.raises(RuntimeError, match="tilewright::update_scale_: " + message):
            ops.update_scale_(*given, *numbers)
    with pytest.raises(RuntimeError, match="growth_tracker must be one number of Int"):
        ops.update_scale_(state.scale, state.growth.float(), given[2], 2.0, 0.5, 1)
    assert state.scale.item() == 65536 and state.growth.item() == 0
    state.update(True)


def updated(scale: torch.Tensor, growth: torch.Tensor, found: torch.Tensor):
    torch.ops.tilewright.update_scale_(scale, growth, found, 2.0, 0.5, 2000)
    return scale


@kernels
def test_opcheck_script_versions(device):
    state, found = State(device, hysteresis=1), torch.zeros(1, device=device)
    opcheck(ops.update_scale_.default, (state.scale, state.growth, found, 2.0, 0.5, 10))
    opcheck(
        ops.update_scale_.default,
        (state.scale, state.growth, found, 2.0, 0.5, 10, 0.0, 8.0, state.hysteresis, 1),
    )
    version = state.scale._version
    script_round_trip(updated, state.scale, state.growth, found + 1)
    assert state.scale.item() == 32768 and state.scale._version == version + 1
    if MACHINE != "cpu":
        with NoSynchronisation():
            updated(state.scale, state.growth, found)
