"""Rotation prediction: by how many quarter turns an image was turned."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import RotationPrediction

from .representation import RepresentationRecipe, depth_for, moved_a_little


@dataclass(frozen=True)
class RotationRecipe(RepresentationRecipe):
    """Images by `moved_a_little`, before they are turned.

    Attributes:
        width: channels of the encoder's first block.
        degrees: by how much an image is turned besides.
    """

    steps: int = 3000
    width: int = 32
    degrees: float = 15.0

    def build(self, images: Tensor) -> nn.Module:
        return RotationPrediction(images.shape[1], self.width, depth_for(images))

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        return {"loss": model(moved_a_little(images, self.degrees))}


RECIPE = RotationRecipe()
