"""Jigsaw patches: in which order the patches of an image were laid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright.models import Jigsaw

from .representation import RepresentationRecipe, depth_for, moved_a_little


@dataclass(frozen=True)
class JigsawRecipe(RepresentationRecipe):
    """Four patches, all 24 orders, of images by `moved_a_little`.

    Attributes:
        width: channels of the encoder's first block.
        degrees: by how much an image is turned at most.
        side: smaller images are enlarged to that, so that patches show more than a dot.
        gap: pixels of a cell that a patch leaves out, on one side or the other.
    """

    steps: int = 2000
    width: int = 16
    degrees: float = 10.0
    side: int = 16
    gap: int = 2

    def prepare(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if min(height, width) >= self.side:
            return images
        scale = self.side / min(height, width)
        size = [round(height * scale), round(width * scale)]
        return F.interpolate(images, size, mode="bicubic", align_corners=False).clamp(0, 1)

    def build(self, images: Tensor) -> nn.Module:
        patch = min(images.shape[2:]) // 2 - self.gap
        return Jigsaw(images.shape[1], self.width, depth_for(images), grid=2, patch=patch)

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        count = len(images)
        places = torch.rand(count, model.grid**2, 2)
        orders = torch.randint(0, len(model.permutations), (count,))
        return {"loss": model(moved_a_little(images, self.degrees), places, orders)}


RECIPE = JigsawRecipe()
