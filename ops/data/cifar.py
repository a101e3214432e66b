"""Reads CIFAR-10 as its binary version is published: records of a label and 32 x 32 colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .labelled import LabelledImages
from .problems import DataError

_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue


def read_cifar_batch(path: str | Path) -> LabelledImages:
    """One binary batch, `data_batch_1.bin` for example: (N, 3, 32, 32) uint8 and labels.

    Raises:
        DataError: naming the file, where it is missing, no whole number of records, or has a label
            above 9.
    """
    path = Path(path)
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    if len(content) == 0 or len(content) % _RECORD:
        raise DataError(
            f"{path}: expected records of {_RECORD} bytes (a label and 3 x 32 x 32 colours), got "
            f"{len(content)} bytes"
        )
    records = torch.from_numpy(content).reshape(-1, _RECORD)
    labels = records[:, 0].long()
    wrong = (labels > 9).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{path}: record {row}: expected a label from 0 to 9, got {int(labels[row])}"
        )
    return LabelledImages(records[:, 1:].reshape(-1, 3, 32, 32).clone(), labels, _NAMES)


def load_cifar10(folder: str | Path, split: str) -> LabelledImages:
    """CIFAR-10 of a folder with the published files.

    Args:
        folder: holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`; or the folder
            `cifar-10-batches-bin` that does. The batches there are read, one at least.
        split: "train" or "test".

    Raises:
        DataError: naming the folder where there are none, or the file that is damaged.
        ValueError: for another split.
    """
    folder = Path(folder)
    if split not in ("train", "test"):
        raise ValueError(f"tilewright.data: split must be one of ('train', 'test'), got {split!r}")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    name = "data_batch_*.bin" if split == "train" else "test_batch.bin"
    batches = [read_cifar_batch(path) for path in sorted(folder.glob(name))]
    if not batches:
        raise DataError(f"{folder}: expected {name} there, found none")
    images, labels = (
        torch.cat([getattr(batch, key) for batch in batches]) for key in ("images", "labels")
    )
    return LabelledImages(images, labels, _NAMES)
