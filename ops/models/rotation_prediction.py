"""Rotation prediction: representations that tell which way up an image is."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_tensor
from tilewright.models.image_encoder import doubling_encoder
from tilewright.models.self_supervised import check_some


class RotationPrediction(nn.Module):
    """Gidaris et al. 2018 (arXiv:1803.07728): every image is shown turned by 0, 90, 180 and 270
    degrees, and classified by which.

    Args:
        in_channels, width, depth: of the encoder, a ConvEncoder: channels of its first layer, each
            further one having twice as many, and the number of layers.
    """

    def __init__(self, in_channels: int = 1, width: int = 32, depth: int = 3):
        super().__init__()
        self.encoder = doubling_encoder("RotationPrediction", in_channels, width, depth)
        self.classifier = nn.Linear(self.encoder.out_features, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Mean cross entropy over four copies of each of the images (N, C, S, S), N > 0."""
        check_some("RotationPrediction", images)
        turns = torch.arange(4, device=images.device).repeat_interleave(images.size(0))
        return F.cross_entropy(self.scores(turned(images)), turns)

    @torch.jit.export
    def scores(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4): logits of the quarter turns, against the clock, of each."""
        return self.classifier(self.encoder(images))

    @torch.jit.export
    def represent(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2 * features): the quarters of the last block but one."""
        return self.encoder.quarters(images)


def turned(images: Tensor) -> Tensor:
    """(N, C, S, S) -> (4 N, C, S, S): all images, then all of them turned by 90 degrees against the
    clock, by 180, by 270."""
    check_tensor("tilewright::turned: images", images, "(N, C, S, S)")
    if images.dim() != 4 or images.size(2) != images.size(3):
        raise ValueError(
            f"tilewright::turned: images must have shape (N, C, S, S), got {list(images.shape)}"
        )
    return torch.cat([torch.rot90(images, k, [2, 3]) for k in range(4)])
