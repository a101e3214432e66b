"""ResNet, scriptable: the twin of ``csrc/models/resnet.cpp``.

The layers, names and initialisation are torchvision's.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from tilewright.models.batch_norm import BatchNorm, fold

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _shortcut(
    in_channels: int, channels: int, stride: int, norm: tuple[bool, float]
) -> nn.ModuleList | None:
    """Convolution and batch norm where the shape changes; a list, for it is not called itself."""
    if stride == 1 and in_channels == channels:
        return None
    return nn.ModuleList(
        [_convolution(in_channels, channels, 1, stride), BatchNorm(channels, *norm)]
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv:1512.03385, figure 5 left)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, norm: tuple[bool, float]):
        super().__init__()
        self.stride = stride
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.bn1 = BatchNorm(channels, *norm)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = BatchNorm(channels, *norm)
        self.downsample = _shortcut(in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(x, self.conv1.weight, self.stride, 1).relu_()
        out = self.bn2(out, self.conv2.weight, 1, 1)
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample[1](x, self.downsample[0].weight, self.stride, 0)
        return out.add_(shortcut).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides), 1x1 of four times the channels, and a shortcut (figure 5 right)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, norm: tuple[bool, float]):
        super().__init__()
        self.stride = stride
        self.conv1 = _convolution(in_channels, channels, 1)
        self.bn1 = BatchNorm(channels, *norm)
        self.conv2 = _convolution(channels, channels, 3, stride)
        self.bn2 = BatchNorm(channels, *norm)
        self.conv3 = _convolution(channels, channels * 4, 1)
        self.bn3 = BatchNorm(channels * 4, *norm)
        self.downsample = _shortcut(in_channels, channels * 4, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(x, self.conv1.weight, 1, 0).relu_()
        out = self.bn2(out, self.conv2.weight, self.stride, 1).relu_()
        out = self.bn3(out, self.conv3.weight, 1, 0)
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample[1](x, self.downsample[0].weight, self.stride, 0)
        return out.add_(shortcut).relu_()


def _fold_block(block: nn.Module) -> None:
    for i in (1, 2, 3):
        if hasattr(block, f"bn{i}"):
            norm = fold(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"))
            setattr(block, f"bn{i}", norm)
    if block.downsample is not None:
        block.downsample[1] = fold(block.downsample[0], block.downsample[1])


class ResNet(nn.Module):
    """Stem and stages, without the classifier.

    Args:
        depth: 18, 34, 50 or 101 layers; from 50 on the blocks are bottlenecks.
        stages: how many of the four stages are built.
        frozen_batch_norm: batch norm with fixed weights and statistics, which are buffers then.
        batch_norm_eps: added to its variance.
        trainable_layers: how many of stem and four stages learn, counted from the last.
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        stages: int = 4,
        frozen_batch_norm: bool = False,
        batch_norm_eps: float = 1e-5,
        trainable_layers: int = 5,
    ):
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"tilewright::ResNet: depth must be 18, 34, 50 or 101, got {depth}")
        if not 1 <= stages <= 4:
            raise ValueError(f"tilewright::ResNet: stages must lie in [1, 4], got {stages}")
        if not 0 <= trainable_layers <= 5:
            raise ValueError(
                f"tilewright::ResNet: trainable_layers must lie in [0, 5], got {trainable_layers}"
            )
        norm = (frozen_batch_norm, batch_norm_eps)
        block_type = Bottleneck if depth >= 50 else BasicBlock
        self.conv1 = _convolution(3, 64, 7, 2)
        self.bn1 = BatchNorm(64, *norm)
        self.stage_channels: list[int] = []
        in_channels = 64
        for i, count in enumerate(_BLOCKS[depth]):
            if i >= stages:
                self.register_module(f"layer{i + 1}", None)
                continue
            blocks = []
            for block in range(count):
                stride = 2 if block == 0 and i > 0 else 1
                blocks.append(block_type(in_channels, 64 << i, stride, norm))
                in_channels = (64 << i) * block_type.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.stage_channels.append(in_channels)
        learning = tuple(f"layer{4 - i}." for i in range(trainable_layers))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(trainable_layers == 5 or name.startswith(learning))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the outputs of the stages, at strides 4, 8, 16 and 32."""
        x = F.max_pool2d(self.bn1(images, self.conv1.weight, 2, 3).relu_(), 3, 2, 1)
        maps = [self.layer1(x)]
        if self.layer2 is not None:
            maps.append(self.layer2(maps[-1]))
        if self.layer3 is not None:
            maps.append(self.layer3(maps[-1]))
        if self.layer4 is not None:
            maps.append(self.layer4(maps[-1]))
        return maps

    def fold_batch_norm(self) -> None:
        """Writes every batch norm into the convolution before it, for inference."""
        self.bn1 = fold(self.conv1, self.bn1)
        for block in self.modules():
            if isinstance(block, BasicBlock | Bottleneck):
                _fold_block(block)


class ResNetBackbone(nn.Module):
    """The map of the last stage of a ResNet, as in the first Faster R-CNN; arguments as there.

    With ``stages=3`` that is C4, of stride 16.
    """

    def __init__(self, depth: int = 18, **options):
        super().__init__()
        self.body = ResNet(depth, **options)
        self.out_channels = self.body.stage_channels[-1]
        self.num_levels = 1
        self.roi_strides = [2 << len(self.body.stage_channels)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.body(images)[-1]]

    def fold_batch_norm(self) -> None:
        self.body.fold_batch_norm()
