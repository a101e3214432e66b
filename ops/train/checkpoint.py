"""Files that hold the state of a training: written whole, read without trust, compared by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, unreadable or of another recipe."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary name and renames: `path` is never seen half written."""
    temporary = path.with_name(path.name + ".partial")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, version: int) -> dict[str, Any]:
    """The dict that `torch.save` wrote, of which the entry "format" is `version`.

    Raises:
        CheckpointError: where it is missing, cannot be read, or is something else.
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; start without --resume")
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises what its reader happens to meet
        reason = type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason}); start without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("format") != version:
        raise CheckpointError(f"{path} is no checkpoint of this program; start without --resume")
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
