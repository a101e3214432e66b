"""The second stage of Faster R-CNN, scriptable: the twin of ``csrc/models/roi_heads.cpp``."""

import torch
from torch import Tensor, nn

from tilewright.deform_pooling import offset_layers
from tilewright.models.box_heads import BoxHeads


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


class RoIHeads(BoxHeads):
    """RoIAlign over the levels of a pyramid, two fully connected layers, predictions."""

    def __init__(self, channels: int, strides: list[int], options: dict):
        super().__init__(options)
        self.pooled_size = 7
        self.sampling_ratio = 2
        width = options["representation_size"]
        self.box_head = TwoMlpHead(channels * self.pooled_size**2, width)
        self.box_predictor = FastRcnnPredictor(width, options["num_classes"])
        self.scales = [1.0 / stride for stride in strides]
        self.offset_fc = None
        if options["deformable_pooling"]:
            self.offset_fc = offset_layers(channels, self.pooled_size**2, width)

    def predict(self, features: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pool(features[: len(self.scales)], rois)
        return self.box_predictor(self.box_head(pooled))

    def pool(self, maps: list[Tensor], rois: Tensor) -> Tensor:
        """(K, C, 7, 7)"""
        size = self.pooled_size
        if self.offset_fc is None:
            return torch.ops.tilewright.multiscale_roi_align(
                maps, rois, self.scales, size, size, self.sampling_ratio
            )
        still = self.moved(maps, rois, None)
        return self.moved(maps, rois, self.offset_fc(still.flatten(1)).view(-1, 2, size, size))

    def moved(self, maps: list[Tensor], rois: Tensor, offset: Tensor | None) -> Tensor:
        size = self.pooled_size
        return torch.ops.tilewright.multiscale_deform_roi_pool(
            maps, rois, offset, self.scales, size, size, self.sampling_ratio
        )
