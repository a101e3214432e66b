"""Deep InfoMax: the vector of one view of an image against the places of another view."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import DeepInfoMax

from .representation import RepresentationRecipe, depth_for, moved_a_little


@dataclass(frozen=True)
class DimRecipe(RepresentationRecipe):
    """Two views of each image, by `moved_a_little`.

    Attributes:
        width: channels of the encoder's first block.
        degrees: by how much a view is turned at most.
        temperature: of the loss.
    """

    steps: int = 800
    width: int = 32
    degrees: float = 15.0
    temperature: float = 0.2

    def build(self, images: Tensor) -> nn.Module:
        return DeepInfoMax(
            images.shape[1], self.width, depth_for(images), temperature=self.temperature
        )

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        first, second = (moved_a_little(images, self.degrees) for _ in range(2))
        return {"loss": model(first, second)}


RECIPE = DimRecipe()
