"""Steps with a closure may have changed parameters before a gradient turns out to be infinite."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tilewright.amp.gradients import parameters_of


class Overflow(Exception):
    """Ends an optimizer's step from within its closure."""


class Rollback:
    """A copy of an optimizer's parameters and of its state, to go back to."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._values = [p.detach().clone() for p in parameters_of(optimizer)]
        self._state = {key: copy.deepcopy(value) for key, value in optimizer.state.items()}

    def undo(self) -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters_of(self._optimizer), self._values, strict=True):
                parameter.copy_(value)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)
