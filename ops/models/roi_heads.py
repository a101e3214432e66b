"""The second stage of Faster R-CNN, scriptable: the twin of ``csrc/models/roi_heads.cpp``."""

import torch
from torch import Tensor, nn

from tilewright.models import detection_losses


class TwoMlpHead(nn.Module):
    """Two fully connected layers over the pooled features."""

    def __init__(self, in_features: int, representation_size: int):
        super().__init__()
        self.fc6 = nn.Linear(in_features, representation_size)
        self.fc7 = nn.Linear(representation_size, representation_size)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.fc7(self.fc6(pooled.flatten(1)).relu_()).relu_()


class FastRcnnPredictor(nn.Module):
    """Class logits and box deltas for each proposal."""

    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.cls_score = nn.Linear(in_features, num_classes)
        self.bbox_pred = nn.Linear(in_features, num_classes * 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(features), self.bbox_pred(features)


class RoIHeads(nn.Module):
    """Proposals to detections, or in training mode to two losses."""

    def __init__(
        self,
        channels: int,
        strides: list[int],
        num_classes: int,
        representation_size: int,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        bbox_reg_weights: tuple[float, float, float, float],
    ):
        super().__init__()
        self.pooled_size = 7
        self.sampling_ratio = 2
        self.box_head = TwoMlpHead(channels * self.pooled_size**2, representation_size)
        self.box_predictor = FastRcnnPredictor(representation_size, num_classes)
        self.scales = [1.0 / stride for stride in strides]
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.bbox_reg_weights = [float(weight) for weight in bbox_reg_weights]

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
        pooled = torch.ops.tilewright.multiscale_roi_align(
            features[: len(self.scales)],
            torch.ops.tilewright.boxes_to_rois(proposals),
            self.scales,
            self.pooled_size,
            self.pooled_size,
            self.sampling_ratio,
        )  # (K, C, 7, 7)
        logits, deltas = self.box_predictor(self.box_head(pooled))
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
        # The row of a box's own class among all (box, class) pairs.
        own_class = positive * self.num_classes + labels[positive]
        return {
            "loss_classifier": detection_losses.classification_loss(logits, labels),
            "loss_box_reg": detection_losses.box_regression_loss(
                deltas.reshape(-1, 4)[own_class], regression[positive], labels.size(0)
            ),
        }

    def detect(
        self, logits: Tensor, deltas: Tensor, proposals: list[Tensor], resized: list[Tensor]
    ) -> list[dict[str, Tensor]]:
        boxes = torch.ops.tilewright.decode_boxes(
            deltas, torch.cat(proposals), self.bbox_reg_weights
        )
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
