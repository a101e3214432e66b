"""What the second stages of detectors have in common, scriptable: the twin of
``csrc/models/box_heads.cpp``."""

import torch
from torch import Tensor, nn

from tilewright.models import detection_losses


class BoxHeads(nn.Module):
    """Proposals to detections, or in training mode to two losses.

    A head derives from it and has ``predict(features, rois)``: of rois (K, 5) the class logits
    (K, num_classes), and box deltas of each class (K, 4 * num_classes) or of any (K, 4).
    ``options``: those of a detector, by name.
    """

    def __init__(self, options: dict):
        super().__init__()
        self.num_classes = options["num_classes"]
        self.score_thresh = options["box_score_thresh"]
        self.nms_thresh = options["box_nms_thresh"]
        self.detections_per_img = options["box_detections_per_img"]
        self.fg_iou_thresh = options["box_fg_iou_thresh"]
        self.bg_iou_thresh = options["box_bg_iou_thresh"]
        self.batch_size_per_image = options["box_batch_size_per_image"]
        self.positive_fraction = options["box_positive_fraction"]
        self.bbox_reg_weights = options["bbox_reg_weights"]

    def forward(
        self,
        features: list[Tensor],
        proposals: list[Tensor],
        resized: list[Tensor],
        gt_boxes: list[Tensor],
        gt_labels: list[Tensor],
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        labels = torch.empty(0)
        regression = torch.empty(0)
        if self.training:
            proposals, labels, regression = self.select_samples(proposals, gt_boxes, gt_labels)
        logits, deltas = self.predict(features, torch.ops.tilewright.boxes_to_rois(proposals))
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if self.training:
            losses = self.losses(logits, deltas, labels, regression)
        else:
            detections = self.detect(logits, deltas, proposals, resized)
        return losses, detections

    def select_samples(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        kept: list[Tensor] = []
        labels: list[Tensor] = []
        matched: list[Tensor] = []
        for i, proposed in enumerate(proposals):
            truth = gt_boxes[i].to(proposed.dtype)
            boxes = torch.cat([proposed, truth])  # truths teach from the first step on
            label, match = torch.ops.tilewright.assign_targets(
                truth, gt_labels[i], boxes, self.fg_iou_thresh, self.bg_iou_thresh
            )
            positive, negative = torch.ops.tilewright.sample_balanced(
                label,
                detection_losses.sampling_noise(label),
                self.batch_size_per_image,
                self.positive_fraction,
            )
            sampled = positive.logical_or(negative).nonzero().squeeze(1)
            kept.append(boxes[sampled])
            labels.append(label[sampled])
            matched.append(match[sampled])
        regression = torch.ops.tilewright.encode_boxes(
            torch.cat(matched), torch.cat(kept), self.bbox_reg_weights
        )
        return kept, torch.cat(labels), regression

    def losses(
        self, logits: Tensor, deltas: Tensor, labels: Tensor, regression: Tensor
    ) -> dict[str, Tensor]:
        positive = (labels > 0).nonzero().squeeze(1)
        own = positive
        if deltas.size(1) != 4:  # the row of a box's own class among all (box, class) pairs
            own = positive * self.num_classes + labels[positive]
        return {
            "loss_classifier": detection_losses.classification_loss(logits, labels),
            "loss_box_reg": detection_losses.box_regression_loss(
                deltas.reshape(-1, 4)[own], regression[positive], labels.size(0)
            ),
        }

    def detect(
        self, logits: Tensor, deltas: Tensor, proposals: list[Tensor], resized: list[Tensor]
    ) -> list[dict[str, Tensor]]:
        boxes = torch.ops.tilewright.decode_boxes(
            deltas, torch.cat(proposals), self.bbox_reg_weights
        )
        if boxes.size(1) == 4:
            boxes = boxes.repeat(1, self.num_classes)
        scores = logits.to(boxes.dtype).softmax(-1)
        detections: list[dict[str, Tensor]] = []
        start = 0
        for i, image in enumerate(resized):
            count = proposals[i].size(0)
            kept, score, label = torch.ops.tilewright.postprocess_detections(
                scores.narrow(0, start, count),
                boxes.narrow(0, start, count),
                image.size(-2),
                image.size(-1),
                self.score_thresh,
                self.nms_thresh,
                self.detections_per_img,
            )
            detections.append({"boxes": kept, "labels": label, "scores": score})
            start += count
        return detections
