"""MADE: an autoencoder under masks, in several orders of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilewright.models import MADE

from .density import DensityRecipe


@dataclass(frozen=True)
class MadeRecipe(DensityRecipe):
    """An ensemble over masks, all of which keep the order of reading, so that halves of images can
    be completed; each batch trains a member of it.

    Attributes:
        hidden: units of each hidden layer.
        num_masks: members.
    """

    steps: int = 10_000
    checkpoint_every: int = 2000
    hidden: tuple[int, ...] = (500,)
    num_masks: int = 16

    def build(self, images: Tensor) -> nn.Module:
        return MADE(images[0].numel(), self.hidden, num_masks=self.num_masks, seed=self.seed)

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        member = int(torch.randint(self.num_masks, ()))
        return {"loss": -model.log_prob_of(images.flatten(1), member).mean()}


RECIPE = MadeRecipe()
"""The settings that `python -m tilewright train made` begins with."""
