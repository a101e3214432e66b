"""Pictures of a training: losses by step, a map of representations, images beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .optional import required


def pyplot() -> Any:
    """matplotlib.pyplot that writes files: a display is neither needed nor looked for."""
    required("matplotlib", "pictures are matplotlib's").use("Agg")
    return required("matplotlib.pyplot", "pictures are matplotlib's")


def draw_losses(path: Path, losses: Sequence[dict[str, float]]) -> None:
    """Writes a PNG of every loss over the optimizer steps, each a mean over nearby steps."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(9, 5))
    width = max(1, min(25, len(losses) // 4))
    window = np.ones(width) / width
    names = list(losses[0]) if losses else []
    for name in names:
        values = np.convolve([step[name] for step in losses], window, mode="valid")
        axis.plot(np.arange(len(values)) + width, values, label=name)
    if len(names) > 1:
        total = np.convolve([sum(step.values()) for step in losses], window, mode="valid")
        axis.plot(np.arange(len(total)) + width, total, label="sum", color="black", linewidth=2)
    if all(value > 0 for step in losses for value in step.values()):
        axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel(f"loss, mean of {width} steps")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_map(
    path: Path,
    maps: dict[str, Tensor],
    labels: Tensor,
    class_names: Sequence[str],
) -> None:
    """Writes a PNG with one panel for each of `maps`, by its title: points (N, 2) in the colours of
    their labels (N,)."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(maps), figsize=(7 * len(maps), 6.5), squeeze=False)
    colours = plt.get_cmap("tab10" if len(class_names) <= 10 else "tab20")
    for axis, (title, points) in zip(axes[0], maps.items(), strict=True):
        for label, name in enumerate(class_names):
            chosen = points[labels == label]
            axis.scatter(
                chosen[:, 0], chosen[:, 1], s=10, color=colours(label % colours.N), label=name
            )
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    if len(class_names) <= 20:
        axes[0][-1].legend(markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_images(path: Path, rows: dict[str, Tensor]) -> None:
    """Writes a PNG of images (N, C, H, W) in [0, 1] beside each other, one row for each name."""
    plt = pyplot()
    most = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), most, figsize=(0.8 * most + 1.2, 0.85 * len(rows) + 0.2), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].text(-0.3, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
        for axis, image in zip(line, images, strict=False):
            pixels = image.float().clamp(0, 1).permute(1, 2, 0).numpy()
            axis.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray_r")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
