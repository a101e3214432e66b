"""A user's folder of images, whatever its layout: which files train, and which are held out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .annotated import AnnotatedImages
from .coco import CocoDataset, load_json
from .problems import DataError
from .voc import VocDataset, list_file, voc_folders

_TRAIN = re.compile(r"(?<![a-z])train(?!val)")
_HELD_OUT = (re.compile(r"(?<![a-z])val"), re.compile(r"(?<![a-z])test"))  # in this order
_VOC_PAIRS = (("train", "val"), ("trainval", "test"))
_NAMED = 10  # files or sets of a message


@dataclass(frozen=True)
class Split:
    """The two halves of a data set, with the same labels, and in words: how they came about, and
    what else lies there and is not used."""

    train: AnnotatedImages
    held_out: AnnotatedImages
    how: str
    unused: tuple[str, ...] = ()

    def report(self) -> str:
        """What was found, what is not used, and what is wrong, each problem once."""
        parts = [
            f"images to train on: {len(self.train)}, held out: {len(self.held_out)} ({self.how})"
        ]
        parts += [f"not used: {what}" for what in self.unused]
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
    - VOC's folders: the sets train and val (else trainval and test) of `ImageSets/Main`, where
      every folder of a VOCdevkit has both; else all images, divided at random.

    Files and sets that are set aside so are named in the report.

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
    files, unused = _coco_files(path)
    try:
        folders = voc_folders(path)
    except DataError:
        folders = []
    if files and folders:
        unused.append("Annotations and JPEGImages, Pascal VOC's folders: COCO's files come first")
    if len(files) == 1:
        return _divided(_open_coco(files[0], path, arguments), held_out, seed, unused)
    if files:
        return _coco_split(path, files, arguments, unused)
    if not folders:
        raise DataError(
            f"tilewright.data: {path}: expected COCO annotations (a .json file with images, "
            "annotations and categories, there or in annotations/ or beside the images) or Pascal "
            "VOC's folders (Annotations and JPEGImages); found "
            f"{_some(p.name for p in path.iterdir()) or 'an empty folder'}"
        )
    sets = {folder: _voc_sets(folder) for folder in folders}
    for names in _VOC_PAIRS:
        if all(set(names) <= there for there in sets.values()):
            train = VocDataset(path, names[0], **arguments)
            other = VocDataset(path, names[1], classes=train.classes, **arguments)
            rest = _some(set().union(*sets.values()).difference(names))
            unused = [f"the sets {rest} of ImageSets/Main"] if rest else []
            how = f"the sets {names[0]} and {names[1]} of {path}"
            return Split(train, other, how, tuple(unused))
    if any(sets.values()):
        have = "; ".join(f"{folder.name} has {_some(sets[folder]) or 'none'}" for folder in folders)
        wanted = ", or ".join(" and ".join(names) for names in _VOC_PAIRS)
        every = "every folder" if len(folders) > 1 else "the folder"
        unused.append(f"the sets of ImageSets/Main: {wanted} must be in {every}; {have}")
    return _divided(VocDataset(path, **arguments), held_out, seed, unused)


def _voc_sets(folder: Path) -> set[str]:
    """The names of the sets of images in a VOC folder, without those of single classes."""
    there = {file.stem for file in list_file(folder, "*").parent.glob("*.txt")}
    return {name for name in there if name.rpartition("_")[2] not in there - {name}}


def _some(names: Iterable[str]) -> str:
    """The first ten names, and how many more there are."""
    ordered = sorted(names)
    more = [f"{len(ordered) - _NAMED} more"] if len(ordered) > _NAMED else []
    return ", ".join(ordered[:_NAMED] + more)


def _divided(
    data: AnnotatedImages, held_out: float, seed: int, unused: Sequence[str] = ()
) -> Split:
    count = len(data)
    if count == 1:
        how = "the only image is both; what is measured says nothing of new ones"
        return Split(data, data, how, tuple(unused))
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    cut = min(max(round(count * held_out), 1), count - 1)
    train, other = data.subset(sorted(order[cut:])), data.subset(sorted(order[:cut]))
    return Split(train, other, f"{data.name}, divided at random with seed {seed}", tuple(unused))


def _coco_files(path: Path) -> tuple[list[Path], list[str]]:
    """The JSON files of COCO's kind at `path`, in its `annotations`, or else one folder below; and
    in words those that are set aside for their names."""
    for patterns in (("*.json", "annotations/*.json"), ("*/*.json",)):
        files = sorted(
            file for pattern in patterns for file in path.glob(pattern) if file.is_file()
        )
        instances = [file for file in files if file.name.startswith("instances_")]
        found = instances or [file for file in files if _looks_like_coco(file)]
        if found:
            rest = _some(str(file.relative_to(path)) for file in files if file not in found)
            others = [f"{rest}: files named instances_*.json come first"] if rest else []
            return found, others if instances else []
    return [], []


def _looks_like_coco(file: Path) -> bool:
    """Whether a file of any name has COCO's lists; a damaged one counts, so that it is named."""
    try:
        content = load_json(file)
    except DataError:
        return True
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _coco_split(
    path: Path, files: list[Path], arguments: dict[str, Any], unused: Sequence[str]
) -> Split:
    def named(pattern: re.Pattern[str]) -> list[Path]:
        inside = {file: str(file.relative_to(path)).lower() for file in files}
        return [file for file in files if pattern.search(inside[file])]

    train = named(_TRAIN)
    others = next((found for found in map(named, _HELD_OUT) if found), [])
    if len(train) != 1 or len(others) != 1 or train == others:
        names = _some(str(file.relative_to(path)) for file in files)
        raise DataError(
            f"tilewright.data: {path}: of several annotation files one must have 'train' in its "
            f"name or its folder's, and one 'val' (or 'test'); found {names}. Give one file as the "
            "path to have its images divided"
        )
    first = _open_coco(train[0], path, arguments)
    second = _open_coco(others[0], path, {**arguments, "classes": first.classes})
    rest = _some(str(file.relative_to(path)) for file in files if file not in train + others)
    more = [f"{rest}: one file trains, and one is held out"] if rest else []
    how = f"{train[0].relative_to(path)}, {others[0].relative_to(path)}"
    return Split(first, second, how, (*more, *unused))


def _open_coco(file: Path, top: Path, arguments: dict[str, Any]) -> CocoDataset:
    stem = file.stem.removeprefix("instances_")
    above = top.parent if top.name == "annotations" else top
    parents = dict.fromkeys((above, file.parent))
    names = (stem, f"images/{stem}", "images", ".")
    return CocoDataset([parent / name for parent in parents for name in names], file, **arguments)
