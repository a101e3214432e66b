"""SimCLR: two random views of each image, told apart from the views of all others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tilewright.models import Augmentation, SimCLR

from .representation import RepresentationRecipe, depth_for


@dataclass(frozen=True)
class SimclrRecipe(RepresentationRecipe):
    """Views by `tilewright.models.Augmentation`: its recipe "digits" for grey images and
    "photographs" for coloured ones.

    Attributes:
        width: channels of the encoder's first block.
        temperature: of NT-Xent.
    """

    steps: int = 600
    batch: int = 256
    warmup: int = 20
    width: int = 32
    temperature: float = 0.2

    def build(self, images: Tensor) -> nn.Module:
        return SimCLR(
            in_channels=images.shape[1],
            widths=[self.width << i for i in range(depth_for(images))],
            temperature=self.temperature,
        )

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        view = Augmentation("digits" if images.shape[1] == 1 else "photographs")
        return {"loss": model(view(images), view(images))}


RECIPE = SimclrRecipe()
"""The settings that `python -m tilewright train simclr` begins with."""
