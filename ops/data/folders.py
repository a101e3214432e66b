"""A user's folder of images, whatever its layout: which files train, and which are held out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .annotated import AnnotatedImages
from .coco import CocoDataset, load_json
from .problems import DataError
from .voc import VocDataset, voc_folders

_TRAIN = re.compile(r"(?<![a-z])train(?!val)")
_HELD_OUT = (re.compile(r"(?<![a-z])val"), re.compile(r"(?<![a-z])test"))  # in this order


@dataclass(frozen=True)
class Split:
    """The two halves of a data set, with the same labels, and how they came about in words."""

    train: AnnotatedImages
    held_out: AnnotatedImages
    how: str

    def report(self) -> str:
        """What was found and what is wrong with it, each problem once."""
        parts = [
            f"images to train on: {len(self.train)}, held out: {len(self.held_out)} ({self.how})"
        ]
        parts.append(self.train.report())
        if self.held_out.problems is not self.train.problems:
            parts.append(self.held_out.report())
        return "\n".join(parts)


def open_folder(
    path: str | Path,
    *,
    held_out: float = 0.2,
    seed: int = 0,
    strict: bool = False,
    check: str = "headers",
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Split:
    """Opens COCO or VOC data by what lies in `path`.

    - A COCO JSON file, or a folder with one (at its top, in `annotations`, or in the folders that
      hold the images): images are divided at random.
    - A folder with two or more such files: one must have "train" in its name or its folder's, and
      one "val" (else "test"); these are the halves. Only `instances_*.json` count where there are
      any.
    - VOC's folders: the sets train and val (else trainval and test) of `ImageSets/Main`, or without
      such files all images, divided at random.

    The images of a COCO file are looked for in the folders that its name and its place suggest:
    `train2017` and `images/train2017` for `annotations/instances_train2017.json`, then `images`,
    the file's own folder and `path`.

    Args:
        path: the folder, or a COCO JSON file.
        held_out: share of the images that is held out where the files do not say; at least one is.
        seed: of that division; the same for the same files.
        strict, check, progress: as for `CocoDataset`.

    Raises:
        DataError: for a path or a layout that holds no such data, saying what was expected.
    """
    path = Path(path)
    if not 0 < held_out < 1:
        raise ValueError(f"tilewright.data: held_out must be in (0, 1), got {held_out}")
    arguments: dict[str, Any] = {"strict": strict, "check": check, "progress": progress}
    if path.is_file():
        return _divided(_open_coco(path, path.parent, arguments), held_out, seed)
    if not path.is_dir():
        raise DataError(f"tilewright.data: {path}: there is no such folder or file")
    files = _coco_files(path)
    if len(files) == 1:
        return _divided(_open_coco(files[0], path, arguments), held_out, seed)
    if files:
        return _coco_split(path, files, arguments)
    try:
        folders = voc_folders(path)
    except DataError:
        raise DataError(
            f"tilewright.data: {path}: expected COCO annotations (a .json file with images, "
            "annotations and categories, there or in annotations/ or beside the images) or Pascal "
            "VOC's folders (Annotations and JPEGImages); found "
            f"{', '.join(sorted(p.name for p in path.iterdir())[:10]) or 'an empty folder'}"
        ) from None
    for names in (("train", "val"), ("trainval", "test")):
        sets = [folder / "ImageSets" / "Main" / f"{n}.txt" for folder in folders for n in names]
        if all(file.is_file() for file in sets):
            train = VocDataset(path, names[0], **arguments)
            other = VocDataset(path, names[1], classes=train.classes, **arguments)
            return Split(train, other, f"the sets {names[0]} and {names[1]} of {path}")
    return _divided(VocDataset(path, **arguments), held_out, seed)


def _divided(data: AnnotatedImages, held_out: float, seed: int) -> Split:
    count = len(data)
    if count == 1:
        return Split(
            data, data, "the only image is both; what is measured says nothing of new ones"
        )
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    cut = min(max(round(count * held_out), 1), count - 1)
    train, other = data.subset(sorted(order[cut:])), data.subset(sorted(order[:cut]))
    return Split(train, other, f"{data.name}, divided at random with seed {seed}")


def _coco_files(path: Path) -> list[Path]:
    """The JSON files of COCO's kind at `path`, in its `annotations`, or else one folder below."""
    for patterns in (("*.json", "annotations/*.json"), ("*/*.json",)):
        files = sorted(
            file for pattern in patterns for file in path.glob(pattern) if file.is_file()
        )
        instances = [file for file in files if file.name.startswith("instances_")]
        found = instances or [file for file in files if _looks_like_coco(file)]
        if found:
            return found
    return []


def _looks_like_coco(file: Path) -> bool:
    """Whether a file of any name has COCO's lists; a damaged one counts, so that it is named."""
    try:
        content = load_json(file)
    except DataError:
        return True
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _coco_split(path: Path, files: list[Path], arguments: dict[str, Any]) -> Split:
    def named(pattern: re.Pattern[str]) -> list[Path]:
        inside = {file: str(file.relative_to(path)).lower() for file in files}
        return [file for file in files if pattern.search(inside[file])]

    train = named(_TRAIN)
    others = next((found for found in map(named, _HELD_OUT) if found), [])
    if len(train) != 1 or len(others) != 1 or train == others:
        names = ", ".join(str(file.relative_to(path)) for file in files[:10])
        raise DataError(
            f"tilewright.data: {path}: of several annotation files one must have 'train' in its "
            f"name or its folder's, and one 'val' (or 'test'); found {names}. Give one file as the "
            "path to have its images divided"
        )
    first = _open_coco(train[0], path, arguments)
    second = _open_coco(others[0], path, {**arguments, "classes": first.classes})
    return Split(first, second, f"{train[0].relative_to(path)}, {others[0].relative_to(path)}")


def _open_coco(file: Path, top: Path, arguments: dict[str, Any]) -> CocoDataset:
    stem = file.stem.removeprefix("instances_")
    above = top.parent if top.name == "annotations" else top
    parents = dict.fromkeys((above, file.parent))
    names = (stem, f"images/{stem}", "images", ".")
    return CocoDataset([parent / name for parent in parents for name in names], file, **arguments)
