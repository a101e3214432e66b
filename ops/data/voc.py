"""Pascal VOC's annotations: an XML file for each image, beside the images or in a VOCdevkit."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .annotated import AnnotatedImages
from .problems import DataError, Problem
from .records import Annotation, Classes, Record

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of files that are taken for images, in the order of preference."""

_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


class VocDataset(AnnotatedImages):
    """Folders `Annotations`, `JPEGImages` and perhaps `ImageSets/Main`, as Pascal VOC's.

    VOC counts pixels from 1 and includes the last, so xmin, ymin, xmax, ymax are the corners
    (xmin - 1, ymin - 1, xmax, ymax) here. Classes are labelled from 1 in alphabetic order. An image
    and its XML file have the same name; where no set is asked for, an image without an XML file is
    one without objects. Parts of objects are not read. See `AnnotatedImages` for the items.

    Args:
        root: the folder that holds `Annotations`, or a VOCdevkit: all its years are read.
        image_set: a file of `ImageSets/Main`, such as "train"; None takes everything there is.
        classes: those of another data set, so that both have the same labels, by name; objects of
            other classes are problems then. By default all names that occur.
        first_pixel: number of the first pixel: 1 as in VOC, 0 for tools that count from 0.
        strict, check, progress: as for `CocoDataset`.

    Raises:
        DataError: where the layout is another, or no image can be read.
    """

    def __init__(
        self,
        root: str | Path,
        image_set: str | None = None,
        *,
        classes: Classes | None = None,
        first_pixel: int = 1,
        strict: bool = False,
        check: str = "headers",
        progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    ) -> None:
        root = Path(root)
        reader = _Reader(first_pixel)
        found = [
            record for folder in voc_folders(root) for record in reader.read(folder, image_set)
        ]
        if classes is None:
            names = sorted({name for _, objects in found for name, _ in objects})
            classes = Classes(("background", *names), tuple(names))
        else:
            classes = Classes(classes.names, classes.names[1:])
        records = [reader.labelled(record, objects, classes) for record, objects in found]
        name = str(root) if image_set is None else f"{root} ({image_set})"
        super().__init__(name, records, classes, reader.problems, strict, check, progress)


def voc_folders(root: Path) -> list[Path]:
    """`root` itself where it holds Annotations and JPEGImages, else its folders that do (the years
    of a VOCdevkit); DataError where there are none."""
    choices = [root, root / "VOCdevkit"]
    for parent in choices:
        if parent.is_dir():
            folders = [parent, *sorted(path for path in parent.iterdir() if path.is_dir())]
            found = [folder for folder in folders if is_voc(folder)]
            if found:
                return found[:1] if found[0] == parent else found
    raise DataError(
        f"tilewright.data: {root}: expected the folders Annotations and JPEGImages there, or in a "
        "folder below (a VOCdevkit)"
    )


def is_voc(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def list_file(folder: Path, image_set: str) -> Path:
    """The file that lists the images of a set."""
    return folder / "ImageSets" / "Main" / f"{image_set}.txt"


def _no_ending(endings: Iterable[str]) -> str:
    return f"its name does not end in {', '.join(endings)}"


class _Reader:
    """Reads folders of XML files; what is wrong is collected in `problems`."""

    def __init__(self, first_pixel: int) -> None:
        if first_pixel not in (0, 1):
            raise ValueError(f"tilewright.data: first_pixel must be 0 or 1, got {first_pixel}")
        self.first_pixel = first_pixel
        self.problems: list[Problem] = []

    def read(self, folder: Path, image_set: str | None) -> Iterable[tuple[Record, list[Any]]]:
        """Each image's record and its objects, (class name, Annotation) with labels to come."""
        images, unread = self._files(folder / "JPEGImages", SUFFIXES)
        xml, others = self._files(folder / "Annotations", (".xml",))
        for path in others.values():
            self._note(path, "", _no_ending((".xml",)), "left out")
        listed = None if image_set is None else self._listed(folder, image_set)
        for name in sorted(images.keys() | xml) if listed is None else listed:
            file = self._first(folder / "Annotations", xml.get(name, ()))
            path = self._first(folder / "JPEGImages", images.get(name, ()))
            if path is None:
                if file is None and name not in unread:
                    what = f"'{name}' has neither an image nor an XML file"
                    self._note(
                        list_file(folder, image_set), f"line {listed[name]}", what, "left out"
                    )
                else:
                    self._without_image(name, file, unread)
                continue
            record = Record(name, str(path), file="" if file is None else str(file))
            if file is not None:
                parsed = self._parse(file, record)
                if parsed is not None:
                    yield parsed
                continue
            if listed is not None:
                missing = folder / "Annotations" / f"{name}.xml"
                self._note(missing, "", "there is no such file", "image kept, without objects")
            yield record, []
        for path in unread.values():
            self._note(path, "", _no_ending(SUFFIXES), "left out")

    def _files(
        self, folder: Path, endings: tuple[str, ...]
    ) -> tuple[dict[str, list[str]], dict[str, Path]]:
        """The files of these endings: their names by the part before it, in the order of
        preference. Then the other files, by that part; folders are told here."""
        found: dict[str, list[str]] = defaultdict(list)
        others: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in endings:
                found[path.stem].append(path.name)
            elif path.name.startswith("."):
                continue
            elif path.is_dir():
                self._note(path, "", "it is a folder, and only files are read here", "left out")
            else:
                others[path.name if path.stem in others else path.stem] = path
        for names in found.values():
            names.sort(key=lambda name: endings.index(Path(name).suffix.lower()))
        return found, others

    def _first(self, folder: Path, names: Sequence[str]) -> Path | None:
        """The first of the files of one name, None of none; the others are told."""
        if len(names) > 1:
            what = f"{', '.join(names[1:])} has the same name, but another ending"
            self._note(folder / names[0], "", what, "only the first is read")
        return folder / names[0] if names else None

    def _without_image(self, name: str, file: Path | None, unread: dict[str, Path]) -> None:
        """Tells in one line of an image that is not there, or has an ending that is not read."""
        parsed = ("", []) if file is None else self._parse(file, Record(name, ""))
        if parsed is None:
            return
        done = f"image left out with {len(parsed[1])} annotations"
        path = unread.pop(name, None)
        if path is None:
            what = f"JPEGImages has no image of this name ({', '.join(SUFFIXES)})"
            self._note(file, "", what, done)
        else:
            self._note(path, "", _no_ending(SUFFIXES), done)

    def _listed(self, folder: Path, image_set: str) -> dict[str, int]:
        """The image names of a set and their lines; in the files of single classes a number follows
        each."""
        path = list_file(folder, image_set)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors mark UTF-8
        except (OSError, ValueError) as error:
            there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
            raise DataError(
                f"tilewright.data: {path}: cannot be read ({error}); sets there: {there}"
            ) from error
        names: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if words and words[0] in names:
                what = f"'{words[0]}' stands in line {names[words[0]]} already"
                self._note(path, f"line {number}", what, "line left out")
            elif words:
                names[words[0]] = number
        return names

    def _parse(self, file: Path, record: Record) -> tuple[Record, list[Any]] | None:
        """The record with its claimed size, and the objects; None where the file is no XML, or not
        VOC's, so that no object is taught as background. Tags count in any case."""
        try:
            top = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            line, column = error.position
            what = f"not XML: line {line}, column {column + 1}: {str(error).split(':')[0]}"
            self._note(file, "", what, "image left out")
            return None
        except (OSError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
            self._note(file, "", f"cannot be read: {error}", "image left out")
            return None
        for element in top.iter():
            element.tag = element.tag.rpartition("}")[2].lower()
        if top.tag != "annotation":
            self._note(file, "", f"expected <annotation>, got <{top.tag}>", "image left out")
            return None
        found = top.findall("object")
        if len(found) != sum(1 for _ in top.iter("object")):
            what = "it has an <object> that is not directly in <annotation>"
            self._note(file, "", what, "image left out")
            return None
        sides = []
        for key in ("width", "height"):
            text = (top.findtext(f"size/{key}") or "0").strip()
            if not text.isdecimal():
                what = f"must be a whole number, got {text!r}"
                self._note(file, f"size/{key}", what, "not compared with the image's")
            sides.append(int(text) if text.isdecimal() and len(text) < 10 else 0)
        objects = []
        for i, element in enumerate(found):
            place = f"object[{i}]"
            name = (element.findtext("name") or "").strip()
            if not name:
                self._note(file, place, "it has no name", "annotation left out")
                continue
            annotation = self._annotation(file, f"{place}, {name}", element)
            if annotation is not None:
                objects.append((name, annotation))
        return replace(record, width=sides[0], height=sides[1], place="size"), objects

    def _annotation(self, file: Path, place: str, element: Any) -> Annotation | None:
        """One object, its label still to come; None where it has no box."""
        corners = []
        for key in ("xmin", "ymin", "xmax", "ymax"):
            text = (element.findtext(f"bndbox/{key}") or "").strip()
            try:
                corners.append(float(text))
            except ValueError:
                what = f"bndbox/{key} must be a number, got {text!r}"
                self._note(file, place, what, "annotation left out")
                return None
        x1, y1, x2, y2 = corners
        shift = self.first_pixel
        # The last pixel is included: its far edge is its number, counted from 1.
        box = (x1 - shift, y1 - shift, x2 - shift + 1, y2 - shift + 1)
        difficult = (element.findtext("difficult") or "").strip()
        if difficult.lower() not in (*_YES, *_NO):
            what = f"difficult must be 0 or 1, got {difficult!r}"
            self._note(file, place, what, "kept, as not difficult")
        return Annotation(str(file), place, box, 0, difficult=difficult.lower() in _YES)

    def labelled(self, record: Record, objects: list[Any], classes: Classes) -> Record:
        """The record with its objects' labels."""
        known = []
        for name, annotation in objects:
            label = classes.named(name)
            if label is None:
                what = f"'{name}' is not among the classes"
                self._note(annotation.file, annotation.place, what, "annotation left out")
            else:
                known.append(replace(annotation, label=label))
        return replace(record, annotations=known)

    def _note(self, file: Path | str, place: str, what: str, done: str) -> None:
        self.problems.append(Problem(str(file), place, what, done))
