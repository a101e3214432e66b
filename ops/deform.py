"""Deformable convolution and aggregation: argument sugar over ``torch.ops.tilewright``, and the
module.

``deform_conv2d`` takes torchvision.ops' arguments and follows its forward semantics,
``deform_aggregate`` follows DCNv3's; docs/deform.md has the rules for samples at the border and for
offsets that are no numbers.
"""

from typing import List, Optional, Tuple, Union  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor, nn
from torch.jit.annotations import BroadcastingList2
from torch.nn.modules.utils import _pair

from tilewright._arguments import check_tensor

__all__ = ["DeformConv2d", "deform_aggregate", "deform_conv2d"]


def _groups_of(input: Tensor, offset: Tensor, weight: Tensor) -> Tuple[int, int]:  # noqa: UP006
    """Groups and offset groups, which the shapes tell."""
    check_tensor("input", input)
    check_tensor("offset", offset)
    check_tensor("weight", weight)
    if input.dim() != 4 or weight.dim() != 4 or offset.dim() != 4:
        raise ValueError(
            "input, offset and weight must have four dimensions, got "
            f"{input.dim()}, {offset.dim()} and {weight.dim()}"
        )
    taps = 2 * weight.size(2) * weight.size(3)
    if weight.size(1) == 0 or taps == 0:
        raise ValueError(f"weight must have no size of 0, got {list(weight.shape)}")
    if input.size(1) % weight.size(1) != 0:
        raise ValueError(
            f"weight's second size ({weight.size(1)}) must divide input's channels "
            f"({input.size(1)})"
        )
    if offset.size(1) == 0 or offset.size(1) % taps != 0:
        raise ValueError(
            "offset must have 2 * offset_groups * kernel height * width channels, a multiple of "
            f"{taps}, got {offset.size(1)}"
        )
    return input.size(1) // weight.size(1), offset.size(1) // taps


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,  # noqa: UP045
    stride: BroadcastingList2[int] = 1,
    padding: BroadcastingList2[int] = 0,
    dilation: BroadcastingList2[int] = 1,
    mask: Optional[Tensor] = None,  # noqa: UP045
) -> Tensor:
    """Deformable convolution (arXiv:1703.06211), with a mask its second version (arXiv:1811.11168).

    Args:
        input: (N, C, H, W) feature map; float64, float32, float16 or bfloat16, contiguous or
            channels last (the result has the same layout).
        offset: (N, 2 * offset_groups * KH * KW, OH, OW), in pixels, of input's dtype or float32:
            how far each tap moves down and to the right, tap by tap.
        weight: (C_out, C / groups, KH, KW), of input's dtype.
        bias: (C_out,), of input's dtype.
        stride, padding, dilation: an int or (vertical, horizontal).
        mask: (N, offset_groups * KH * KW, OH, OW), of input's dtype or float32: what each tap's
            value is multiplied by.

    Returns:
        (N, C_out, OH, OW), of input's dtype. Differentiable in all tensors, twice.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit (ValueError where the groups
            cannot be told).
    """
    groups, offset_groups = _groups_of(input, offset, weight)
    return torch.ops.tilewright.deform_conv2d(
        input,
        weight,
        offset,
        mask,
        bias,
        _pair(stride),
        _pair(padding),
        _pair(dilation),
        groups,
        offset_groups,
    )


def deform_aggregate(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel: BroadcastingList2[int],
    stride: BroadcastingList2[int] = 1,
    padding: BroadcastingList2[int] = 0,
    dilation: BroadcastingList2[int] = 1,
    groups: int = 1,
    offset_scale: float = 1.0,
) -> Tensor:
    """The operator at the core of DCNv3 (InternImage, arXiv:2211.05778) and DCNv4
    (arXiv:2401.06197): what a kernel's taps read where offsets move them, weighed by masks.

    Taps are counted column by column, k = kx * KH + ky, as in DCNv3. ``offset_scale`` stretches
    their grid and the offsets around the kernel's centre.

    Args:
        input: (N, H, W, C) feature map, channels last; float64, float32, float16 or bfloat16. Group
            g owns channels [g * C / groups, (g + 1) * C / groups).
        offset: (N, OH, OW, groups * KH * KW * 2), (x, y) of each tap of each group in pixels, to
            the right and then down; of input's dtype or float32.
        mask: (N, OH, OW, groups * KH * KW), of input's dtype or float32, taken as it is: DCNv3
            applies a softmax over a group's taps before, DCNv4 does not.
        kernel, stride, padding, dilation: an int or (vertical, horizontal).

    Returns:
        (N, OH, OW, C), of input's dtype. Differentiable in all three tensors, twice.

    Raises:
        RuntimeError: on shapes, dtypes, devices or numbers that do not fit.
    """
    return torch.ops.tilewright.deform_aggregate(
        input,
        offset,
        mask,
        _pair(kernel),
        _pair(stride),
        _pair(padding),
        _pair(dilation),
        groups,
        offset_scale,
    )


def whole_pair(name: str, value, least: int) -> Tuple[int, int]:  # noqa: UP006
    """(vertical, horizontal) of an int or two; for constructors."""
    pair = (value, value) if isinstance(value, int) else value
    good = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not good or not all(isinstance(one, int) and one >= least for one in pair):
        raise ValueError(
            f"{name} must be an int of at least {least}, or two of them (vertical, horizontal), "
            f"got {value!r}"
        )
    return pair[0], pair[1]


class DeformConv2d(nn.Module):
    """A deformable convolution that predicts its own offsets, and masks, from its input.

    A plain convolution with the same kernel, stride, padding and dilation, ``conv_offset``, gives
    2 * offset_groups * KH * KW offsets a place and, where ``modulated``, as many halves of those as
    logits of masks. It begins at zero: offsets of 0, masks of 1/2.

    State dicts of torchvision's ``DeformConv2d`` (``weight``, ``bias``) load as they are,
    ``conv_offset`` staying as it is; so do those of mmcv's ``DeformConv2dPack``
    (``modulated=False``) and ``ModulatedDeformConv2dPack``, and of DCNv2, whose ``conv_offset`` is
    ``conv_offset_mask``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of
            ``torch.nn.Conv2d``; kernels and the like are ints or (vertical, horizontal). Padding is
            given in pixels, not by a name.
        offset_groups: groups of channels that move together.
        modulated: predict masks as well (version 2).

    Raises:
        ValueError: for numbers that cannot be.
    """

    __constants__ = ("stride", "padding", "dilation", "groups", "offset_groups", "modulated")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Union[int, Tuple[int, int]],  # noqa: UP006, UP007
        stride: Union[int, Tuple[int, int]] = 1,  # noqa: UP006, UP007
        padding: Union[int, Tuple[int, int]] = 0,  # noqa: UP006, UP007
        dilation: Union[int, Tuple[int, int]] = 1,  # noqa: UP006, UP007
        groups: int = 1,
        bias: bool = True,
        offset_groups: int = 1,
        modulated: bool = True,
    ):
        super().__init__()
        for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a positive int, got {count!r}")
            if groups < 1 or count % groups != 0:
                raise ValueError(f"groups ({groups}) must divide {name} ({count})")
        if offset_groups < 1 or in_channels % offset_groups != 0:
            raise ValueError(
                f"offset_groups ({offset_groups}) must divide in_channels ({in_channels})"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = whole_pair("kernel_size", kernel_size, 1)
        self.stride = whole_pair("stride", stride, 1)
        self.padding = whole_pair("padding", padding, 0)
        self.dilation = whole_pair("dilation", dilation, 1)
        self.groups, self.offset_groups, self.modulated = groups, offset_groups, modulated
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("bias", None)
        self.offset_taps = offset_groups * self.kernel_size[0] * self.kernel_size[1]
        self.conv_offset = nn.Conv2d(
            in_channels,
            (3 if modulated else 2) * self.offset_taps,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
        )
        self.reset_parameters()

    @torch.jit.unused
    def reset_parameters(self):
        """The weights as ``torch.nn.Conv2d`` begins; offsets of 0."""
        nn.Conv2d.reset_parameters(self)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def predict(self, input: Tensor) -> Tuple[Tensor, Optional[Tensor]]:  # noqa: UP006, UP045
        """Offsets, (N, 2 * offset_groups * KH * KW, OH, OW), and masks, or None."""
        if input.dim() != 4:
            raise ValueError(f"input must have shape (N, C, H, W), got {list(input.shape)}")
        found = self.conv_offset(input)
        if not self.modulated:
            return found, None
        taps = self.offset_taps
        return found[:, : 2 * taps], found[:, 2 * taps :].sigmoid()

    def forward(
        self,
        input: Tensor,
        offset: Optional[Tensor] = None,  # noqa: UP045
        mask: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """(N, C, H, W) to (N, C_out, OH, OW). With an ``offset`` (and ``mask``), as torchvision's
        module takes them, nothing is predicted."""
        if offset is None:
            if mask is not None:
                raise ValueError("mask needs an offset beside it")
            offset, mask = self.predict(input)
        return torch.ops.tilewright.deform_conv2d(
            input,
            self.weight,
            offset,
            mask,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.offset_groups,
        )

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest):
        names = {kind: f"{prefix}conv_offset.{kind}" for kind in ("weight", "bias")}
        for kind, name in names.items():
            early = f"{prefix}conv_offset_mask.{kind}"
            if early in state_dict and name not in state_dict:
                state_dict[name] = state_dict.pop(early)
        if not any(name in state_dict for name in names.values()):
            for kind, name in names.items():  # torchvision's: the offsets come from elsewhere
                state_dict[name] = getattr(self.conv_offset, kind).detach()
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)

    def extra_repr(self) -> str:
        names: List[str] = [  # noqa: UP006
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        ]
        for name in ("stride", "padding", "dilation", "groups", "offset_groups", "modulated"):
            names.append(f"{name}={getattr(self, name)}")
        return ", ".join(names) + ("" if self.bias is not None else ", bias=False")
