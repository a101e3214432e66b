"""What the readers of annotations hand on: classes, and images with their objects, as files say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Classes:
    """Class names, and the numbers that files give them.

    Attributes:
        names: name of every label; label 0 is "background".
        categories: the file's category (COCO: its id, VOC: its name) of labels 1, 2, ...; None
            where the file has none for a class of another data set.
        merged: more categories of the file, each with the label of the one whose name it shares.
    """

    names: tuple[str, ...]
    categories: tuple[Any, ...]
    merged: tuple[tuple[Any, int], ...] = ()

    def __post_init__(self) -> None:
        own = {c: i for i, c in enumerate(self.categories, 1) if c is not None}
        object.__setattr__(self, "_labels", {**dict(self.merged), **own})
        named = {name: i for i, name in reversed(list(enumerate(self.names))[1:])}
        object.__setattr__(self, "_named", named)

    def label(self, category: Any) -> int | None:
        """The label of a file's category, None where it is unknown."""
        return self._labels.get(category)

    def named(self, name: str) -> int | None:
        """The label of a class name, None where it is unknown."""
        return self._named.get(name)

    def category(self, label: int) -> Any:
        """The file's category of a label in [1, len(names)), None where it has none."""
        if not 1 <= label <= len(self.categories):
            raise ValueError(
                f"tilewright.data: label must be in [1, {len(self.categories)}], got {label}"
            )
        return self.categories[label - 1]


@dataclass(frozen=True)
class Annotation:
    """One object as its file has it: `box` is x1, y1, x2, y2 in pixels, not yet checked."""

    file: str
    place: str
    box: tuple[float, float, float, float]
    label: int
    area: float | None = None
    crowd: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class Record:
    """One image: its id in the data set, its file, the size that the annotation claims (0: none),
    and where the annotation says so."""

    id: Any
    path: str
    width: int = 0
    height: int = 0
    file: str = ""
    place: str = ""
    annotations: list[Annotation] = field(default_factory=list)
