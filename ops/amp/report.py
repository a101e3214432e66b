"""What gradients lose in a narrow format: their exponents, layer by layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tilewright.amp.formats import FloatFormat, format_of
from tilewright.amp.operators import gradient_exponents

_BIAS = 127  # of the operator's counts: float32's
_NOT_FINITE = 255


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """Of the gradients of one layer; shares are of those that are finite and not 0.

    Attributes:
        name: the module's.
        counts: (256,) int64, by float32's exponent: :func:`gradient_exponents`, without the scale.
        flushed: the share that rounds to 0, in whole columns of powers of 2: where the scale is no
            power of 2, of a column that rounds to 0 in part the whole.
        subnormal: the share that keeps some of its digits.
        overflowed: the share that is certain to round to infinity: columns are whole powers of 2,
            and the last part of the largest finite one is not counted.
        zeros: the share of all that is 0 before (or below 2^-126).
        not_finite: how many are inf or NaN before.
    """

    name: str
    counts: Tensor
    flushed: float
    subnormal: float
    overflowed: float
    zeros: float
    not_finite: int


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """What :func:`report` found: printed it is a table, and it draws itself.

    Attributes:
        layers: in the model's order; those without a gradient are left out.
        total: of all layers together.
        format: which format gradients would be kept in.
        scale: the present scale.
        advised_scale: the power of 2 that the gradients ask for: the least at which none vanishes,
            or what the largest gradient allows, where that is less. 1 where all are 0.
    """

    layers: list[LayerReport]
    total: LayerReport
    format: FloatFormat
    scale: float
    advised_scale: float

    def __str__(self) -> str:
        head = ("layer", "largest", "flushed", "subnormal", "overflow", "zero", "inf, NaN")
        rows = [head]
        for layer in [*self.layers, self.total]:
            top = _largest(layer.counts)
            rows.append(
                (
                    layer.name,
                    "-" if top is None else f"< 2^{top + 1}",
                    f"{layer.flushed:.2%}",
                    f"{layer.subnormal:.2%}",
                    f"{layer.overflowed:.2%}",
                    f"{layer.zeros:.2%}",
                    str(layer.not_finite),
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * len(lines[0]))
        lines.insert(-1, "-" * len(lines[0]))
        return "\n".join(
            [
                f"gradients in {self.format.name} at a loss scale of {self.scale:g} "
                f"(advised: {self.advised_scale:g})",
                *lines,
            ]
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """A row for each layer, a column for each exponent, and what the format makes of them.

        Args:
            path: file to write, by its suffix; without one nothing is written.

        Returns:
            the matplotlib figure.
        """
        from tilewright.amp.report_plot import draw

        return draw(self, path)


def report(
    model: nn.Module | Iterable[tuple[str, Tensor]],
    scale: Any = 1.0,
    *,
    format: torch.dtype | str = torch.float16,
    scaled: bool = False,
    headroom: int = 3,
) -> GradientReport:
    """What a narrow format makes of a model's gradients, after ``backward()``.

    Args:
        model: a module, or pairs of names and gradients.
        scale: the present loss scale, a number or a scaler with ``get_scale()``.
        format: the format gradients would be kept in: a dtype, or a name that
            :func:`~tilewright.amp.format_of` knows.
        scaled: whether gradients hold the scale still, as before ``unscale_``; taken out as the
            nearest power of 2.
        headroom: powers of 2 that the advised scale leaves above the largest gradient.

    Raises:
        ValueError: where there is no gradient, or the scale is not positive and finite.
    """
    number = float(scale.get_scale() if hasattr(scale, "get_scale") else scale)
    if not 0 < number < math.inf:
        raise ValueError(f"scale must be positive and finite, got {number}")
    kept = format_of(format)
    shift = math.log2(number)
    layers = []
    for name, grads in _by_layer(model).items():
        counts = sum(_counts(grad) for grad in grads)
        if scaled:
            counts = _moved(counts, -round(shift))
        layers.append(_judged(name, counts, kept, shift))
    if not layers:
        raise ValueError("the model has no gradients: call backward() before")
    total = _judged("all", sum(layer.counts for layer in layers), kept, shift)
    return GradientReport(layers, total, kept, number, _advised(total.counts, kept, headroom))


def _by_layer(model: Any) -> dict[str, list[Tensor]]:
    """Parameters of one module together."""
    if isinstance(model, nn.Module):
        named = ((name, p.grad) for name, p in model.named_parameters())
        pairs = ((name.rpartition(".")[0] or name, grad) for name, grad in named)
    else:
        pairs = _checked(model)
    found: dict[str, list[Tensor]] = {}
    for name, grad in pairs:
        if grad is not None:
            found.setdefault(name, []).append(grad)
    return found


def _checked(pairs: Any) -> list[tuple[str, Tensor | None]]:
    """Names and gradients, or an error that says what came."""
    wanted = "model must be a module, or pairs of names and gradients"
    if not isinstance(pairs, Iterable) or isinstance(pairs, (Tensor, str, dict)):
        raise ValueError(f"{wanted}, got {type(pairs).__name__}")
    pairs = list(pairs)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"{wanted}, got {type(pair).__name__} among them")
        if isinstance(pair[1], nn.Parameter):
            raise ValueError(f"{wanted}, got the parameter {pair[0]!r} itself")
        if pair[1] is not None and not isinstance(pair[1], Tensor):
            raise ValueError(f"{wanted}, got {type(pair[1]).__name__} as {pair[0]!r}")
    return pairs


def _counts(grad: Tensor) -> Tensor:
    if grad.layout == torch.sparse_coo:
        grad = grad.coalesce()._values()
    return gradient_exponents([grad.detach()]).cpu()


def _moved(counts: Tensor, by: int) -> Tensor:
    """Of the same numbers times 2^by; what leaves float32's range is counted at its ends."""
    moved = torch.zeros_like(counts)
    moved[_NOT_FINITE] = counts[_NOT_FINITE]
    moved[0] = counts[0]
    places = (torch.arange(1, _NOT_FINITE) + by).clamp(1, _NOT_FINITE - 1)
    return moved.index_add_(0, places, counts[1:_NOT_FINITE])


def _judged(name: str, counts: Tensor, kept: FloatFormat, shift: float) -> LayerReport:
    exponents = torch.arange(256) - _BIAS + shift  # the least of each column, scaled
    numbers = counts.clone()
    numbers[0] = numbers[_NOT_FINITE] = 0
    count = max(int(numbers.sum()), 1)
    # Half of the smallest number rounds to even, which is 0: a column below that vanishes whole.
    flushed = exponents < kept.min_exponent - kept.mantissa_bits - 1
    overflowed = exponents >= kept.max_exponent + 1
    subnormal = ~flushed & (exponents < kept.min_exponent)
    return LayerReport(
        name=name,
        counts=counts,
        flushed=int(numbers[flushed].sum()) / count,
        subnormal=int(numbers[subnormal].sum()) / count,
        overflowed=int(numbers[overflowed].sum()) / count,
        zeros=int(counts[0]) / max(int(counts.sum()), 1),
        not_finite=int(counts[_NOT_FINITE]),
    )


def _largest(counts: Tensor) -> int | None:
    """The greatest exponent of a number that is finite and not 0."""
    found = counts[1:_NOT_FINITE].nonzero()
    return None if len(found) == 0 else int(found[-1]) + 1 - _BIAS


def _advised(counts: Tensor, kept: FloatFormat, headroom: int) -> float:
    found = counts[1:_NOT_FINITE].nonzero()
    if len(found) == 0:
        return 1.0
    least, largest = int(found[0]) + 1 - _BIAS, int(found[-1]) + 1 - _BIAS
    needed = max(kept.min_exponent - kept.mantissa_bits - least, 0)
    allowed = kept.max_exponent - headroom - largest
    return math.ldexp(1.0, max(min(needed, allowed, 126), -126))
