"""RoI pooling: argument sugar over ``torch.ops.tilewright``.

The functions that torchvision.ops has take its arguments and follow its forward semantics. All of
them can be used inside ``torch.jit.script``, ``torch.compile`` and ``torch.export``; the rules for
NaN, infinite and degenerate boxes are in docs/detection.md.
"""

from typing import List, Union  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor, nn
from torch.jit.annotations import BroadcastingList2
from torch.nn.modules.utils import _pair

from tilewright._arguments import check_tensor

__all__ = [
    "PSRoIAlign",
    "PSRoIPool",
    "RoIPool",
    "multiscale_roi_align",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
]


def _rois(boxes: Union[Tensor, List[Tensor]], input: Tensor) -> Tensor:  # noqa: UP006, UP007
    """(K, 5) boxes as they are; a list of (n_i, 4) boxes per image of input with the image's index
    in front."""
    check_tensor("input", input)
    if isinstance(boxes, Tensor):
        return boxes
    if not torch.jit.is_scripting() and not isinstance(boxes, (list, tuple)):
        raise ValueError(
            "boxes must be a (K, 5) tensor or a list of one (n, 4) tensor per image, got "
            f"{type(boxes).__name__}"
        )
    if len(boxes) != input.size(0):
        raise ValueError(
            f"boxes must hold one tensor per image ({input.size(0)}), got {len(boxes)}"
        )
    return torch.ops.tilewright.boxes_to_rois(boxes)


def _rois_of_levels(
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    features: List[Tensor],  # noqa: UP006
) -> Tensor:
    """_rois for the levels of a pyramid."""
    if len(features) == 0:
        raise ValueError("features must hold at least one feature map, got none")
    return _rois(boxes, features[0])


def _bins(output_size: BroadcastingList2[int]) -> List[int]:  # noqa: UP006
    """Height and width of the grid of bins."""
    size = _pair(output_size)
    if len(size) != 2:
        raise ValueError(f"output_size must be an int or (height, width), got {output_size}")
    return size


def roi_align(
    input: Tensor,
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign (Mask R-CNN, arXiv:1703.06870).

    Args:
        input: (N, C, H, W) feature map; float64, float32, float16 or bfloat16, contiguous or
            channels last (the result has the same layout).
        boxes: (K, 5) of image index, x1, y1, x2, y2, or a list of one (n_i, 4) tensor per image; in
            image coordinates, of input's dtype or float32.
        output_size: bins, an int or (height, width).
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin and axis; <= 0 takes one per pixel.
        aligned: shift by half a pixel, so that pixel centres lie at integers.

    Returns:
        (K, C, height, width), of input's dtype. Differentiable in input, twice.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit; on the CPU also for an image
            index out of range (on CUDA such a box gives 0).
    """
    size = _bins(output_size)
    return torch.ops.tilewright.roi_align(
        input, _rois(boxes, input), spatial_scale, size[0], size[1], sampling_ratio, aligned
    )


def roi_align_rotated(
    input: Tensor,
    boxes: Tensor,
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = True,
) -> Tensor:
    """RoIAlign over rotated boxes (RRPN, arXiv:1703.01086); the bins lie along the box's own axes.

    Args:
        input: as for :func:`roi_align`.
        boxes: (K, 6) of image index, centre x, centre y, width, height, angle; in image
            coordinates, of input's dtype or float32. The angle is in radians, positive
            counter-clockwise as seen in the image: Detectron2's degrees times pi / 180.
        output_size, spatial_scale, sampling_ratio: as for :func:`roi_align`.
        aligned: shift by half a pixel; False widens boxes to one pixel.

    Returns:
        (K, C, height, width), of input's dtype. Differentiable in input, twice.

    Raises:
        RuntimeError: as :func:`roi_align`.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.roi_align_rotated(
        input, boxes, spatial_scale, size[0], size[1], sampling_ratio, aligned
    )


def multiscale_roi_align(
    features: List[Tensor],  # noqa: UP006
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    output_size: BroadcastingList2[int],
    spatial_scales: List[float],  # noqa: UP006
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_scale: int = 224,
    canonical_level: int = 4,
) -> Tensor:
    """RoIAlign over a feature pyramid (FPN, arXiv:1612.03144): each box from the level that fits
    it.

    Args:
        features: 1 to 16 maps (N, C, H_l, W_l), finest first.
        boxes: as for :func:`roi_align`.
        output_size: bins, an int or (height, width).
        spatial_scales: one per map, each half of the one before.
        sampling_ratio: samples per bin and axis; <= 0 takes one per pixel.
        aligned: as for :func:`roi_align`.
        canonical_scale: side of a box, in pixels of the image, that belongs to ``canonical_level``.
        canonical_level: level l is the map of scale 2^-l.

    Returns:
        (K, C, height, width). Differentiable in features, twice.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.multiscale_roi_align(
        features,
        _rois_of_levels(boxes, features),
        spatial_scales,
        size[0],
        size[1],
        sampling_ratio,
        aligned,
        canonical_scale,
        canonical_level,
    )


def roi_pool(
    input: Tensor,
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """RoIPool (Fast R-CNN, arXiv:1504.08083): each bin is the greatest of its pixels.

    Args:
        input: as for :func:`roi_align`, of fewer than 2^31 pixels per channel.
        boxes: as for :func:`roi_align`; scaled corners are rounded to pixels, x2 and y2 belong to
            the box.
        output_size: bins, an int or (height, width).
        spatial_scale: pixels of the feature map per pixel of the image.

    Returns:
        (K, C, height, width), of input's dtype. Differentiable in input, twice. Which pixels were
        taken is the second result of ``torch.ops.tilewright.roi_pool``.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.roi_pool(
        input, _rois(boxes, input), spatial_scale, size[0], size[1]
    )[0]


def ps_roi_align(
    input: Tensor,
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Position-sensitive RoIAlign (R-FCN, arXiv:1605.06409): every bin has channels of its own.

    Args:
        input: as for :func:`roi_align`, with a multiple of height * width channels.
        boxes: as for :func:`roi_align`; they are shifted by half a pixel.
        output_size: bins, an int or (height, width).
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin and axis; <= 0 takes one per pixel.

    Returns:
        (K, C / (height * width), height, width), of input's dtype. Differentiable in input, twice.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.ps_roi_align(
        input, _rois(boxes, input), spatial_scale, size[0], size[1], sampling_ratio
    )[0]


def ps_roi_pool(
    input: Tensor,
    boxes: Union[Tensor, List[Tensor]],  # noqa: UP006, UP007
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
) -> Tensor:
    """Position-sensitive RoIPool (R-FCN, arXiv:1605.06409): the average of a bin's pixels, in
    channels of its own.

    Args:
        input: as for :func:`roi_align`, with a multiple of height * width channels.
        boxes: as for :func:`roi_align`; scaled corners are rounded to pixels.
        output_size: bins, an int or (height, width).
        spatial_scale: pixels of the feature map per pixel of the image.

    Returns:
        (K, C / (height * width), height, width), of input's dtype. Differentiable in input, twice.
        As in torchvision, the map's last row and column are never pooled.
    """
    size = _bins(output_size)
    return torch.ops.tilewright.ps_roi_pool(
        input, _rois(boxes, input), spatial_scale, size[0], size[1]
    )[0]


class RoIPool(nn.Module):
    """:func:`roi_pool` as a module."""

    def __init__(self, output_size: BroadcastingList2[int], spatial_scale: float):
        super().__init__()
        self.output_size, self.spatial_scale = _pair(output_size), spatial_scale

    def forward(self, input: Tensor, rois: Union[Tensor, List[Tensor]]) -> Tensor:  # noqa: UP006, UP007
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class PSRoIAlign(nn.Module):
    """:func:`ps_roi_align` as a module."""

    def __init__(
        self, output_size: BroadcastingList2[int], spatial_scale: float, sampling_ratio: int
    ):
        super().__init__()
        self.output_size, self.spatial_scale = _pair(output_size), spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Union[Tensor, List[Tensor]]) -> Tensor:  # noqa: UP006, UP007
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}"
        )


class PSRoIPool(nn.Module):
    """:func:`ps_roi_pool` as a module."""

    def __init__(self, output_size: BroadcastingList2[int], spatial_scale: float):
        super().__init__()
        self.output_size, self.spatial_scale = _pair(output_size), spatial_scale

    def forward(self, input: Tensor, rois: Union[Tensor, List[Tensor]]) -> Tensor:  # noqa: UP006, UP007
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
