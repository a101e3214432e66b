"""Faster R-CNN in Python, thin and scriptable: the twin of ``csrc/models/faster_rcnn.cpp``.

Weights travel between this module, the C++ one and torchvision's under the same names.
"""

import inspect

from torch import nn

from tilewright import _C
from tilewright.models.resnet_backbone import ResNetBackbone
from tilewright.models.resnet_fpn import ResNetFpnBackbone
from tilewright.models.roi_heads import RoIHeads
from tilewright.models.two_stage_detector import (
    TwoStageDetector,
    check_own_backbone,
    resnet_options,
)


class FasterRCNN(TwoStageDetector):
    """Ren et al. 2015 (arXiv:1506.01497) with a feature pyramid (arXiv:1612.03144).

    ``forward(images, targets)`` is described in TwoStageDetector, its base class.

    Args:
        num_classes: classes, the background (class 0) included.
        min_size: length in pixels to which the shorter side of an image is resized.
        max_size: longest length of the longer side.
        image_mean: subtracted from each channel.
        image_std: by which each channel is divided then.
        resnet_depth: layers of the default backbone: 18, 34, 50 or 101.
        frozen_batch_norm: its batch norm has fixed weights and statistics, as torchvision's
            FrozenBatchNorm2d.
        batch_norm_eps: added to the variance; 0 for torchvision's first COCO weights of a
            ResNet-50.
        trainable_backbone_layers: how many of its stem and four stages learn, counted from the
            last.
        dilate_last_stage: its fourth stage keeps the stride of the third, 16, and its 3x3
            convolutions have dilation 2 (for feature_level=4).
        deformable_stages: how many of its last stages have deformable convolutions
            (arXiv:1703.06211) in place of the 3x3 of a bottleneck, or the second of a basic block.
        modulated_deformation: with masks (arXiv:1811.11168).
        feature_level: 0 for a feature pyramid over all stages; 1 to 4 for the map of this stage
            alone, of stride 4, 8, 16 or 32, or 16 if dilated (anchor_sizes is one list then).
        fpn_channels: channels of the feature pyramid.
        representation_size: width of the box head.
        deformable_pooling: the bins that a box is pooled into move, as linear layers of
            representation_size say (deformable RoI pooling, arXiv:1703.06211).
        anchor_sizes: side lengths in pixels, one list per feature level.
        aspect_ratios: height / width of the anchors, at each level.
        rpn_pre_nms_top_n_train: proposals kept per level before non-maximum suppression, training.
        rpn_pre_nms_top_n_test: the same in evaluation mode.
        rpn_post_nms_top_n_train: proposals kept per image after it, training.
        rpn_post_nms_top_n_test: the same in evaluation mode.
        rpn_nms_thresh: overlap above which the worse of two proposals is dropped.
        rpn_fg_iou_thresh: an anchor that overlaps a ground truth by so much is positive.
        rpn_bg_iou_thresh: one below is negative.
        rpn_batch_size_per_image: anchors per image that enter the losses.
        rpn_positive_fraction: largest share of positives among them.
        rpn_score_thresh: lowest score of a proposal.
        box_score_thresh: detections must score higher.
        box_nms_thresh: overlap above which the worse of two detections of a class is dropped.
        box_detections_per_img: most detections per image.
        box_fg_iou_thresh: a proposal that overlaps a ground truth by so much is positive.
        box_bg_iou_thresh: one below is background.
        box_batch_size_per_image: proposals per image that enter the losses.
        box_positive_fraction: largest share of positives among them.
        bbox_reg_weights: weights of (dx, dy, dw, dh) in the box head's regression.
        backbone: a scriptable module from (B, 3, H, W) to a list of maps, finest first, with the
            attributes ``out_channels``, ``num_levels`` and ``roi_strides`` (see ResNetFpnBackbone).
            Default: the ResNet that the options describe, initialised for training from scratch.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        min_size: int = 800,
        max_size: int = 1333,
        image_mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        image_std: tuple[float, ...] = (0.229, 0.224, 0.225),
        resnet_depth: int = 18,
        frozen_batch_norm: bool = False,
        batch_norm_eps: float = 1e-5,
        trainable_backbone_layers: int = 5,
        dilate_last_stage: bool = False,
        deformable_stages: int = 0,
        modulated_deformation: bool = False,
        feature_level: int = 0,
        fpn_channels: int = 256,
        representation_size: int = 1024,
        deformable_pooling: bool = False,
        anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,)),
        aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        backbone: nn.Module | None = None,
    ):
        given = {name: value for name, value in locals().items() if name in _OPTIONS}
        options = _C.faster_rcnn_options(num_classes, **given)
        if backbone is None:
            resnet = resnet_options(options)
            if feature_level > 0:
                backbone = ResNetBackbone(stages=feature_level, **resnet)
            else:
                backbone = ResNetFpnBackbone(out_channels=fpn_channels, **resnet)
        else:
            check_own_backbone("FasterRCNN", options)
        super().__init__("FasterRCNN", backbone, options)
        self.roi_heads = RoIHeads(backbone.out_channels, list(backbone.roi_strides), options)


# The keywords that the C++ module has too, which checks them for both.
_OPTIONS = set(inspect.signature(FasterRCNN.__init__).parameters) - {
    "self",
    "num_classes",
    "backbone",
}
