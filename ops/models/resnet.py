"""ResNet, scriptable: the twin of ``csrc/models/resnet.cpp``.

The layers, names and initialisation are torchvision's.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from tilewright.deform import DeformConv2d
from tilewright.models.batch_norm import BatchNorm, fold

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class _BlockOptions(NamedTuple):
    stride: int
    dilation: int  # of the 3x3 convolutions
    deformable: bool  # the second convolution
    modulated: bool
    norm: tuple[bool, float]  # frozen, eps


def _initialised(layer: nn.Module) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _convolution(
    in_channels: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return _initialised(
        nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)
    )


def _second(channels: int, stride: int, options: _BlockOptions) -> nn.Module:
    reach = options.dilation
    if not options.deformable:
        return _convolution(channels, channels, 3, stride, reach)
    layer = DeformConv2d(
        channels, channels, 3, stride, reach, reach, bias=False, modulated=options.modulated
    )
    return _initialised(layer)


def _shortcut(in_channels: int, channels: int, options: _BlockOptions) -> nn.ModuleList | None:
    """Convolution and batch norm where the shape changes; a list, for it is not called itself."""
    if options.stride == 1 and in_channels == channels:
        return None
    layer = _convolution(in_channels, channels, 1, options.stride)
    return nn.ModuleList([layer, BatchNorm(channels, *options.norm)])


class _Block(nn.Module):
    """What blocks have in common: a second convolution that may be deformable, and a shortcut."""

    expansion = 1

    def __init__(self, options: _BlockOptions):
        super().__init__()
        self.stride, self.dilation = options.stride, options.dilation

    def deformation(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Offsets and masks of the second convolution, of input x."""
        if hasattr(self.conv2, "conv_offset"):
            return self.conv2.predict(x)
        return None, None

    def carried(self, x: Tensor) -> Tensor:
        """What the shortcut adds."""
        if self.downsample is None:
            return x
        return self.downsample[1](x, self.downsample[0].weight, self.stride, 0)


class BasicBlock(_Block):
    """Two 3x3 convolutions and a shortcut (arXiv:1512.03385, figure 5 left)."""

    def __init__(self, in_channels: int, channels: int, options: _BlockOptions):
        super().__init__(options)
        self.conv1 = _convolution(in_channels, channels, 3, options.stride, options.dilation)
        self.bn1 = BatchNorm(channels, *options.norm)
        self.conv2 = _second(channels, 1, options)
        self.bn2 = BatchNorm(channels, *options.norm)
        self.downsample = _shortcut(in_channels, channels, options)

    def forward(self, x: Tensor) -> Tensor:
        reach = self.dilation
        out = self.bn1(x, self.conv1.weight, self.stride, reach, reach).relu_()
        offset, mask = self.deformation(out)
        out = self.bn2(out, self.conv2.weight, 1, reach, reach, offset, mask)
        return out.add_(self.carried(x)).relu_()


class Bottleneck(_Block):
    """1x1, 3x3 (which strides), 1x1 of four times the channels, and a shortcut (figure 5 right)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, options: _BlockOptions):
        super().__init__(options)
        self.conv1 = _convolution(in_channels, channels, 1)
        self.bn1 = BatchNorm(channels, *options.norm)
        self.conv2 = _second(channels, options.stride, options)
        self.bn2 = BatchNorm(channels, *options.norm)
        self.conv3 = _convolution(channels, channels * 4, 1)
        self.bn3 = BatchNorm(channels * 4, *options.norm)
        self.downsample = _shortcut(in_channels, channels * 4, options)

    def forward(self, x: Tensor) -> Tensor:
        reach = self.dilation
        out = self.bn1(x, self.conv1.weight, 1, 0).relu_()
        offset, mask = self.deformation(out)
        out = self.bn2(out, self.conv2.weight, self.stride, reach, reach, offset, mask).relu_()
        out = self.bn3(out, self.conv3.weight, 1, 0)
        return out.add_(self.carried(x)).relu_()


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
        dilate_last_stage: the fourth stage keeps the stride of the third, 16, and its 3x3
            convolutions have dilation 2.
        deformable_stages: in so many of the built stages, counted from the last, the second
            convolution of each block (a bottleneck's 3x3) is a DeformConv2d of the same weight.
        modulated: with masks (version 2).
        small_images: the stem is one 3x3 convolution that keeps the sides, without pooling; strides
            are a fourth.
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        stages: int = 4,
        frozen_batch_norm: bool = False,
        batch_norm_eps: float = 1e-5,
        trainable_layers: int = 5,
        dilate_last_stage: bool = False,
        deformable_stages: int = 0,
        modulated: bool = False,
        small_images: bool = False,
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
        if dilate_last_stage and stages < 2:
            raise ValueError(
                f"tilewright::ResNet: dilate_last_stage needs at least 2 stages, got {stages}"
            )
        if not 0 <= deformable_stages <= stages:
            raise ValueError(
                f"tilewright::ResNet: deformable_stages must lie in [0, {stages}], the stages that "
                f"are built, got {deformable_stages}"
            )
        norm = (frozen_batch_norm, batch_norm_eps)
        block_type = Bottleneck if depth >= 50 else BasicBlock
        self.stem_stride = 1 if small_images else 2
        self.stem_padding = 1 if small_images else 3
        self.conv1 = _convolution(3, 64, 2 * self.stem_padding + 1, self.stem_stride)
        self.bn1 = BatchNorm(64, *norm)
        self.stage_channels: list[int] = []
        # Pixels per cell, such as 4, 8, 16, 32; where dilated the last one twice.
        self.stage_strides: list[int] = []
        in_channels, total_stride = 64, self.stem_stride**2
        for i, count in enumerate(_BLOCKS[depth]):
            if i >= stages:
                self.register_module(f"layer{i + 1}", None)
                continue
            blocks = []
            dilated = i == stages - 1 and dilate_last_stage
            stride = 1 if i == 0 or dilated else 2
            total_stride *= stride
            for block in range(count):
                options = _BlockOptions(
                    stride=stride if block == 0 else 1,
                    dilation=2 if dilated else 1,
                    deformable=i >= stages - deformable_stages,
                    modulated=modulated,
                    norm=norm,
                )
                blocks.append(block_type(in_channels, 64 << i, options))
                in_channels = (64 << i) * block_type.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.stage_channels.append(in_channels)
            self.stage_strides.append(total_stride)
        learning = tuple(f"layer{4 - i}." for i in range(trainable_layers))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(trainable_layers == 5 or name.startswith(learning))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the outputs of the stages, at the strides of ``stage_strides``."""
        x = self.bn1(images, self.conv1.weight, self.stem_stride, self.stem_padding).relu_()
        if self.stem_stride == 2:
            x = F.max_pool2d(x, 3, 2, 1)
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
            if isinstance(block, _Block):
                _fold_block(block)
