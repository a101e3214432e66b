"""The images that ``python -m tilewright train`` can be given, by the kind of data."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch
from torch import Tensor

from tilewright.data import (
    DataError,
    LabelledImages,
    load_cifar10,
    load_digits_images,
    load_image_folder,
    load_mnist,
    read_binarised_mnist,
)

from .optional import required

KINDS = ("digits", "mnist", "cifar10", "folder")

_BINARISED = {"train": "binarized_mnist_train.amat", "test": "binarized_mnist_test.amat"}


def open_images(
    kind: str, path: Path | None, size: int, binary: bool
) -> tuple[LabelledImages, LabelledImages, str]:
    """The training and the test images of a kind, and in words what they are.

    Args:
        kind: one of `KINDS`: scikit-learn's digits, which need no path; MNIST's IDX files;
            CIFAR-10's binary batches; a folder with a sub-folder for each class.
        path: the folder.
        size: side of the squares that images of a folder are scaled to.
        binary: whether grey images of zeros and ones are wanted. Of MNIST these are the fixed
            binarisation where the folder has it (it has no labels: all are 0); else pixels are 1
            from half the greatest value upwards.

    Raises:
        DataError: for data that cannot be read, or that is not what is wanted.
    """
    if kind == "cifar10" and binary:
        raise DataError(
            "a model of binary images needs grey ones (--data digits, mnist or folder), and "
            "cifar10 has three colours"
        )
    splits = ("train", "test")
    if kind == "digits":
        train, test = (load_digits_images(split, binary) for split in splits)
    elif kind == "mnist":
        if binary and all((path / name).is_file() for name in _BINARISED.values()):
            train, test = (_unlabelled(read_binarised_mnist(path / _BINARISED[s])) for s in splits)
        else:
            train, test = (load_mnist(path, split) for split in splits)
    elif kind == "cifar10":
        train, test = (load_cifar10(path, split) for split in splits)
    else:
        tqdm = required("tqdm", "the progress bar is tqdm's").tqdm
        train, test = (
            load_image_folder(
                path, size, split, grey=binary, progress=lambda files: tqdm(files, desc="images")
            )
            for split in splits
        )
    if binary:
        train, test = train.binarised(), test.binarised()
    shape = " x ".join(map(str, train.images.shape[1:]))
    # Checkpoints remember these words: images are the same wherever they lie.
    told = f"{kind} of checksum {checksum(train):08x}, {shape}{', binary' if binary else ''}: "
    return train, test, told + f"{len(train)} to train, {len(test)} to test"


def checksum(data: LabelledImages) -> int:
    """Of the images, by which checkpoints know them."""
    return zlib.crc32(data.images.contiguous().numpy())


def _unlabelled(images: Tensor) -> LabelledImages:
    return LabelledImages(images, torch.zeros(len(images), dtype=torch.int64), ("digit",))
