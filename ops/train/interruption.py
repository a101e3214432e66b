"""Ctrl-C that lets the running step end and the checkpoint be written."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType


class Interrupted(RuntimeError):
    """Ctrl-C came; the checkpoint holds everything up to `step` of `steps`."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after step {step} of {steps}")
        self.step = step


def tell_stopped(stop: Interrupted | KeyboardInterrupt, checkpoint: Path) -> int:
    """Says where Ctrl-C ended a command and how it goes on; returns the exit status."""
    if isinstance(stop, Interrupted):
        told = f"{stop}; {checkpoint} holds the state: the same command with --resume goes on"
    else:
        left = f"; --resume goes on from {checkpoint}" if checkpoint.exists() else ""
        told = f"stopped{left}"
    print(f"\n{told}", file=sys.stderr)
    return 130


class CtrlC:
    """While entered, the first Ctrl-C is noted in `seen`; the second works as usual."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> CtrlC:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
