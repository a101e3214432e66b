"""What a data set's files have wrong with them, told by name: nothing is dropped silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 10  # lines of a summary


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: the file that is wrong, as a path.
        place: where in it: "annotations[17], id 42"; empty where it is the whole file.
        what: what is wrong.
        done: what became of it: "image left out", "annotation left out", "box clipped", "kept"...
    """

    file: str
    place: str
    what: str
    done: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.place}" if self.place else self.file
        return f"{where}: {self.what} ({self.done})"


class DataError(ValueError):
    """Data that cannot be read at all, or has problems where `strict` allows none."""


def summarize(problems: Sequence[Problem], shown: int = _SHOWN) -> str:
    """How many problems there are, by what was done about them, and the first `shown` in full."""
    if not problems:
        return "no problems"
    done = Counter(problem.done for problem in problems)
    counts = ", ".join(f"{count} x {name}" for name, count in done.most_common())
    lines = [f"{len(problems)} problem{'s' if len(problems) > 1 else ''}: {counts}"]
    lines += [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more")
    return "\n".join(lines)
