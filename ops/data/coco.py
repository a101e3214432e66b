"""COCO's annotations: one JSON file for a folder of images, category ids with holes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .annotated import AnnotatedImages
from .problems import DataError, Problem
from .records import Annotation, Classes, Record

_LISTS = ("images", "annotations", "categories")
_PROBED = 50  # images that are looked for when a folder is chosen


class CocoDataset(AnnotatedImages):
    """A folder of images with a JSON file as COCO's `instances_*.json`.

    Boxes are `x, y, width, height` in pixels there and corners here. Categories are labelled from 1
    in the order of their ids (`classes.label(id)`, `classes.category(label)`). Segmentations are
    not read. See `AnnotatedImages` for the items.

    Args:
        images: the folder that the file names are relative to, or several folders, of which the
            one that holds most of a sample of the images is taken.
        annotations: the JSON file.
        classes: those of another data set, so that both have the same labels. The file's categories
            are matched to them by name, whatever the ids; one of another name is a problem where it
            has annotations. By default the file's own; two of one name are one class, and told.
        strict: raise `DataError` where anything is wrong, in place of noting it in `problems`.
        check: "headers" looks at the header of every image (present, known format, size as given),
            "pixels" decodes each, so that a damaged one is found now and not in the training.
        progress: wraps the loop over the images, such as `tqdm.tqdm`.

    Raises:
        DataError: where the JSON file cannot be read as a whole, or no image can.
    """

    def __init__(
        self,
        images: str | Path | Sequence[str | Path],
        annotations: str | Path,
        *,
        classes: Classes | None = None,
        strict: bool = False,
        check: str = "headers",
        progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    ) -> None:
        folders = [images] if isinstance(images, (str, Path)) else images
        reader = _Reader([Path(folder) for folder in folders], Path(annotations), classes)
        super().__init__(
            str(annotations),
            reader.records(),
            reader.classes,
            reader.problems,
            strict,
            check,
            progress,
        )

    def results(self, index: int, detection: dict[str, Tensor]) -> list[dict[str, Any]]:
        """A detector's boxes, labels and scores for image `index` as COCO's result format has them:
        image_id, category_id, bbox (x, y, width, height), score. The ids are this file's; what it
        has no category for (a class of another data set) is left out."""
        rows = zip(*(detection[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
        return [
            {
                "image_id": self.image_ids[index],
                "category_id": self.classes.category(label),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), label, score in rows
            if self.classes.category(label) is not None
        ]


def load_json(path: Path) -> Any:
    """The content of a JSON file; DataError, with the place, where it is none."""
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(
            f"tilewright.data: {path}: not JSON: line {error.lineno}, column {error.colno}: "
            f"{error.msg}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:  # encodings, numbers of 5000 digits
        raise DataError(f"tilewright.data: {path}: cannot be read: {error}") from error


def _image_folder(folders: Sequence[Path], images: list[Any], file: Path) -> Path:
    """The folder that holds most of a sample of `images`; DataError where none does."""
    there = [folder for folder in folders if folder.is_dir()]
    tried = ", ".join(map(str, folders))
    if not there:
        raise DataError(f"tilewright.data: {file}: there is no folder of images: {tried}")
    probed = images[:: len(images) // _PROBED + 1]
    names = [image.get("file_name") for image in probed if isinstance(image, dict)]
    names = [name for name in names if isinstance(name, str)]
    found = [sum((folder / name).is_file() for name in names) for folder in there]
    if len(folders) > 1 and names and not any(found):
        raise DataError(
            f"tilewright.data: {file}: none of its images, such as '{names[0]}', is in {tried}"
        )
    return there[found.index(max(found))]


class _Reader:
    """One pass over the lists of a file; what is wrong is collected in `problems`."""

    def __init__(self, folders: Sequence[Path], file: Path, classes: Classes | None) -> None:
        content = load_json(file)
        if not isinstance(content, dict):
            raise DataError(
                f"tilewright.data: {file}: expected an object with images, annotations and "
                f"categories, got a {type(content).__name__}"
            )
        for name in _LISTS:
            if not isinstance(content.get(name), list):
                got = type(content[name]).__name__ if name in content else "nothing"
                raise DataError(
                    f"tilewright.data: {file}: '{name}' must be a list, got {got}; the file has "
                    f"{', '.join(map(repr, list(content)[:10])) or 'no keys'}"
                )
        self.folder = _image_folder(folders, content["images"], file)
        self.file = str(file)
        self.content = content
        self.problems: list[Problem] = []
        self.classes, self.labels = self._categories(classes)

    def records(self) -> list[Record]:
        images = self._images()
        self._annotations(images)
        return list(images.values())

    def _note(self, place: str, what: str, done: str) -> None:
        self.problems.append(Problem(self.file, place, what, done))

    def _entries(self, name: str, done: str) -> Iterable[tuple[str, dict[str, Any]]]:
        """Each object of a list, with its place; the id is an integer."""
        for i, entry in enumerate(self.content[name]):
            place = f"{name}[{i}]"
            if not isinstance(entry, dict):
                self._note(place, f"expected an object, got {_short(entry)}", done)
            elif not _is_int(entry.get("id")):
                self._note(place, f"id must be an integer, got {_short(entry.get('id'))}", done)
            else:
                yield f"{place}, id {entry['id']}", entry

    def _categories(self, given: Classes | None) -> tuple[Classes, dict[int, int | None]]:
        """The classes with this file's ids, and the label of each id; None where `given` has no
        class of that name, which is told here."""
        names: dict[int, str] = {}
        places: dict[int, str] = {}
        for place, entry in self._entries("categories", "category left out"):
            name = entry.get("name")
            if not isinstance(name, str) or not name:
                self._note(place, f"name must be a string, got {_short(name)}", "category left out")
            elif entry["id"] in names:
                what = f"'{name}' has the id of '{names[entry['id']]}'"
                self._note(place, what, "category left out")
            else:
                names[entry["id"]], places[entry["id"]] = name, place
        if not names:
            raise DataError(f"tilewright.data: {self.file}: it has no usable category")
        used = Counter(
            entry["category_id"]
            for entry in self.content["annotations"]
            if isinstance(entry, dict) and _is_int(entry.get("category_id"))
        )
        groups: dict[str, list[int]] = {}  # name to its ids, the one with most annotations first
        for i in sorted(names, key=lambda i: (-used[i], i)):
            groups.setdefault(names[i], []).append(i)
        for name, (first, *others) in groups.items():
            for i in others:
                what = f"'{name}' is also the name of category {first}"
                self._note(places[i], what, "both are one class")
        if given is None:
            ordered = sorted(groups, key=lambda name: groups[name][0])
            given = Classes(("background", *ordered), tuple(groups[name][0] for name in ordered))
        labels: dict[int, int | None] = {}
        for i, name in names.items():
            labels[i] = given.named(name)
            if labels[i] is None and used[i]:
                done = f"category left out with {used[i]} annotations"
                self._note(places[i], f"'{name}' is not among the classes", done)
        categories = []
        for name, other in zip(given.names[1:], given.categories, strict=True):
            free = _is_int(other) and other not in names
            categories.append(groups[name][0] if name in groups else other if free else None)
        merged = [(i, labels[i]) for ids in groups.values() for i in ids[1:] if labels[i]]
        return Classes(given.names, tuple(categories), tuple(merged)), labels

    def _images(self) -> dict[int, Record]:
        """The records by image id, without annotations yet."""
        records: dict[int, Record] = {}
        files: dict[str, int] = {}
        for place, entry in self._entries("images", "image left out"):
            number, name = entry["id"], entry.get("file_name")
            if not isinstance(name, str) or not name:
                self._note(
                    place, f"file_name must be a string, got {_short(name)}", "image left out"
                )
                continue
            if number in records:
                what = f"'{name}' has the id of '{Path(records[number].path).name}'"
                self._note(place, what, "image left out")
                continue
            if name in files:
                self._note(place, f"'{name}' is also image {files[name]}", "kept")
            files.setdefault(name, number)
            sides = [entry.get(side) for side in ("width", "height")]
            for side, key in zip(sides, ("width", "height"), strict=True):
                if side is not None and not (_is_int(side) and side > 0):
                    what = f"{key} must be a positive integer, got {_short(side)}"
                    self._note(place, what, "not compared with the image's")
            width, height = (side if _is_int(side) and side > 0 else 0 for side in sides)
            path = str(self.folder / name)
            records[number] = Record(number, path, width, height, self.file, place)
        return records

    def _annotations(self, records: dict[int, Record]) -> None:
        """Hangs each annotation on its image's record."""
        left_out = "annotation left out"
        seen: dict[int, dict[str, Any]] = {}
        for place, entry in self._entries("annotations", left_out):
            number, image, category = entry["id"], entry.get("image_id"), entry.get("category_id")
            if number in seen:
                if seen[number] == entry:
                    self._note(place, "the same annotation stands there twice", left_out)
                    continue
                self._note(place, "another annotation has the same id", "kept")
            seen.setdefault(number, entry)
            if not _is_int(image) or image not in records:
                what = f"image_id {_short(image)} is not among the usable images"
                self._note(place, what, left_out)
                continue
            if not _is_int(category) or category not in self.labels:
                what = f"category_id {_short(category)} is not among the categories"
                self._note(place, what, left_out)
                continue
            label = self.labels[category]
            if label is None:
                continue  # told with its category
            box = entry.get("bbox")
            if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
                self._note(place, f"bbox must be four numbers, got {_short(box)}", left_out)
                continue
            x, y, width, height = map(float, box)
            area, crowd = self._area(place, entry), self._crowd(place, entry)
            corners = (x, y, x + width, y + height)
            records[image].annotations.append(
                Annotation(self.file, place, corners, label, area, crowd=crowd)
            )

    def _area(self, place: str, entry: dict[str, Any]) -> float | None:
        """The area that the file gives, None where it is the box's."""
        area = entry.get("area")
        if area is None or (_is_number(area) and math.isfinite(area) and area >= 0):
            return None if area is None else float(area)
        what = f"area must be a number and at least 0, got {_short(area)}"
        self._note(place, what, "the box's area is taken")
        return None

    def _crowd(self, place: str, entry: dict[str, Any]) -> bool:
        """Whether it is a crowd; like COCO's own tools, anything but 0 says so."""
        crowd = entry.get("iscrowd")
        if crowd is None or (_is_number(crowd) and crowd in (0, 1)) or isinstance(crowd, bool):
            return bool(crowd)
        some = str(crowd).strip().lower() not in ("", "0", "false", "no")
        done = f"kept, as {'a' if some else 'no'} crowd"
        self._note(place, f"iscrowd must be 0 or 1, got {_short(crowd)}", done)
        return some


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_int(value)


def _short(value: Any) -> str:
    text = json.dumps(value) if value is not None else "nothing"
    return text if len(text) <= 60 else text[:57] + "..."
