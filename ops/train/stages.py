"""The stages of a command, which say that they begin and how long they took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Says what is done, and notes how long it took."""
    print(f"== {name}", flush=True)
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
