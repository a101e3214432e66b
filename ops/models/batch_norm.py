"""Batch norm computed with the convolution before it: the twin of ``csrc/models/batch_norm.cpp``.

Each of these modules stands beside a convolution and is called with its weight, so that fixed
statistics cost no pass over the maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    offset: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    if offset is None:
        return F.conv2d(x, weight, bias, stride, padding, dilation)
    return torch.ops.tilewright.deform_conv2d(
        x, weight, offset, mask, bias, [stride] * 2, [padding] * 2, [dilation] * 2
    )


class BatchNorm(nn.Module):
    """Numbers and names of torch's BatchNorm2d, or if frozen of torchvision's FrozenBatchNorm2d.

    ``forward(x, weight, stride, padding)`` is the normalised convolution of x with ``weight``,
    deformed by an ``offset`` (and ``mask``) where there is one. In training mode, and not frozen,
    with the statistics of the batch; else with the stored ones.
    """

    def __init__(self, channels: int, frozen: bool = False, eps: float = 1e-5):
        super().__init__()
        self.frozen = frozen
        self.eps = eps
        self.momentum = 0.1
        if frozen:
            self.register_buffer("weight", torch.ones(channels))
            self.register_buffer("bias", torch.zeros(channels))
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        if not frozen:
            self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        stride: int,
        padding: int,
        dilation: int = 1,
        offset: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if self.training and not self.frozen:
            if hasattr(self, "num_batches_tracked"):
                self.num_batches_tracked.add_(1)
            return F.batch_norm(
                _convolve(x, weight, None, stride, padding, dilation, offset, mask),
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                True,
                self.momentum,
                self.eps,
            )
        folded_weight, folded_bias = self.folded(weight)
        return _convolve(x, folded_weight, folded_bias, stride, padding, dilation, offset, mask)

    def folded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that gives what ``weight`` gives, normalised."""
        variance = _at_least_float(self.running_var) + self.eps
        scale = _at_least_float(self.weight) * variance.rsqrt()
        shift = _at_least_float(self.bias) - _at_least_float(self.running_mean) * scale
        scaled = _at_least_float(weight) * scale.view(-1, 1, 1, 1)
        return scaled.to(weight.dtype), shift.to(weight.dtype)


class FoldedBatchNorm(nn.Module):
    """What a folded batch norm leaves: the bias of the convolution, which holds the scale."""

    def __init__(self, bias: Tensor):
        super().__init__()
        self.bias = nn.Parameter(bias)

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        stride: int,
        padding: int,
        dilation: int = 1,
        offset: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        return _convolve(x, weight, self.bias, stride, padding, dilation, offset, mask)


def fold(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Writes the batch norm into the convolution and returns what has to stand in its place."""
    if not isinstance(norm, BatchNorm):
        return norm
    with torch.no_grad():
        weight, bias = norm.folded(conv.weight)
        conv.weight.copy_(weight)
    return FoldedBatchNorm(bias).train(norm.training)
