"""What Faster R-CNN and R-FCN have in common, scriptable: the twin of
``csrc/models/two_stage_detector.cpp``."""

import torch
from torch import Tensor, nn

from tilewright.models.rpn import RegionProposalNetwork
from tilewright.models.weights_module import WeightsModule


def resnet_options(options: dict) -> dict:
    """The arguments of the ResNet that the options of a detector describe."""
    return {
        "depth": options["resnet_depth"],
        "frozen_batch_norm": options["frozen_batch_norm"],
        "batch_norm_eps": options["batch_norm_eps"],
        "trainable_layers": options["trainable_backbone_layers"],
        "dilate_last_stage": options["dilate_last_stage"],
        "deformable_stages": options["deformable_stages"],
        "modulated": options["modulated_deformation"],
    }


def check_own_backbone(model: str, options: dict) -> None:
    """What is of the default backbone would have no effect beside one of the caller's."""
    if options["deformable_stages"] != 0:
        raise ValueError(
            f"tilewright::{model}: deformable_stages is the default backbone's, got "
            f"{options['deformable_stages']} beside a backbone"
        )


class TwoStageDetector(WeightsModule):
    """A backbone and a region proposal network; a model adds its second stage, ``roi_heads``.

    ``forward(images, targets)`` always returns ``(losses, detections)``. In training mode these are
    the scalars loss_classifier, loss_box_reg, loss_objectness, loss_rpn_box_reg and an empty list;
    in evaluation mode an empty dict, and for each image a dict of boxes (D, 4) in pixels of the
    image as given, labels (D,) and scores (D,), best first.

    Images are (3, H, W) tensors in [0, 1], of the dtype of the parameters (or of autocast's),
    and may differ in size. Targets, needed in training mode
    and ignored otherwise, are dicts of boxes (G, 4) with x2 > x1 and y2 > y1, and labels (G,) int64
    in [1, num_classes). The anchors and boxes that enter the losses are drawn with torch.rand, so
    torch.manual_seed repeats a step.
    """

    def __init__(self, model: str, backbone: nn.Module, options: dict):
        super().__init__()
        self.model = model  # its name in messages
        self.folded = False
        anchor_sizes = options["anchor_sizes"]
        if len(anchor_sizes) != backbone.num_levels:
            raise ValueError(
                f"tilewright::{model}: anchor_sizes must have one list for each of the "
                f"{backbone.num_levels} levels, got {len(anchor_sizes)}"
            )
        self.num_classes = options["num_classes"]
        self.num_levels = backbone.num_levels
        self.min_size = options["min_size"]
        self.max_size = options["max_size"]
        self.image_mean = options["image_mean"]
        self.image_std = options["image_std"]
        self.backbone = backbone
        self.rpn = RegionProposalNetwork(backbone.out_channels, options)

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
        proposals, rpn_losses = self.rpn(features[: self.num_levels], resized, batch, gt_boxes)
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
            raise ValueError(f"tilewright::{self.model}: targets must be given in training mode")
        if len(targets) != len(images):
            raise ValueError(
                f"tilewright::{self.model}: targets must have one entry for each of "
                f"{len(images)} images, got {len(targets)}"
            )
        boxes: list[Tensor] = []
        labels: list[Tensor] = []
        for i, target in enumerate(targets):
            if "boxes" not in target or "labels" not in target:
                raise ValueError(
                    f"tilewright::{self.model}: targets[{i}] must have boxes and labels"
                )
            boxes.append(target["boxes"])
            labels.append(target["labels"])
        boxes = torch.ops.tilewright.prepare_targets(
            boxes, labels, images, resized, self.num_classes
        )
        return boxes, labels

    def fold_batch_norm(self) -> "TwoStageDetector":
        """For inference: writes batch norms into the convolutions before them.

        Call it in evaluation mode, before scripting or exporting. Of each batch norm a bias stays,
        under its name. The model cannot train afterwards.
        """
        if self.training:
            raise RuntimeError(
                f"tilewright::{self.model}: fold_batch_norm is for inference: call eval() first"
            )
        if not hasattr(self.backbone, "fold_batch_norm"):
            raise RuntimeError(
                f"tilewright::{self.model}: this backbone does not say how its batch norm is "
                "folded: it has no method fold_batch_norm"
            )
        self.backbone.fold_batch_norm()
        self.folded = True
        return self

    def train(self, mode: bool = True) -> "TwoStageDetector":
        if mode and self.folded:
            raise RuntimeError(
                f"tilewright::{self.model}: batch norm was folded into the convolutions: this "
                "model cannot train any more"
            )
        return super().train(mode)
