"""What the readers of labelled images hand on: one tensor of images, and the class of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright._arguments import check_tensor

from .digits import load_split

_ROUNDING = 0.01  # by which images may leave [0, 1], as those of augmentations


@dataclass(frozen=True)
class LabelledImages:
    """Images of one size with a class each.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or float32 in [0, 1].
        labels: (N,) int64 in [0, len(class_names)).
        class_names: name of every label.

    Raises:
        ValueError: for anything else.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        for name, given in (("images", images), ("labels", labels)):
            check_tensor(f"tilewright.data: {name}", given)
        if not isinstance(self.class_names, (tuple, list)):
            raise ValueError(
                f"tilewright.data: class_names must be a tuple of names, got {self.class_names!r}"
            )
        if images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                "tilewright.data: images must have shape (N, C, H, W) and be uint8 or float32, got "
                f"{tuple(images.shape)} {images.dtype}"
            )
        if images.is_floating_point() and images.numel() > 0:
            least, most = (float(value) for value in images.aminmax())
            if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):
                raise ValueError(
                    f"tilewright.data: float32 images must lie in [0, 1], got {least:g} to "
                    f"{most:g} (divide images in 0..255 by 255, or give them as uint8)"
                )
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"tilewright.data: labels must have shape ({len(images)},) and be int64, got "
                f"{tuple(labels.shape)} {labels.dtype}"
            )
        wrong = labels[(labels < 0) | (labels >= len(self.class_names))]
        if len(wrong):
            raise ValueError(
                f"tilewright.data: labels must be in [0, {len(self.class_names)}), got {wrong[0]}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def floats(self, rows: Tensor | None = None) -> Tensor:
        """The images, or those of some rows (n,) int64, as float32 in [0, 1]."""
        images = self.images if rows is None else self.images[rows]
        return images.float() / 255.0 if images.dtype == torch.uint8 else images

    def binarised(self, threshold: float = 0.5) -> LabelledImages:
        """The same with pixels of 0 and 1, float32: 1 from `threshold` (of [0, 1]) upwards."""
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"tilewright.data: threshold must be in (0, 1], got {threshold}")
        return LabelledImages((self.floats() >= threshold).float(), self.labels, self.class_names)


def load_digits_images(split: str, binarised: bool = False) -> LabelledImages:
    """scikit-learn's 1797 scanned digits, (N, 1, 8, 8) float32 in [0, 1].

    Args:
        split: "train": three quarters of every class, "test": the others; always the same, and the
            same as of the scenes that `DigitScenes` makes.
        binarised: pixels of 0 and 1 instead: 1 from a grey value of 8 of 16 upwards.

    Raises:
        ValueError: for another split.
        ImportError: where scikit-learn, which ships the scans, is missing.
    """
    scans = load_split(split)
    cells = torch.from_numpy(scans.scans[:, None, 1:-1, 1:-1].copy())  # without the empty border
    names = tuple(str(digit) for digit in range(10))
    data = LabelledImages(cells, torch.from_numpy(scans.values), names)
    return data.binarised() if binarised else data
