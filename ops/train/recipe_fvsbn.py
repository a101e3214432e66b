"""FVSBN: a logistic regression of each pixel on those before it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import FVSBN

from .density import DensityRecipe


@dataclass(frozen=True)
class FvsbnRecipe(DensityRecipe):
    """Pixels in the order of reading."""

    steps: int = 6000
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    checkpoint_every: int = 2000

    def build(self, images: Tensor) -> nn.Module:
        return FVSBN(images[0].numel())


RECIPE = FvsbnRecipe()
"""The settings that `python -m tilewright train fvsbn` begins with."""
