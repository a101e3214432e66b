"""The region proposal network, scriptable: the twin of ``csrc/models/rpn.cpp``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright.models import detection_losses


class RpnHead(nn.Module):
    """One 3x3 convolution, then objectness and box deltas for each anchor; shared by all levels."""

    def __init__(self, channels: int, num_anchors: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        )
        self.cls_logits = nn.Conv2d(channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, num_anchors * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness: list[Tensor] = []
        deltas: list[Tensor] = []
        for feature in features:
            hidden = self.conv(feature)
            objectness.append(self.cls_logits(hidden))
            deltas.append(self.bbox_pred(hidden))
        return objectness, deltas

    def predict(
        self, features: list[Tensor], anchors: Tensor, with_deltas: int
    ) -> tuple[Tensor, Tensor]:
        """The same for a few anchors (N,), counted as in flatten_predictions: logits (N,), and
        deltas (with_deltas, 4) of the first ones. The gradient visits their cells alone."""
        per_cell = self.cls_logits.out_channels
        cells = anchors.div(per_cell, rounding_mode="floor")
        which = anchors.remainder(per_cell)
        conv = self.conv[0][0]
        hidden = F.linear(
            torch.ops.tilewright.gather_patches(features, cells),
            conv.weight.permute(0, 2, 3, 1).flatten(1),
            conv.bias,
        ).relu_()  # (N, channels)
        logits = F.linear(hidden, self.cls_logits.weight.flatten(1), self.cls_logits.bias)
        deltas = F.linear(
            hidden[:with_deltas], self.bbox_pred.weight.flatten(1), self.bbox_pred.bias
        )
        row = torch.arange(with_deltas, device=anchors.device) * per_cell + which[:with_deltas]
        return logits.gather(1, which.unsqueeze(1)).squeeze(1), deltas.view(-1, 4)[row]


class RegionProposalNetwork(nn.Module):
    """Feature maps to proposals per image, and in training mode to two losses.

    ``options``: those of a detector, by name.
    """

    def __init__(self, channels: int, options: dict):
        super().__init__()
        sizes, ratios = options["anchor_sizes"], options["aspect_ratios"]
        self.head = RpnHead(channels, len(sizes[0]) * len(ratios))
        self.anchor_sizes = [size for level in sizes for size in level]
        self.aspect_ratios = [ratio for _ in sizes for ratio in ratios]
        self.pre_nms_top_n_train = options["rpn_pre_nms_top_n_train"]
        self.pre_nms_top_n_test = options["rpn_pre_nms_top_n_test"]
        self.post_nms_top_n_train = options["rpn_post_nms_top_n_train"]
        self.post_nms_top_n_test = options["rpn_post_nms_top_n_test"]
        self.nms_thresh = options["rpn_nms_thresh"]
        self.fg_iou_thresh = options["rpn_fg_iou_thresh"]
        self.bg_iou_thresh = options["rpn_bg_iou_thresh"]
        self.batch_size_per_image = options["rpn_batch_size_per_image"]
        self.positive_fraction = options["rpn_positive_fraction"]
        self.score_thresh = options["rpn_score_thresh"]

    def forward(
        self, features: list[Tensor], resized: list[Tensor], batch: Tensor, gt_boxes: list[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        levels, level_deltas = self.head(features)
        # Proposals are data: the losses ask the head again, where they sampled.
        objectness = (
            torch.ops.tilewright.flatten_predictions(levels, 1).squeeze(-1).detach()
        )  # (B, N)
        deltas = torch.ops.tilewright.flatten_predictions(level_deltas, 4).detach()  # (B, N, 4)
        anchors = torch.ops.tilewright.grid_anchors(
            features, self.anchor_sizes, self.aspect_ratios, batch.size(2), batch.size(3)
        )  # (N, 4)
        level_sizes = [level.size(1) * level.size(2) * level.size(3) for level in levels]
        pre_nms_top_n = self.pre_nms_top_n_train if self.training else self.pre_nms_top_n_test
        post_nms_top_n = self.post_nms_top_n_train if self.training else self.post_nms_top_n_test
        proposals: list[Tensor] = []
        for i, image in enumerate(resized):
            proposals.append(
                torch.ops.tilewright.generate_proposals(
                    objectness[i],
                    deltas[i],
                    anchors,
                    level_sizes,
                    image.size(-2),
                    image.size(-1),
                    pre_nms_top_n,
                    post_nms_top_n,
                    self.nms_thresh,
                    self.score_thresh,
                )[0]
            )
        losses: dict[str, Tensor] = {}
        if self.training:
            losses = self.losses(features, anchors, gt_boxes)
        return proposals, losses

    def losses(
        self, features: list[Tensor], anchors: Tensor, gt_boxes: list[Tensor]
    ) -> dict[str, Tensor]:
        labels: list[Tensor] = []
        matched: list[Tensor] = []
        positives: list[Tensor] = []
        negatives: list[Tensor] = []
        for boxes in gt_boxes:
            is_object = torch.ones(boxes.size(0), dtype=torch.int64, device=boxes.device)
            label, match = torch.ops.tilewright.assign_targets(
                boxes.to(anchors.dtype),
                is_object,
                anchors,
                self.fg_iou_thresh,
                self.bg_iou_thresh,
                True,
            )
            positive, negative = torch.ops.tilewright.sample_balanced(
                label,
                detection_losses.sampling_noise(label),
                self.batch_size_per_image,
                self.positive_fraction,
            )
            labels.append(label)
            matched.append(match)
            positives.append(positive)
            negatives.append(negative)
        positive = torch.cat(positives).nonzero().squeeze(1)
        sampled = torch.cat([positive, torch.cat(negatives).nonzero().squeeze(1)])
        targets = torch.ops.tilewright.encode_boxes(
            torch.cat(matched)[positive],
            anchors[positive.remainder(anchors.size(0))],
            [1.0, 1.0, 1.0, 1.0],
        )
        logits, deltas = self.head.predict(features, sampled, positive.size(0))
        return {
            "loss_objectness": detection_losses.objectness_loss(logits, torch.cat(labels)[sampled]),
            "loss_rpn_box_reg": detection_losses.box_regression_loss(
                deltas, targets, sampled.size(0)
            ),
        }
