"""NADE: the next pixel from a hidden layer that saw those before it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import NADE

from .density import DensityRecipe


@dataclass(frozen=True)
class NadeRecipe(DensityRecipe):
    """A NADE whose pixels come in the order of reading.

    Attributes:
        hidden: units.
    """

    steps: int = 10_000
    weight_decay: float = 0.1
    checkpoint_every: int = 2000
    hidden: int = 500

    def build(self, images: Tensor) -> nn.Module:
        return NADE(images[0].numel(), self.hidden)


RECIPE = NadeRecipe()
"""The settings that `python -m tilewright train nade` begins with."""
