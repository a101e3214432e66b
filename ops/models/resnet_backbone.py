"""ResNets without a pyramid as backbones, scriptable: the twin of
``csrc/models/resnet_backbone.cpp``."""

from torch import Tensor, nn

from tilewright.models.resnet import ResNet


class ResNetBackbone(nn.Module):
    """The map of the last stage of a ResNet, as in the first Faster R-CNN; arguments as there.

    With ``stages=3`` that is C4, of stride 16; with ``dilate_last_stage=True`` C5 has it too.
    """

    def __init__(self, depth: int = 18, **options):
        super().__init__()
        self.body = ResNet(depth, **options)
        self.out_channels = self.body.stage_channels[-1]
        self.num_levels = 1
        self.roi_strides = self.body.stage_strides[-1:]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.body(images)[-1]]

    def fold_batch_norm(self) -> None:
        self.body.fold_batch_norm()


class ResNetC4C5Backbone(nn.Module):
    """What R-FCN looks at, the last two stages: of four the map of the third (C4), for proposals,
    and that of the fourth (C5), of stride 16 where dilated; arguments as of ResNet.

    Beside what all backbones have, R-FCN reads ``last_channels``, those of the last map.
    """

    def __init__(self, depth: int = 18, **options):
        super().__init__()
        self.body = ResNet(depth, **options)
        if len(self.body.stage_channels) < 2:
            raise ValueError(
                "tilewright::ResNetC4C5Backbone: needs at least 2 stages, got "
                f"{len(self.body.stage_channels)}"
            )
        self.out_channels, self.last_channels = self.body.stage_channels[-2:]
        self.num_levels = 1
        self.roi_strides = self.body.stage_strides[-1:]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.body(images)[-2:]

    def fold_batch_norm(self) -> None:
        self.body.fold_batch_norm()
