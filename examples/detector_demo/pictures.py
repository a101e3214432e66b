"""A picture of what was learnt: held-out images with the boxes found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: a display is neither needed nor looked for
import matplotlib.pyplot as plt
from torch import Tensor
from torch.utils.data import Dataset

_ROWS, _COLUMNS = 3, 4
_SHOWN_SCORE = 0.5
_COLOURS = plt.get_cmap("tab10").colors


def draw_detections(
    path: Path,
    scenes: Dataset,
    detections: list[dict[str, Tensor]],
    class_names: Sequence[str],
) -> None:
    """Writes a PNG of the first images: what was found in colour, the ground truth thin and white.

    Detections that score below one half are left out.
    """
    figure, axes = plt.subplots(_ROWS, _COLUMNS, figsize=(4 * _COLUMNS, 4 * _ROWS))
    for axis in axes.flat:
        axis.axis("off")
    for i, axis in zip(range(min(len(scenes), len(detections))), axes.flat, strict=False):
        image, target = scenes[i]
        axis.imshow(image.permute(1, 2, 0).numpy())
        for box in target["boxes"].tolist():
            _rectangle(axis, box, "white", 0.8)
        found = detections[i]
        rows = zip(
            found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
        )
        for box, label, score in rows:
            if score < _SHOWN_SCORE:
                continue
            colour = _COLOURS[(label - 1) % len(_COLOURS)]
            _rectangle(axis, box, colour, 2.0)
            axis.text(
                box[0],
                box[1] - 1,
                f"{class_names[label]}  {score:.2f}",
                color="white",
                fontsize=9,
                va="bottom",
                clip_on=True,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
            )
    figure.suptitle("Held-out images: detections in colour, ground truth in white", fontsize=14)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _rectangle(axis: plt.Axes, box: list[float], colour: object, width: float) -> None:
    """A box in pixel edges; matplotlib's pixel centres lie at whole numbers."""
    x1, y1, x2, y2 = box
    axis.add_patch(
        plt.Rectangle(
            (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width
        )
    )
