"""ResNet with a feature pyramid, scriptable: the default backbone of the detectors.

The twin of ``csrc/models/feature_pyramid.cpp``; layers, names and initialisation are torchvision's.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from tilewright.models.resnet import ResNet


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
            laterals[i].add_(F.interpolate(laterals[i + 1], size=size, mode="nearest"))
        out: list[Tensor] = []
        for i, block in enumerate(self.layer_blocks):
            out.append(block(laterals[i]))
        out.append(F.max_pool2d(out[-1], kernel_size=1, stride=2))
        return out


class ResNetFpnBackbone(nn.Module):
    """Images (B, 3, H, W) to five maps at strides 4, 8, 16, 32 and 64, finest first.

    What a detector reads from a backbone: ``out_channels``; ``num_levels``, the maps that forward
    returns; ``roi_strides``, pixels per cell of the first maps, from which boxes are pooled.
    ``fold_batch_norm`` prepares it for inference. ``depth`` and further options: see ResNet.
    """

    def __init__(self, depth: int = 18, out_channels: int = 256, **options):
        super().__init__()
        if options.get("dilate_last_stage", False):
            raise ValueError(
                "tilewright::ResNetFpnBackbone: dilate_last_stage must be false: each level of a "
                "pyramid has twice the stride of the one before"
            )
        self.out_channels = out_channels
        self.num_levels = 5
        self.roi_strides = [4, 8, 16, 32]
        self.body = ResNet(depth, **options)
        self.fpn = FeaturePyramid(self.body.stage_channels, out_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.fpn(self.body(images))

    def fold_batch_norm(self) -> None:
        self.body.fold_batch_norm()
