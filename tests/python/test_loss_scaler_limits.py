"""LossScaler at limits that float32 rounds, and arguments of the wrong kind."""

import math

import pytest
import torch
from scaler_cases import loss_of, net, one_step, same, values
from torch import nn

from tilewright.amp import LossScaleError, LossScaler


@pytest.mark.parametrize("floor", [0.1, 0.3, 1e-3, 0.7])
def test_a_floor_between_two_numbers_of_float32(floor):
    """Every infinite step at it is an error, and the scaler takes its own scale."""
    model = net("cpu")
    optimizer = torch.optim.SGD(model.named_parameters(), 0.1)
    scaler = LossScaler(init_scale=floor, min_scale=floor, max_scale=floor)
    before = values(model)
    for step in range(3):
        with pytest.raises(LossScaleError, match=r"parameter '0\.weight' of shape"):
            one_step(scaler, model, optimizer, step, math.inf)
        scaler.update()
    assert same(values(model), before)
    one_step(scaler, model, optimizer)
    scaler.update(scaler.get_scale())
    again = LossScaler(init_scale=scaler.get_scale(), min_scale=floor, max_scale=floor)
    assert again.get_scale() == scaler.get_scale() == pytest.approx(floor, rel=1e-7)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"init_scale": None}, "init_scale must be a number, got None"),
        ({"growth_factor": "2"}, "growth_factor must be a number, got '2'"),
        ({"backoff_factor": None}, "backoff_factor must be a number, got None"),
        ({"min_scale": None}, "min_scale must be a number, got None"),
        ({"max_scale": "9"}, "max_scale must be a number, got '9'"),
        ({"growth_interval": True}, "growth_interval must be a whole number .* got True"),
        ({"dynamic": "no"}, "dynamic must be True or False, got 'no'"),
        ({"enabled": None}, "enabled must be True or False, got None"),
    ],
)
def test_options_of_the_wrong_kind(options, message):
    with pytest.raises(ValueError, match=message):
        LossScaler(**options)


def test_calls_of_the_wrong_kind():
    with pytest.raises(RuntimeError, match="banana"):
        LossScaler(device="banana")
    model = net("cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = LossScaler()
    scaler.scale(loss_of(model)).backward()
    for wrong in (None, "o", model):
        with pytest.raises(TypeError, match=f"with param_groups, got {type(wrong).__name__}"):
            scaler.unscale_(wrong)
    for wrong in (math.nan, -1.0, math.inf):
        with pytest.raises(ValueError, match="eps must be finite and not negative, got"):
            scaler.unscale_and_clip_(optimizer, 1.0, eps=wrong)
    with pytest.raises(ValueError, match="max_norm must be a number, got None"):
        scaler.unscale_and_clip_(optimizer, None)
    with pytest.raises(ValueError, match="new_scale must be a number, got 'a'"):
        scaler.update("a")
    with pytest.raises(ValueError, match=r"got a tensor of shape \(2,\)"):
        scaler.update(torch.ones(2))
    for wrong in (None, "abc"):
        with pytest.raises(TypeError, match="state_dict must be a dict, got"):
            scaler.load_state_dict(wrong)
    scaler.step(optimizer)  # nothing of this was half done
    scaler.update()


def test_shared_gradients_are_told_by_their_parameters():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.named_parameters(), 0.1)
    scaler = LossScaler()
    scaler.scale(model(torch.ones(1, 3)).sum()).backward()
    model[1].weight.grad = model[0].weight.grad
    message = r"gradient of parameter '0\.weight' .* and the gradient of parameter '1\.weight'"
    with pytest.raises(RuntimeError, match=message + ".* share memory"):
        scaler.step(optimizer)
