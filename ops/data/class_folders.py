"""Reads a folder whose sub-folders are classes: the layout in which people keep images to sort."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .images import read_image
from .labelled import LabelledImages
from .problems import DataError

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
)
"""Files with another suffix are no images to `load_image_folder`."""

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")


def load_image_folder(
    path: str | Path,
    size: int,
    split: str,
    *,
    grey: bool = False,
    held_out: float = 0.25,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> LabelledImages:
    """The images of a folder with one sub-folder for each class, resized to one size.

    Where `path` holds the folders `train` (or `training`) and `test` (`testing`, `val`, `valid`,
    `validation`), in whatever case, these are the splits and hold the classes. Else a share of
    every class is held out, by the seed. A warning tells of files with other suffixes, which are
    left out.

    Args:
        path: the folder. Images may lie deeper in a class's folder; names that begin with a dot
            and files with other suffixes than `SUFFIXES` are not looked at.
        size: side of the square that images are scaled to (bilinear with smoothing) and then cut
            from the middle of.
        split: "train" or "test".
        grey: one channel, the mean of the colours as eyes weigh them, in place of three.
        held_out: share of each class that the test split has, where the folders do not say.
        seed: of that division; the same for the same files.
        progress: wraps the loop over files, `tqdm` for example.

    Returns:
        (N, 3 or 1, size, size) uint8; classes are the sub-folders by name.

    Raises:
        DataError: where there is no such folder, no class in it, or a class without images.
        ImageError: naming the file that is damaged.
        ValueError: for another split, and numbers out of range.
    """
    if size < 1:
        raise ValueError(f"tilewright.data: size must be at least 1, got {size}")
    if not 0 < held_out < 1:
        raise ValueError(f"tilewright.data: held_out must be in (0, 1), got {held_out}")
    names, files = _files(Path(path), split, held_out, seed)
    rows = list(progress(files) if progress else files)
    images = torch.stack([_squared(read_image(file), size, grey) for file, _ in rows])
    return LabelledImages(images, torch.tensor([label for _, label in rows]), names)


def _files(
    path: Path, split: str, held_out: float, seed: int
) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """The classes, and the files of a split with their labels, by class and name."""
    if split not in ("train", "test"):
        raise ValueError(f"tilewright.data: split must be one of ('train', 'test'), got {split!r}")
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder")
    train, others = (_named(path, names) for names in (_TRAIN, _TEST))
    if bool(train) != bool(others):
        raise DataError(
            f"{path}: expected folders of both splits, one of {', '.join(_TRAIN)} and one of "
            f"{', '.join(_TEST)}, or of neither, got {(train + others)[0].name} alone"
        )
    divided = bool(train)
    classes = _folders(train[0] if divided else path)
    if not classes:
        raise DataError(
            f"{path}: expected a sub-folder of images for each class (or train and test with those)"
            ", found none; images without classes go into one sub-folder"
        )
    names = tuple(folder.name for folder in classes)
    if divided and split == "test":
        classes = _folders(others[0])
        strange = [folder.name for folder in classes if folder.name not in names]
        if strange or not classes:
            raise DataError(
                f"{others[0]}: expected classes of {train[0]}, got "
                f"{', '.join(strange) or 'no sub-folder'}"
            )
    rows, others = [], []
    for folder in classes:
        label = names.index(folder.name)
        files = [f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")]
        found = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
        others += [file.suffix.lower() for file in files if file.suffix.lower() not in SUFFIXES]
        if not divided:
            found = _part_of_class(folder, found, split, held_out, seed)
        if not found:
            raise DataError(
                f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}), found none"
            )
        rows += [(file, label) for file in found]
    if others:
        kinds = ", ".join(sorted({suffix or "none" for suffix in others}))
        warnings.warn(
            f"{path}: {len(others)} files are no images by their suffix ({kinds}) and left out",
            stacklevel=3,
        )
    return names, rows


def _named(path: Path, names: tuple[str, ...]) -> list[Path]:
    """The sub-folders with these names, in whatever case, in the names' order."""
    found = {folder.name.lower(): folder for folder in _folders(path)}
    return [found[name] for name in names if name in found]


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _part_of_class(
    folder: Path, files: list[Path], split: str, held_out: float, seed: int
) -> list[Path]:
    """The files of a class that a split has: at least one of each."""
    if len(files) == 1:
        raise DataError(f"{folder}: expected two images at least, to train and to hold out, got 1")
    rng = np.random.Generator(np.random.Philox(key=seed))
    count = min(max(round(len(files) * held_out), 1), len(files) - 1)
    test = set(rng.permutation(len(files))[:count].tolist())
    return [file for i, file in enumerate(files) if (i in test) == (split == "test")]


def _squared(image: Tensor, size: int, grey: bool) -> Tensor:
    """(3, H, W) in [0, 1] to (C, size, size) uint8: the shorter side scaled, the middle cut out."""
    height, width = image.shape[1:]
    scale = size / min(height, width)
    scaled = (max(size, round(height * scale)), max(size, round(width * scale)))
    image = F.interpolate(image[None], scaled, mode="bilinear", antialias=True)[0]
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    image = image[:, top : top + size, left : left + size]
    if grey:
        image = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, True)
    return (image * 255.0).round().clamp(0, 255).to(torch.uint8)
