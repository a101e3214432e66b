"""Contrastive predictive coding: the patches further down, from those above."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import CPC

from .representation import RepresentationRecipe


@dataclass(frozen=True)
class CpcRecipe(RepresentationRecipe):
    """Columns of overlapping patches, as many of them whatever the image's size: a patch is half a
    side of it, and the next one begins a quarter further on.

    Attributes:
        width: channels of the patch encoder's first convolution; the second has twice as many.
        steps_ahead: that are predicted, the paper's K.
        temperature: of InfoNCE.
    """

    steps: int = 400
    batch: int = 128
    warmup: int = 20
    width: int = 32
    steps_ahead: int = 2
    temperature: float = 0.1

    def build(self, images: Tensor) -> nn.Module:
        side = min(images.shape[2:])
        return CPC(
            in_channels=images.shape[1],
            patch_size=max(side // 2, 1),
            patch_stride=max(side // 4, 1),
            widths=[self.width, 2 * self.width],
            steps=self.steps_ahead,
            temperature=self.temperature,
            summary="last",
        )

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        return {"loss": model(images)}


RECIPE = CpcRecipe()
"""The settings that `python -m tilewright train cpc` begins with."""
