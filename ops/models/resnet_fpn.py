"""ResNet with a feature pyramid, scriptable: the default backbone of the detectors.

The layers, names and initialisation are those of ``csrc/models/resnet.cpp`` and
``csrc/models/feature_pyramid.cpp``, which are torchvision's.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv:1512.03385, figure 2)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                _convolution(in_channels, channels, 1, stride), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out))
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x)
        return out.add_(shortcut).relu_()


class ResNet(nn.Module):
    """Stem and four stages; ``blocks`` per stage, (2, 2, 2, 2) being ResNet-18."""

    def __init__(self, blocks: tuple[int, int, int, int] = (2, 2, 2, 2)):
        super().__init__()
        self.conv1 = _convolution(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.stage_channels = [64, 128, 256, 512]
        in_channels = 64
        for i, (count, channels) in enumerate(zip(blocks, self.stage_channels, strict=True)):
            stage = []
            for block in range(count):
                stage.append(BasicBlock(in_channels, channels, 2 if block == 0 and i > 0 else 1))
                in_channels = channels
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv1(images)).relu_()
        x = F.max_pool2d(x, 3, 2, 1)
        first = self.layer1(x)
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third, self.layer4(third)]


class FeaturePyramid(nn.Module):
    """Lin et al. 2017, arXiv:1612.03144; returns one map more than it gets, finest first."""

    def __init__(self, in_channels: list[int], out_channels: int):
        super().__init__()
        # Conv in a Sequential: the names that torchvision's checkpoints have.
        self.inner_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, out_channels, 1)) for channels in in_channels
        )
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        laterals: list[Tensor] = []
        for i, block in enumerate(self.inner_blocks):
            laterals.append(block(maps[i]))
        for i in range(len(laterals) - 2, -1, -1):
            size = laterals[i].shape[-2:]
            laterals[i] = laterals[i] + F.interpolate(laterals[i + 1], size=size, mode="nearest")
        out: list[Tensor] = []
        for i, block in enumerate(self.layer_blocks):
            out.append(block(laterals[i]))
        out.append(F.max_pool2d(out[-1], kernel_size=1, stride=2))
        return out


class ResNetFpnBackbone(nn.Module):
    """Images (B, 3, H, W) to five maps at strides 4, 8, 16, 32 and 64, finest first.

    What a detector reads from a backbone: ``out_channels``; ``num_levels``, the maps that forward
    returns; ``roi_strides``, pixels per cell of the first maps, from which boxes are pooled.
    """

    def __init__(self, blocks: tuple[int, int, int, int] = (2, 2, 2, 2), out_channels: int = 256):
        super().__init__()
        self.out_channels = out_channels
        self.num_levels = 5
        self.roi_strides = [4, 8, 16, 32]
        self.body = ResNet(blocks)
        self.fpn = FeaturePyramid(self.body.stage_channels, out_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.fpn(self.body(images))
