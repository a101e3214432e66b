"""Files that hold the state of a training: written whole, read without trust, compared by name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, unreadable or of another recipe."""


def make_folder(path: Path, *files: str, folders: Sequence[str] = ()) -> None:
    """Makes a folder for output where there is none, and sees that `files` can be written there,
    and `folders` made.

    Raises:
        CheckpointError: where a folder has the name of a file, or a file that of a folder.
        NotADirectoryError: where a file has its name, or that of a folder above it.
        OSError: where nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        above = (p for p in (path, *path.parents) if os.path.lexists(p) and not p.is_dir())
        one = next(above, path)
        what = "is a file" if one.exists() else "is a link that leads nowhere"
        raise NotADirectoryError(
            f"the output must be a folder, got {path}, and {one} {what}"
        ) from error
    for name in files:
        check_no_folder(path / name)
    for name in folders:
        if os.path.lexists(path / name) and not (path / name).is_dir():
            raise CheckpointError(f"{path / name} must be a folder, and is none")
    with tempfile.TemporaryFile(dir=path):
        pass


def check_no_folder(path: Path) -> None:
    """Raises CheckpointError where a folder has the name of a file to be read or written."""
    if path.is_dir():
        raise CheckpointError(f"{path} must be a file, and is a folder")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary name and renames: `path` is never seen half written.

    Raises:
        OSError: where it cannot be written, for want of space say; what was there stays.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's writers have their own
        temporary.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise OSError(f"{path} cannot be written ({reason}): is there space left?") from error


def keep_earlier(path: Path) -> None:
    """A checkpoint that a new run would overwrite takes another name: whoever forgot --resume has
    it still."""
    if path.exists():
        kept = path.with_name("earlier_" + path.name)
        os.replace(path, kept)
        print(
            f"{path} of an earlier run is {kept.name} now: by its old name --resume goes on from it"
        )


def load_checkpoint(path: Path, version: int) -> dict[str, Any]:
    """The dict that `torch.save` wrote, of which the entry "format" is `version`.

    Raises:
        CheckpointError: where it is missing, cannot be read, or is something else.
    """
    check_no_folder(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; start without --resume")
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises what its reader happens to meet
        reason = type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason}); start without --resume"
        ) from error
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is no checkpoint of this program; start without --resume")
    if state["format"] != version:
        raise CheckpointError(
            f"{path} was written by another version of tilewright; start without --resume"
        )
    return state


def differences(was: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings that are not the same, each as it was and as it is."""
    found = []
    for name in {**now, **was}:
        old, new = was.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {_told(old)}, and is {_told(new)} now")
    return found


def _told(value: Any) -> str:
    return "not set" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
