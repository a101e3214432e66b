"""What makes one vector of an image, scriptable: the twin of ``csrc/models/image_encoder.cpp``."""

from torch import Tensor, nn

from tilewright.models.batch_norm import BatchNorm
from tilewright.models.resnet import ResNet


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
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            self.blocks.append(_Layer(in_channels, width, 1 if i == 0 else 2))
            in_channels = width
        self.out_features = in_channels

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


class ResNetEncoder(nn.Module):
    """The mean over places of the last stage of a ResNet, whose options these are. Grey images
    become three equal channels. ``forward``: (N, 1 or 3, H, W) to (N, out_features).
    """

    def __init__(self, depth: int = 18, **options):
        super().__init__()
        self.body = ResNet(depth, **options)
        self.out_features = self.body.stage_channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        return self.body(images)[-1].mean((2, 3))
