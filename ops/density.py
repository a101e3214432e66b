"""Densities of binary vectors: argument sugar over ``torch.ops.tilewright``, and the layer that
MADE and FVSBN are made of.

docs/density.md has the formulas. The functions can be used inside ``torch.jit.script``,
``torch.compile`` and ``torch.export``. The models are in :mod:`tilewright.models`.
"""

import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_tensor

__all__ = ["MaskedLinear", "binary_log_prob", "nade", "nade_sample"]


def nade(
    x: Tensor, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor
) -> Tensor:
    """Exact log likelihood under a neural autoregressive distribution estimator (Larochelle and
    Murray 2011, NADE), in O(D H) for each row, forward and backward.

    ``log p(x) = sum over d of log p(x_d | x_<d)``, with ``p(x_d = 1 | x_<d) = sigmoid(bias_out_d +
    weight_out[d] . h_d)`` and ``h_d = sigmoid(bias_in + sum over i < d of x_i weight_in[:, i])``.

    Args:
        x: (N, D) zeros and ones of the weights' dtype: data, without a gradient.
        weight_in: (H, D); float64, float32, float16 or bfloat16.
        bias_in: (H,).
        weight_out: (D, H).
        bias_out: (D,).

    Returns:
        (N,) in nats; float64 of float64 and else float32. Differentiable in weights and biases,
        twice; second derivatives store all N D H hidden units.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit, on an ``x`` that requires a
            gradient, and on the CPU on pixels that are neither 0 nor 1.
    """
    return torch.ops.tilewright.nade(x, weight_in, bias_in, weight_out, bias_out)


def nade_sample(
    n: int,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    given: Optional[Tensor] = None,  # noqa: UP045
    generator: Optional[torch.Generator] = None,  # noqa: UP045
) -> Tensor:
    """Draws rows from the model of :func:`nade`, or completes rows of which the first pixels are
    known.

    Args:
        n: how many rows.
        weight_in, bias_in, weight_out, bias_out: as :func:`nade`.
        given: (n, d), d <= D, zeros and ones of the weights' dtype: the first d pixels.
        generator: of uniform numbers, on the weights' device; torch's default unless given.

    Returns:
        (n, D) zeros and ones of the weights' dtype, without a gradient.

    Raises:
        RuntimeError: as :func:`nade`, and on a negative ``n``.
    """
    return torch.ops.tilewright.nade_sample(
        n, weight_in, bias_in, weight_out, bias_out, given, generator
    )


def binary_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """log p of binary vectors whose pixels are independent, ``p(x_d = 1) = sigmoid(logits_d)``.

    Args:
        logits: (..., D); float64, float32, float16 or bfloat16.
        x: (..., D), zeros and ones of any dtype.

    Returns:
        (...) in nats; float64 of float64 and else float32.

    Raises:
        RuntimeError: on shapes that differ, and on the CPU on pixels that are neither 0 nor 1
            (where no program is traced).
    """
    return torch.ops.tilewright.binary_log_prob(logits, x)


class MaskedLinear(nn.Module):
    """A linear layer of which some weights are always 0: ``F.linear(x, weight * mask, bias)``.

    Args:
        mask: (out, in), or (M, out, in) for M masks over the same weights (Germain et al. 2015,
            arXiv:1502.03509): True or 1 where a weight counts.
        bias: whether there is one.

    Parameters ``weight`` (out, in) and ``bias`` (out,) begin as those of ``nn.Linear`` of as many
    inputs as a unit sees. ``mask`` is a buffer of the weight's dtype, which a state dict does not
    hold: it is part of the architecture.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, bias: bool = True):
        super().__init__()
        check_tensor("tilewright::MaskedLinear: mask", mask, "(out, in) or (M, out, in)")
        if mask.dim() not in (2, 3) or mask.numel() == 0:
            raise ValueError(
                "tilewright::MaskedLinear: mask must have shape (out, in) or (M, out, in), got "
                f"{tuple(mask.shape)}"
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("tilewright::MaskedLinear: mask must hold zeros and ones alone")
        masks = mask if mask.dim() == 3 else mask[None]
        self.num_masks, self.out_features, self.in_features = masks.shape
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features))
        self.bias = nn.Parameter(torch.empty(self.out_features)) if bias else None
        self.register_buffer("mask", masks.to(self.weight.dtype), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(inputs that a unit sees, on average), as ``nn.Linear`` has it."""
        seen = max(1.0, float(self.mask.sum(2).mean()))
        bound = 1 / math.sqrt(seen)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, index: int = 0) -> Tensor:
        """(..., in) to (..., out), through mask ``index``."""
        return F.linear(x, self.weight * self.mask[index], self.bias)

    def extra_repr(self) -> str:
        """What printing the module shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, num_masks={self.num_masks}"
        )
