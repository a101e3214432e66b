"""The recipe for a user's data: image size, anchors and length of the training by what is there."""

from __future__ import annotations

import dataclasses
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from tilewright.data import (
    AnnotatedImages,
    DataError,
    Split,
    open_folder,
    without_ignored,
)
from tilewright.train.trainer import round_generator

from .recipe import FULL, Recipe

_SIDES = (96, 256)  # of the shorter side that images are resized to, where none is asked for
_SMOKE_SIDE = 96
_ROUNDS = 100  # a small data set is not gone through more often than that
_SMALLEST = (8.0, 32.0)  # bounds of the smallest anchor


@dataclass(frozen=True)
class OwnDataRecipe(Recipe):
    """A recipe for the images of `split`; `data` says in words which these are, for checkpoints.

    Attributes:
        data: a checksum of files and objects, how many images, the class names.
        mirror: whether half of the training images are mirrored, drawn anew in each round.
        split: the images themselves.
    """

    data: str = ""
    mirror: bool = False
    split: Split | None = field(default=None, repr=False, compare=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.split.train.class_names

    def training_scenes(self) -> Dataset:
        """All images, round after round, each round in an order of its own."""
        length = self.steps * self.batch
        return ShuffledRounds(self.split.train, length, self.seed, self.mirror)

    def held_out_scenes(self) -> Dataset:
        return self.split.held_out

    def as_dict(self) -> dict[str, Any]:
        names = [entry.name for entry in dataclasses.fields(self) if entry.name != "split"]
        return {name: getattr(self, name) for name in names}


class ShuffledRounds(Dataset):
    """`length` items from `images`, by rounds; item i depends on (seed, i) alone. Objects that are
    not to be learnt (crowds, difficult ones) are left out."""

    def __init__(self, images: AnnotatedImages, length: int, seed: int, mirror: bool) -> None:
        self.images, self.length, self.seed, self.mirror = images, length, seed, mirror

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        turn, place = divmod(index, len(self.images))
        rng = round_generator(self.seed, turn)
        order = rng.permutation(len(self.images))
        mirrored = rng.random(len(self.images)) < 0.5
        image, target = self.images[int(order[place])]
        target = without_ignored(target)
        if self.mirror and mirrored[place]:
            image = image.flip(2)
            left, top, right, bottom = target["boxes"].unbind(1)
            width = image.shape[2]
            target["boxes"] = torch.stack([width - right, top, width - left, bottom], dim=1)
        return image, target


def own_data_recipe(
    path: Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    min_size: int | None = None,
    mirror: bool = False,
    smoke: bool = False,
) -> OwnDataRecipe:
    """Opens the data at `path`, says what is wrong with it, and fits the recipe to it.

    Args:
        path: a folder or file as `tilewright.data.open_folder` takes it; every image is decoded.
        steps: of the optimizer; by default the digits', or fewer for a small data set.
        seed: of the training, and of the division where the files do not give one.
        min_size: of the shorter side in pixels; by default the images' own, up to 256.
        mirror: whether images may be mirrored.
        smoke: every stage, but hardly any training.

    Raises:
        DataError: where there is nothing to train on.
    """
    seed = FULL.seed if seed is None else seed
    split = open_folder(
        path, seed=seed, check="pixels", progress=lambda it: tqdm(it, desc="images", mininterval=1)
    )
    print(split.report(), flush=True)
    train = split.train
    shorter = torch.tensor([min(train.size(i)) for i in range(len(train))], dtype=torch.float32)
    if min_size is None:
        low, high = (_SMOKE_SIDE, _SMOKE_SIDE) if smoke else _SIDES
        min_size = int(shorter.median().clamp(low, high).item())
    boxes = [without_ignored(train.target(i))["boxes"] for i in range(len(train))]
    if not any(map(len, boxes)):
        raise DataError(f"{path}: the training images have no objects to learn")
    sides = torch.cat(
        [
            (found[:, 2:] - found[:, :2]).prod(dim=1).sqrt() * (min_size / side)
            for found, side in zip(boxes, shorter, strict=True)
        ]
    )
    batch = 2 if smoke else FULL.batch
    most = 24 if smoke else FULL.steps
    wanted = min(most, max(50, math.ceil(_ROUNDS * len(train) / batch)))
    steps = wanted if steps is None else steps
    names = ", ".join(train.class_names[1:])
    return OwnDataRecipe(
        steps=steps,
        batch=batch,
        warmup=max(1, min(FULL.warmup, steps // 6)),
        checkpoint_every=4 if smoke else FULL.checkpoint_every,
        held_out=len(split.held_out),
        required_map50=0.0,
        seed=seed,
        model={
            **FULL.model,
            "num_classes": len(train.class_names),
            "min_size": min_size,
            "max_size": math.ceil(min_size * 5 / 3),
            "anchor_sizes": _anchors(sides),
            "aspect_ratios": [0.5, 1.0, 2.0],
            "box_detections_per_img": 100,
        },
        data=f"of checksum {_checksum(train, split.held_out):08x}, {len(train)} and "
        f"{len(split.held_out)} images; {names}",
        mirror=mirror,
        split=split,
    )


def _checksum(*parts: AnnotatedImages) -> int:
    """Of the files' bytes and their objects: data are the same wherever they lie."""
    crc = 0
    for images in parts:
        for i in range(len(images)):
            crc = zlib.crc32(Path(images.path(i)).read_bytes(), crc)
            for name, values in images.target(i).items():
                if name != "image_id":
                    crc = zlib.crc32(values.numpy().tobytes(), crc)
    return crc


def _anchors(sides: Tensor) -> list[list[float]]:
    """Two anchor sizes for each of five levels, from the smallest tenth of the objects upwards;
    `sides` are roots of their areas in the resized images."""
    smallest = float(torch.quantile(sides[:: len(sides) // 100_000 + 1], 0.1).clamp(*_SMALLEST))
    return [[round(smallest * 2**level * step, 1) for step in (1.0, 1.4)] for level in range(5)]
