"""Deformable RoI pooling: argument sugar over ``torch.ops.tilewright``, and the module.

``deform_roi_pool`` takes mmcv's arguments, ``deform_ps_roi_pool`` those of Deformable R-FCN's
operator; docs/deform.md has the rules.
"""

import math
from typing import List, Optional, Tuple, Union  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor, nn
from torch.jit.annotations import BroadcastingList2

from tilewright.deform import whole_pair
from tilewright.pooling import _bins, _rois, _rois_of_levels

__all__ = [
    "DeformRoIPool",
    "deform_ps_roi_pool",
    "deform_roi_pool",
    "multiscale_deform_roi_pool",
]


def deform_roi_pool(
    input: Tensor,
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    offset: Optional[Tensor],  # noqa: UP045
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Deformable RoI pooling (arXiv:1703.06211): RoIAlign, aligned, whose every bin is moved.

    Args:
        input: (N, C, H, W) feature map; float64, float32, float16 or bfloat16, contiguous or
            channels last (the result has the same layout).
        boxes: (K, 5) of image index, x1, y1, x2, y2, or a list of one (n_i, 4) tensor per image; in
            image coordinates, of input's dtype or float32.
        offset: (K, 2, PH, PW), of input's dtype or float32: how far each bin moves to the right,
            then down, in ``gamma`` times the box's width and height. None: nothing moves.
        output_size: (PH, PW), or an int for both.
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin and axis, at most 1024; 0 takes one per pixel of the map.
        gamma: see ``offset``.

    Returns:
        (K, C, PH, PW), of input's dtype. Differentiable in input and offset, twice.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit, and on the CPU on an image index
            out of range.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.deform_roi_pool(
        input,
        _rois(boxes, input),
        offset,
        spatial_scale,
        size[0],
        size[1],
        sampling_ratio,
        gamma,
    )


def multiscale_deform_roi_pool(
    features: List[Tensor],  # noqa: UP006
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    offset: Optional[Tensor],  # noqa: UP045
    output_size: BroadcastingList2[int],
    spatial_scales: List[float],  # noqa: UP006
    sampling_ratio: int = 0,
    gamma: float = 0.1,
    canonical_scale: int = 224,
    canonical_level: int = 4,
) -> Tensor:
    """Deformable RoI pooling over a feature pyramid: each box from the level that fits it.

    Args:
        features, spatial_scales, canonical_scale, canonical_level: as for
            :func:`multiscale_roi_align`.
        boxes, offset, output_size, sampling_ratio, gamma: as for :func:`deform_roi_pool`.

    Returns:
        (K, C, PH, PW). Differentiable in features and offset, twice.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.multiscale_deform_roi_pool(
        features,
        _rois_of_levels(boxes, features),
        offset,
        spatial_scales,
        size[0],
        size[1],
        sampling_ratio,
        gamma,
        canonical_scale,
        canonical_level,
    )


def deform_ps_roi_pool(
    input: Tensor,
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    offset: Optional[Tensor],  # noqa: UP045
    output_dim: int,
    pooled_size: int,
    group_size: Optional[int] = None,  # noqa: UP045
    part_size: Optional[int] = None,  # noqa: UP045
    spatial_scale: float = 1.0,
    sample_per_part: int = 4,
    trans_std: float = 0.1,
) -> Tensor:
    """Deformable position-sensitive RoI pooling, as Deformable R-FCN (arXiv:1703.06211) has it.

    Args:
        input: (N, output_dim * group_size ** 2, H, W) score maps; float64, float32, float16 or
            bfloat16, contiguous or channels last (the result has the same layout).
        boxes: (K, 5) of image index, x1, y1, x2, y2, or a list of one (n_i, 4) tensor per image; in
            image coordinates, of input's dtype or float32. Corners are rounded.
        offset: (K, 2 * classes, part_size, part_size), of input's dtype or float32: how far each
            part moves to the right, then down, in ``trans_std`` times the box's width and height.
            ``classes`` divides ``output_dim``. None: nothing moves.
        output_dim: channels of the result.
        pooled_size: bins on each axis.
        group_size, part_size: how finely bins have maps, and moves, of their own; at most, and
            where None, ``pooled_size``.
        spatial_scale: pixels of the feature map per pixel of the image.
        sample_per_part: samples per bin and axis, from 1 to 1024.
        trans_std: see ``offset``.

    Returns:
        (K, output_dim, pooled_size, pooled_size), of input's dtype. Differentiable in input and
        offset, twice.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit, and on the CPU on an image index
            out of range.
    """
    return torch.ops.tilewright.deform_ps_roi_pool(
        input,
        _rois(boxes, input),
        offset,
        spatial_scale,
        output_dim,
        pooled_size if group_size is None else group_size,
        pooled_size,
        pooled_size if part_size is None else part_size,
        sample_per_part,
        trans_std,
    )


def offset_layers(channels: int, bins: int, width: int) -> nn.Sequential:
    """Three linear layers from what a box pools, (K, channels * bins), to two offsets for each bin;
    the last one begins at zero."""
    layers = nn.Sequential(
        nn.Linear(bins * channels, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, 2 * bins),
    )
    nn.init.zeros_(layers[4].weight)
    nn.init.zeros_(layers[4].bias)
    return layers


class DeformRoIPool(nn.Module):
    """:func:`deform_roi_pool`; with ``in_channels`` it predicts its own offsets.

    Three linear layers, ``offset_fc``, read what the boxes pool where nothing moves, and give two
    offsets a bin; at first 0. State dicts of mmcv's ``DeformRoIPoolPack`` load as
    they are.

    Args:
        output_size, spatial_scale, sampling_ratio, gamma: as of :func:`deform_roi_pool`.
        in_channels: of the feature maps; None: offsets are given.
        fc_channels: of the inner layers.

    Raises:
        ValueError: for numbers that cannot be.
    """

    __constants__ = ("spatial_scale", "sampling_ratio", "gamma", "in_channels")

    def __init__(
        self,
        output_size: Union[int, Tuple[int, int]],  # noqa: UP006, UP007
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
        in_channels: Optional[int] = None,  # noqa: UP045
        fc_channels: int = 1024,
    ):
        super().__init__()
        self.output_size = whole_pair("output_size", output_size, 1)
        self.spatial_scale, self.sampling_ratio = float(spatial_scale), sampling_ratio
        self.gamma, self.in_channels = float(gamma), in_channels
        if not math.isfinite(self.gamma):
            raise ValueError(f"gamma must be finite, got {gamma!r}")
        if not isinstance(sampling_ratio, int) or sampling_ratio > 1024:
            raise ValueError(
                f"sampling_ratio must be an int of at most 1024, got {sampling_ratio!r}"
            )
        if not 0 < self.spatial_scale < math.inf:
            raise ValueError(f"spatial_scale must be positive and finite, got {spatial_scale!r}")
        if in_channels is None:
            self.offset_fc = None
            return
        for name, count in (("in_channels", in_channels), ("fc_channels", fc_channels)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a positive int, got {count!r}")
        bins = self.output_size[0] * self.output_size[1]
        self.offset_fc = offset_layers(in_channels, bins, fc_channels)

    def pool(self, input: Tensor, rois: Tensor, offset: Optional[Tensor]) -> Tensor:  # noqa: UP045
        """Of offsets that are given; rois (K, 5)."""
        return torch.ops.tilewright.deform_roi_pool(
            input,
            rois,
            offset,
            self.spatial_scale,
            self.output_size[0],
            self.output_size[1],
            self.sampling_ratio,
            self.gamma,
        )

    def forward(
        self,
        input: Tensor,
        boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
        offset: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """(N, C, H, W) and boxes to (K, C, PH, PW). With an ``offset`` nothing is predicted."""
        rois = _rois(boxes, input)
        if offset is None and self.offset_fc is not None:
            if self.in_channels is not None and input.size(1) != self.in_channels:
                raise ValueError(
                    f"input must have in_channels ({self.in_channels}) channels, got "
                    f"{input.size(1)}"
                )
            still = self.pool(input, rois, None)
            found = self.offset_fc(still.flatten(1))
            offset = found.view(-1, 2, self.output_size[0], self.output_size[1])
        return self.pool(input, rois, offset)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, gamma={self.gamma}"
        )
