"""Every model of the project learns under bfloat16 autocast what it learns in float32."""

import contextlib

import pytest
import torch
from detectors import SMALL, SMALL_RFCN, images_and_targets
from torch import nn

import tilewright
from tilewright.amp import LossScaler
from tilewright.models import RFCN, FasterRCNN, FasterRCNNCpp, RFCNCpp

DEFORMABLE = {"deformable_stages": 2, "deformable_pooling": True}
DETECTORS = {
    "FasterRCNN": lambda: FasterRCNN(4, **SMALL),
    "FasterRCNNCpp": lambda: FasterRCNNCpp(4, **SMALL),
    "FasterRCNN, deformable": lambda: FasterRCNN(4, **SMALL, **DEFORMABLE),
    "RFCN": lambda: RFCN(4, **SMALL_RFCN),
    "RFCNCpp, deformable": lambda: RFCNCpp(4, **SMALL_RFCN, pooling="deform_ps_roi_pool"),
}


def learned(make, loss_of, autocast, device, steps, lr):
    """The losses of so many steps, scaled: in bfloat16 the scale is as good as any."""
    torch.manual_seed(0)
    model = make().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    scaler, history = LossScaler(init_scale=2.0**10), []
    for _ in range(steps):
        torch.manual_seed(7)  # the draws of detectors
        optimizer.zero_grad()
        guard = (
            torch.autocast(device.type, torch.bfloat16) if autocast else contextlib.nullcontext()
        )
        with guard:
            loss = loss_of(model)
        scaler.scale(loss).backward()
        scaler.unscale_and_clip_(optimizer, 10.0)
        scaler.step(optimizer)
        scaler.update()
        history.append(loss.item())
    assert scaler.get_scale() == 2.0**10
    return history


def assert_alike(make, loss_of, device, steps, lr, least):
    wide = learned(make, loss_of, False, device, steps, lr)
    short = learned(make, loss_of, True, device, steps, lr)
    assert wide[-1] < least * wide[0], wide
    assert abs(short[-1] - wide[-1]) < 0.15 * wide[0], (short, wide)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(device, name):
    images, targets = images_and_targets(device)

    def loss_of(model):
        return sum(model(images, targets)[0].values())

    rate = 0.02 if "RFCN" in name else 0.005
    assert_alike(DETECTORS[name], loss_of, device, 14, rate, 0.8)


class Tokens(nn.Module):
    """Says of each token whether an earlier one was alike: needs attention."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 32)
        self.attention = tilewright.MultiheadAttention(32, 4, batch_first=True)
        self.face = nn.Linear(32, 1)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.face(x + self.attention(x, x, x, need_weights=False)[0]).squeeze(-1)


def test_attention(device):
    tokens = torch.randint(0, 6, (16, 12), generator=torch.Generator().manual_seed(1)).to(device)
    target = (tokens == tokens[:, :1]).float()

    def loss_of(model):
        return nn.functional.binary_cross_entropy_with_logits(model(tokens).float(), target)

    assert_alike(Tokens, loss_of, device, 100, 0.05, 0.6)


def test_deformable_convolution(device):
    x = torch.randn(2, 6, 14, 13, generator=torch.Generator().manual_seed(1)).to(device)
    target = x[:, :4].roll((1, 2), (2, 3))

    def loss_of(model):
        return (model(x).float() - target).square().mean()

    def make():
        return tilewright.DeformConv2d(6, 4, 3, padding=1)

    assert_alike(make, loss_of, device, 60, 0.2, 0.9)
