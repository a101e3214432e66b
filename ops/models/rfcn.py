"""R-FCN in Python, thin and scriptable: the twin of ``csrc/models/rfcn.cpp``."""

from torch import nn

from tilewright import _C
from tilewright.models.position_sensitive_heads import PositionSensitiveHeads
from tilewright.models.resnet_backbone import ResNetC4C5Backbone
from tilewright.models.two_stage_detector import (
    TwoStageDetector,
    check_own_backbone,
    resnet_options,
)


class RFCN(TwoStageDetector):
    """Dai et al. 2016 (arXiv:1605.06409): no layer has weights that work on each box.

    A convolution reduces the map of a ResNet's last stage, two more make k * k maps for each class
    and k * k * 4 for the box, and the bins of a proposal, each pooled from maps of its own, vote.
    Proposals come from the stage before. ``forward(images, targets)`` is described in
    TwoStageDetector, its base class.

    Args:
        num_classes: classes, the background (class 0) included.
        backbone: as for FasterRCNN, with one level and one stride, that of its last map, and
            ``last_channels`` where those of the last map are others than ``out_channels``.
            Default: a ResNet of which the third stage proposes and the fourth is classified
            (ResNetC4C5Backbone).
        feature_level: the stage whose map is classified, 2 to 4, proposals being made on that of
            the one before; 4. Of small scenes 3 is quicker: a map of stride 8.
        head_channels: to which a 1x1 convolution reduces the last map; 1024.
        pooled_size: bins per side of a box, the paper's k; 7.
        pooling: "ps_roi_align"; "ps_roi_pool", the paper's; or "deform_ps_roi_pool", whose bins
            move as k * k maps of two offsets say (arXiv:1703.06211).
        sampling_ratio: samples per bin and axis, but of ps_roi_pool; of ps_roi_align <= 0 for one
            per cell; 2.
        options: the others are FasterRCNN's, without fpn_channels and representation_size.
            dilate_last_stage is True, and anchor_sizes ((32, 64, 128, 256, 512),).
    """

    def __init__(self, num_classes: int, *, backbone: nn.Module | None = None, **options):
        options = _C.rfcn_options(num_classes, **options)
        if backbone is None:
            backbone = ResNetC4C5Backbone(
                stages=options["feature_level"], **resnet_options(options)
            )
        else:
            check_own_backbone("RFCN", options)
        super().__init__("RFCN", backbone, options)
        strides = list(backbone.roi_strides)
        if backbone.num_levels != 1 or len(strides) != 1:
            raise ValueError(
                "tilewright::RFCN: backbone must have one level and one stride, got "
                f"{backbone.num_levels} and {len(strides)}"
            )
        channels = getattr(backbone, "last_channels", backbone.out_channels)
        self.roi_heads = PositionSensitiveHeads(channels, strides[0], options)
