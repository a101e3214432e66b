"""The picture of a gradient report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tilewright.amp.report import GradientReport

_BIAS = 127
_ZONES = {"vanishes": "tab:red", "loses digits": "tab:orange", "overflows": "tab:purple"}


def draw(report: GradientReport, path: str | Path | None) -> Any:
    """A matplotlib figure; see :meth:`GradientReport.plot`."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    table = np.array([layer.counts[1:255].numpy() for layer in report.layers], dtype=float)
    table /= np.maximum(table.sum(1, keepdims=True), 1)
    kept, shift = report.format, math.log2(report.scale)
    # In exponents of gradients without the scale.
    edges = {
        "vanishes": kept.min_exponent - kept.mantissa_bits - 1 - shift,
        "loses digits": kept.min_exponent - shift,
        "overflows": kept.max_exponent + 1 - shift,
    }
    held = np.flatnonzero(table.sum(0))
    first, last = (held[0], held[-1]) if len(held) else (_BIAS - 1, _BIAS - 1)
    low = min(first + 1 - _BIAS, edges["vanishes"]) - 2
    high = max(last + 1 - _BIAS, edges["overflows"]) + 3

    figure = Figure(figsize=(9, max(1.6 + 0.28 * len(report.layers), 3.2)), layout="constrained")
    axes = figure.subplots()
    shown = np.ma.masked_equal(table, 0)
    least = max(float(table[table > 0].min()) if len(held) else 1e-6, 1e-6)
    image = axes.imshow(
        shown,
        aspect="auto",
        cmap="viridis",
        norm=LogNorm(vmin=min(least, 0.5), vmax=1),
        extent=(1 - _BIAS, 255 - _BIAS, len(report.layers) - 0.5, -0.5),
        interpolation="nearest",
        zorder=1,  # over the zones: its colours are those of the bar
    )
    spans = {
        "vanishes": (low, edges["vanishes"]),
        "loses digits": (edges["vanishes"], edges["loses digits"]),
        "overflows": (edges["overflows"], high),
    }
    for name, (begin, end) in spans.items():
        axes.axvspan(begin, end, color=_ZONES[name], alpha=0.18, label=name, linewidth=0, zorder=0)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(report.layers)), [layer.name for layer in report.layers])
    axes.set_xlabel("exponent of the gradient, as a power of 2")
    axes.set_title(
        f"gradients in {kept.name}, loss scale {report.scale:g} (advised {report.advised_scale:g})"
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.colorbar(image, ax=axes, label="share of the layer's gradients")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
