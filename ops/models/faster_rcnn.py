"""Faster R-CNN in Python, thin and scriptable: the twin of ``csrc/models/faster_rcnn.cpp``.

Weights travel between this module, the C++ one and torchvision's under the same names.
"""

import inspect

import torch
from torch import Tensor, nn

from tilewright import _C
from tilewright.models.checkpoint import read_checkpoint
from tilewright.models.resnet import ResNetBackbone
from tilewright.models.resnet_fpn import ResNetFpnBackbone
from tilewright.models.roi_heads import RoIHeads
from tilewright.models.rpn import RegionProposalNetwork


def _default_backbone(feature_level: int, fpn_channels: int, **options) -> nn.Module:
    if feature_level > 0:
        return ResNetBackbone(stages=feature_level, **options)
    return ResNetFpnBackbone(out_channels=fpn_channels, **options)


class FasterRCNN(nn.Module):
    """Ren et al. 2015 (arXiv:1506.01497) with a feature pyramid (arXiv:1612.03144).

    ``forward(images, targets)`` always returns ``(losses, detections)``. In training mode these are
    the scalars loss_classifier, loss_box_reg, loss_objectness, loss_rpn_box_reg and an empty list;
    in evaluation mode an empty dict, and for each image a dict of boxes (D, 4) in pixels of the
    image as given, labels (D,) and scores (D,), best first.

    Images are (3, H, W) tensors in [0, 1], of the dtype of the parameters (or of autocast's),
    and may differ in size. Targets, needed in training mode
    and ignored otherwise, are dicts of boxes (G, 4) with x2 > x1 and y2 > y1, and labels (G,) int64
    in [1, num_classes). The anchors and boxes that enter the losses are drawn with torch.rand, so
    torch.manual_seed repeats a step.

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
        feature_level: 0 for a feature pyramid over all stages; 1 to 4 for the map of this stage
            alone, of stride 4, 8, 16 or 32 (anchor_sizes is one list then).
        fpn_channels: channels of the feature pyramid.
        representation_size: width of the box head.
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
        feature_level: int = 0,
        fpn_channels: int = 256,
        representation_size: int = 1024,
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
        _C.check_detector_options(num_classes, **given)
        super().__init__()
        self.folded = False
        if backbone is None:
            backbone = _default_backbone(
                feature_level,
                fpn_channels,
                depth=resnet_depth,
                frozen_batch_norm=frozen_batch_norm,
                batch_norm_eps=batch_norm_eps,
                trainable_layers=trainable_backbone_layers,
            )
        if len(anchor_sizes) != backbone.num_levels:
            raise ValueError(
                "tilewright::FasterRCNN: anchor_sizes must have one list for each of the "
                f"{backbone.num_levels} levels, got {len(anchor_sizes)}"
            )
        self.num_classes = num_classes
        self.min_size = min_size
        self.max_size = max_size
        self.image_mean = [float(value) for value in image_mean]
        self.image_std = [float(value) for value in image_std]
        self.backbone = backbone
        self.rpn = RegionProposalNetwork(
            backbone.out_channels,
            [list(level) for level in anchor_sizes],
            list(aspect_ratios),
            rpn_pre_nms_top_n_train,
            rpn_pre_nms_top_n_test,
            rpn_post_nms_top_n_train,
            rpn_post_nms_top_n_test,
            rpn_nms_thresh,
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            rpn_score_thresh,
        )
        self.roi_heads = RoIHeads(
            backbone.out_channels,
            list(backbone.roi_strides),
            num_classes,
            representation_size,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
        )

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        resized = torch.ops.tilewright.resize_images(
            images,
            self.image_mean,
            self.image_std,
            self.min_size,
            self.max_size,
            self.rpn.head.cls_logits.weight,
        )
        gt_boxes: list[Tensor] = []
        gt_labels: list[Tensor] = []
        if self.training:
            gt_boxes, gt_labels = self.ground_truths(images, resized, targets)
        batch = torch.ops.tilewright.pad_images(resized)  # (B, 3, H, W)
        features = self.backbone(batch)
        proposals, rpn_losses = self.rpn(features, resized, batch, gt_boxes)
        losses, detections = self.roi_heads(features, proposals, resized, gt_boxes, gt_labels)
        losses.update(rpn_losses)
        for i, detection in enumerate(detections):
            detection["boxes"] = torch.ops.tilewright.resize_boxes(
                detection["boxes"], resized[i].shape[-2:], images[i].shape[-2:]
            )
        return losses, detections

    def ground_truths(
        self,
        images: list[Tensor],
        resized: list[Tensor],
        targets: list[dict[str, Tensor]] | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        if targets is None:
            raise ValueError("tilewright::FasterRCNN: targets must be given in training mode")
        if len(targets) != len(images):
            raise ValueError(
                "tilewright::FasterRCNN: targets must have one entry for each of "
                f"{len(images)} images, got {len(targets)}"
            )
        boxes: list[Tensor] = []
        labels: list[Tensor] = []
        for i, target in enumerate(targets):
            if "boxes" not in target or "labels" not in target:
                raise ValueError(f"tilewright::FasterRCNN: targets[{i}] must have boxes and labels")
            boxes.append(target["boxes"])
            labels.append(target["labels"])
        boxes = torch.ops.tilewright.prepare_targets(
            boxes, labels, images, resized, self.num_classes
        )
        return boxes, labels

    def fold_batch_norm(self) -> "FasterRCNN":
        """For inference: writes batch norms into the convolutions before them.

        Call it in evaluation mode, before scripting or exporting. Of each batch norm a bias stays,
        under its name. The model cannot train afterwards.
        """
        if self.training:
            raise RuntimeError(
                "tilewright::FasterRCNN: fold_batch_norm is for inference: call eval() first"
            )
        if not hasattr(self.backbone, "fold_batch_norm"):
            raise RuntimeError(
                "tilewright::FasterRCNN: this backbone does not say how its batch norm is folded: "
                "it has no method fold_batch_norm"
            )
        self.backbone.fold_batch_norm()
        self.folded = True
        return self

    def train(self, mode: bool = True) -> "FasterRCNN":
        if mode and self.folded:
            raise RuntimeError(
                "tilewright::FasterRCNN: batch norm was folded into the convolutions: this model "
                "cannot train any more"
            )
        return super().train(mode)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As torch.nn.Module's, but checked as a whole before anything is written."""
        return self._load(state_dict, "state dict", strict, assign)

    def load(self, path) -> "FasterRCNN":
        """Loads a file of weights: see read_checkpoint. Every key and shape must fit."""
        self._load(read_checkpoint(path, "load_module"), str(path))
        return self

    def _load(self, state, source: str, strict: bool = True, assign: bool = False):
        own = {name: value.detach() for name, value in self.state_dict().items()}
        _C.check_state_dict(own, dict(state), source, strict)
        # What the check lets pass beyond torch's: counters of batches that frozen batch norm lacks.
        return super().load_state_dict(state, strict=False, assign=assign)


# The keywords that the C++ module has too, which checks them for both.
_OPTIONS = set(inspect.signature(FasterRCNN.__init__).parameters) - {
    "self",
    "num_classes",
    "backbone",
}
