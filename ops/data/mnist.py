"""Reads MNIST as it is published: IDX files, gzipped or not, and the fixed binarisation as text.

The files of data sets that take MNIST's place (Fashion-MNIST, KMNIST) are read the same way.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .labelled import LabelledImages
from .problems import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8
_PARTS = {"train": "train", "test": "t10k"}
_BINARISED_SIDE = 28
_CHUNK = 1 << 22  # bytes of a gzipped file that are unpacked at a time


def read_idx(path: str | Path) -> Tensor:
    """Reads an IDX file: two zero bytes, a type, the number of axes, the sizes, the values.

    Args:
        path: the file; gzipped where it begins so, whatever its name.

    Returns:
        A tensor of the file's type (uint8, int8, int16, int32, float32 or float64) and sizes.

    Raises:
        DataError: naming the file, where it is missing, of another kind, cut short or too long.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
                raise DataError(
                    f"{path}: expected an IDX file, whose first bytes are 0, 0, a type (8, 9, "
                    f"11 to 14) and the number of axes, got {_told(head)}"
                )
            axes = head[3]
            if not 1 <= axes <= _MOST_AXES:
                raise DataError(f"{path}: expected 1 to {_MOST_AXES} axes, got {axes}")
            sizes = file.read(4 * axes)
            if len(sizes) < 4 * axes:
                raise DataError(f"{path}: the file is cut short within its sizes")
            shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
            dtype = np.dtype(_DTYPES[head[2]])
            wanted = math.prod(shape) * dtype.itemsize
            content = _read(file, wanted + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    if len(content) != wanted:
        got = f"{len(content)}" if len(content) < wanted else "more"
        raise DataError(
            f"{path}: expected {wanted} bytes for sizes {' x '.join(map(str, shape))}, got {got}"
        )
    values = np.frombuffer(content, dtype).reshape(shape)
    return torch.from_numpy(values.astype(dtype.newbyteorder("="), copy=True))


def load_mnist(folder: str | Path, split: str) -> LabelledImages:
    """MNIST's images (N, 1, 28, 28) uint8 and labels, of a folder with the published files.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two of `t10k`,
            with or without `.gz`, with `-` or `.` before `idx`.
        split: "train" or "test".

    Raises:
        DataError: naming the file that is missing, damaged, or does not fit the other.
        ValueError: for another split.
    """
    part = _part(split)
    images_file, labels_file = (
        _idx_file(Path(folder), f"{part}-{what}", axes)
        for what, axes in (("images", 3), ("labels", 1))
    )
    images, labels = read_idx(images_file), read_idx(labels_file)
    for file, values, axes in ((images_file, images, 3), (labels_file, labels, 1)):
        if values.ndim != axes or values.dtype != torch.uint8:
            raise DataError(
                f"{file}: expected unsigned bytes in {axes} axes, got {values.dtype} in "
                f"{values.ndim}"
            )
    if images.numel() == 0:
        raise DataError(f"{images_file}: expected images, got sizes {tuple(images.shape)}")
    if len(labels) != len(images):
        raise DataError(
            f"{labels_file}: expected {len(images)} labels, as there are images in "
            f"{images_file.name}, got {len(labels)}"
        )
    if labels.max() > 9:
        raise DataError(f"{labels_file}: expected labels from 0 to 9, got {labels.max()}")
    names = tuple(str(digit) for digit in range(10))
    return LabelledImages(images[:, None], labels.long(), names)


def read_binarised_mnist(path: str | Path) -> Tensor:
    """The fixed binarisation of MNIST (Larochelle & Murray 2011) as its text files have it.

    Args:
        path: `binarized_mnist_train.amat` (50,000 lines), `..._valid.amat` or `..._test.amat`
            (10,000 each): lines of 784 zeros and ones with blanks between. It has no labels.

    Returns:
        (N, 1, 28, 28) float32 of 0 and 1.

    Raises:
        DataError: naming the file and the line.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    pixels = _BINARISED_SIDE**2
    lines = content.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path}: expected lines of {pixels} zeros and ones, got an empty file")
    rows = np.empty((len(lines), pixels), np.uint8)
    for number, line in enumerate(lines):
        digits = np.frombuffer(b"".join(line.split()), np.uint8) - ord("0")
        if len(digits) != pixels or digits.max() > 1 or len(line.split()) != pixels:
            raise DataError(
                f"{path}: line {number + 1}: expected {pixels} zeros and ones with blanks between, "
                f"got {len(line.split())} words, '{line[:40].decode(errors='replace')}...'"
            )
        rows[number] = digits
    images = torch.from_numpy(rows).reshape(-1, 1, _BINARISED_SIDE, _BINARISED_SIDE)
    return images.float()


def _part(split: str) -> str:
    if split not in _PARTS:
        raise ValueError(f"tilewright.data: split must be one of {tuple(_PARTS)}, got {split!r}")
    return _PARTS[split]


def _idx_file(folder: Path, stem: str, axes: int) -> Path:
    """The file of that name in one of its spellings; DataError where there is none."""
    names = [f"{stem}{sep}idx{axes}-ubyte{end}" for end in ("", ".gz") for sep in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    raise DataError(f"{folder}: expected {names[0]} or {names[2]} there, found neither")


def _read(file, most: int) -> bytes:
    """Up to `most` bytes, piece by piece: a size that is a lie must not reserve memory."""
    pieces, left = [], most
    while left > 0 and (piece := file.read(min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _told(head: bytes) -> str:
    return ", ".join(map(str, head)) or "an empty file"
