"""The second stage of R-FCN, scriptable: the twin of
``csrc/models/position_sensitive_heads.cpp``."""

import torch
from torch import Tensor, nn

from tilewright.models.box_heads import BoxHeads


def _pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class PositionSensitiveVote(nn.Module):
    """``outputs`` scores of each box, each by k * k maps of which every bin of the box reads one
    (arXiv:1605.06409, equation 1). How bins are pooled is decided here alone."""

    def __init__(self, outputs: int, stride: int, options: dict):
        super().__init__()
        self.scale = 1.0 / stride
        self.bins = options["pooled_size"]
        self.pooling = options["pooling"]
        self.sampling_ratio = options["sampling_ratio"]
        self.outputs = outputs
        self.maps = _pointwise(options["head_channels"], outputs * self.bins**2)
        self.offset_maps = None  # of deform_ps_roi_pool: two offsets for each bin
        if self.pooling == "deform_ps_roi_pool":
            self.offset_maps = _pointwise(options["head_channels"], 2 * self.bins**2)
            nn.init.zeros_(self.offset_maps.weight)

    def forward(self, map: Tensor, rois: Tensor) -> Tensor:
        """map (B, head_channels, H, W), rois (K, 5) to (K, outputs), averages over the bins."""
        return self.pool(map, rois).mean([2, 3])

    def pool(self, map: Tensor, rois: Tensor) -> Tensor:
        """(K, outputs, k, k)"""
        bins = self.bins
        maps = self.maps(map)
        if self.offset_maps is not None:
            offset = self.moved(self.offset_maps(map), rois, None, 2)
            return self.moved(maps, rois, offset, self.outputs)
        if self.pooling == "ps_roi_pool":
            return torch.ops.tilewright.ps_roi_pool(maps, rois, self.scale, bins, bins)[0]
        return torch.ops.tilewright.ps_roi_align(
            maps, rois, self.scale, bins, bins, self.sampling_ratio
        )[0]

    def moved(self, maps: Tensor, rois: Tensor, offset: Tensor | None, outputs: int) -> Tensor:
        bins = self.bins
        return torch.ops.tilewright.deform_ps_roi_pool(
            maps, rois, offset, self.scale, outputs, bins, bins, bins, self.sampling_ratio
        )


class PositionSensitiveHeads(BoxHeads):
    """Position-sensitive maps of the last of the features; box deltas are those of any class."""

    def __init__(self, channels: int, stride: int, options: dict):
        super().__init__(options)
        self.reduction = _pointwise(channels, options["head_channels"])
        self.cls_score = PositionSensitiveVote(options["num_classes"], stride, options)
        self.bbox_pred = PositionSensitiveVote(4, stride, options)

    def predict(self, features: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        map = self.reduction(features[-1]).relu_()
        return self.cls_score(map, rois), self.bbox_pred(map, rois)
