"""Ctrl-C that lets the running step end and the checkpoint be written."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupted(RuntimeError):
    """Ctrl-C came; the checkpoint holds everything up to `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


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
