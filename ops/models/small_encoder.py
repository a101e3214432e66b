"""The convolutional encoder of small images (8x8 to 32x32) that self-supervised methods train."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_images(name: str, images: Tensor, channels: int) -> None:
    """Raises ValueError unless images are (N, channels, H, W) of a floating dtype."""
    if images.dim() != 4 or images.size(1) != channels:
        raise ValueError(
            f"tilewright::{name}: images must have shape (N, {channels}, H, W), "
            f"got {list(images.shape)}"
        )
    if not images.is_floating_point():
        raise ValueError(f"tilewright::{name}: images must be floating, got {images.dtype}")


class ConvBlock(nn.Module):
    """3x3 convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class SmallEncoder(nn.Module):
    """Blocks of 3x3 convolution, batch norm and ReLU, averaged over places at the end.

    The first block keeps the size; each further one halves it, rounded up, and doubles channels.

    Args:
        in_channels: of the images.
        width: channels of the first block.
        depth: number of blocks; 3 leave 2x2 places of an 8x8 image, 4 leave 4x4 of 32x32.

    Attributes:
        features: length of a representation, ``width * 2 ** (depth - 1)``.
    """

    def __init__(self, in_channels: int = 1, width: int = 32, depth: int = 3):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"tilewright::SmallEncoder: {name} must be positive, got {value}")
        self.in_channels = in_channels
        self.blocks = nn.ModuleList()
        channels = in_channels
        for i in range(depth):
            self.blocks.append(ConvBlock(channels, width << i, 1 if i == 0 else 2))
            channels = width << i
        self.features = channels

    def forward(self, images: Tensor) -> Tensor:
        """images (N, in_channels, H, W) -> (N, features): the mean over the places of the map."""
        return self.maps(images)[-1].mean(dim=[2, 3])

    def quarters(self, images: Tensor) -> Tensor:
        """images -> (N, 4 * channels): the map of the last block but one, or of the only one,
        averaged over each quarter of the image.

        What a pretext task asks for is in the last block; what classes need is often in those
        before (arXiv:1803.07728 found so too).
        """
        maps = self.maps(images)
        return F.adaptive_avg_pool2d(maps[max(len(maps) - 2, 0)], [2, 2]).flatten(1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The map of each block, (N, width * 2 ** i, H / 2 ** i, W / 2 ** i)."""
        check_images("SmallEncoder", images, self.in_channels)
        found: list[Tensor] = []
        x = images
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found
