"""Random changes that leave what images show: turned, sheared, scaled and moved a little."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(
    images: Tensor,
    degrees: float = 15.0,
    scale: float = 0.15,
    shear: float = 0.15,
    shift: float = 0.05,
) -> Tensor:
    """Each image by an affine map of its own, drawn by torch's random numbers.

    Args:
        images: (N, C, H, W), floating. Samples are bilinear; what comes from outside is 0.
        degrees: by how much images are turned at most, to either side.
        scale: sides are multiplied by numbers in 1 - scale .. 1 + scale, each by its own.
        shear: rows move across by up to so many of their distances from the middle.
        shift: moves by up to that share of the side, down and across.

    Returns:
        (N, C, H, W)
    """
    n, (height, width) = len(images), images.shape[2:]
    draw = 2.0 * torch.rand(6, n, dtype=images.dtype, device=images.device) - 1.0
    angle = draw[0] * (degrees * math.pi / 180.0)
    cos, sin = angle.cos(), angle.sin()
    wide, high, lean = 1.0 + scale * draw[1], 1.0 + scale * draw[2], shear * draw[3]
    # Maps places of the result to those of the image, in halves of its sides (H = W assumed by the
    # turn alone: elsewhere it shears a little).
    rows = [
        torch.stack([cos * wide, cos * lean - sin * high, 2.0 * shift * draw[4]], dim=1),
        torch.stack([sin * wide, sin * lean + cos * high, 2.0 * shift * draw[5]], dim=1),
    ]
    grid = F.affine_grid(
        torch.stack(rows, dim=1), [n, images.shape[1], height, width], align_corners=False
    )
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)
