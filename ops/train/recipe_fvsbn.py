"""FVSBN: a logistic regression of each pixel on those before it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import FVSBN

from .density import DensityRecipe


@dataclass(frozen=True)
class FvsbnRecipe(DensityRecipe):
    """Pixels in the order of reading.

    Attributes:
        precision: of the weights' Gaussian prior, what suits a fifth of the training digits best.
            AdamW's decay, which follows the learning rate, does not find that optimum.
    """

    steps: int = 6000
    learning_rate: float = 3e-2
    weight_decay: float = 0.0
    checkpoint_every: int = 2000
    precision: float = 1.6

    def build(self, images: Tensor) -> nn.Module:
        return FVSBN(images[0].numel())

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        if self.images < 1:
            raise ValueError("tilewright.train: fvsbn's prior needs `images`, as many as it learns")
        energy = self.precision / 2 * model.linear.weight.square().sum()
        return super().losses(model, images) | {"prior": energy / self.images}


RECIPE = FvsbnRecipe()
"""The settings that `python -m tilewright train fvsbn` begins with."""
