"""What makes one vector of an image, scriptable: the twin of ``csrc/models/image_encoder.cpp``."""

import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_integers, check_tensor
from tilewright.models.batch_norm import BatchNorm
from tilewright.models.resnet import ResNet
from tilewright.models.self_supervised import check_channels


class _Layer(nn.Module):
    """A 3x3 convolution with batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x, self.conv.weight, self.stride, 1).relu_()


class ConvEncoder(nn.Module):
    """For images of 8x8 to 32x32: 3x3 convolutions of so many channels each, with batch norm and
    ReLU, of which all but the first halve the sides; then the mean over places.

    ``forward``: (N, in_channels, H, W) to (N, out_features), the last of ``widths``.
    """

    def __init__(self, in_channels: int = 1, widths: list[int] = (32, 64, 128)):
        super().__init__()
        if in_channels < 1 or not widths or min(widths) < 1:
            raise ValueError(
                "tilewright::ConvEncoder: in_channels and each of widths must be positive, got "
                f"{in_channels} and {list(widths)}"
            )
        self.in_channels = in_channels
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            self.blocks.append(_Layer(in_channels, width, 1 if i == 0 else 2))
            in_channels = width
        self.out_features = in_channels

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].mean((2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """The map of each layer, (N, widths[i], H / 2 ** i, W / 2 ** i), sides rounded up."""
        check_channels("ConvEncoder", "images", images, "(N, C, H, W)", 4, self.in_channels)
        found: list[Tensor] = []
        x = images
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found

    def quarters(self, images: Tensor) -> Tensor:
        """(N, 4 * channels): the map of the last layer but one, or of the only one, averaged over
        each quarter of the image.

        What a pretext task asks for is in the last layer; what classes need is often in those
        before (arXiv:1803.07728, table 1).
        """
        maps = self.maps(images)
        return F.adaptive_avg_pool2d(maps[max(len(maps) - 2, 0)], [2, 2]).flatten(1)


def doubling_encoder(model: str, in_channels: int, width: int, depth: int) -> ConvEncoder:
    """A ConvEncoder of ``depth`` layers, the first of ``width`` channels, each further one of twice
    as many; 3 of them leave 2x2 places of an 8x8 image, 4 leave 4x4 of 32x32."""
    check_integers(model, in_channels=in_channels, width=width, depth=depth)
    for name, value in (("in_channels", in_channels), ("width", width), ("depth", depth)):
        if value < 1:
            raise ValueError(f"tilewright::{model}: {name} must be positive, got {value}")
    return ConvEncoder(int(in_channels), [int(width) << i for i in range(depth)])


class ResNetEncoder(nn.Module):
    """The mean over places of the last stage of a ResNet, whose options these are. Grey images
    become three equal channels. ``forward``: (N, 1 or 3, H, W) to (N, out_features).
    """

    def __init__(self, depth: int = 18, **options):
        super().__init__()
        self.body = ResNet(depth, **options)
        self.out_features = self.body.stage_channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        check_tensor("tilewright::ResNetEncoder: images", images, "(N, C, H, W)")
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        return self.body(images)[-1].mean((2, 3))
