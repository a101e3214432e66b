"""Small models and their steps under a loss scaler, for its tests."""

import pytest
import torch
from torch import nn

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
