"""Steps with a closure may have changed parameters before a gradient turns out to be infinite."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tilewright.amp.optimizer_steps import parameters_of


class Overflow(BaseException):
    """Ends an optimizer's step from within its closure; no optimizer takes it for an error."""


class Rollback:
    """A copy of an optimizer's parameters, of its state and its groups' options, to go back to."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._values = [p.detach().clone() for p in parameters_of(optimizer)]
        self._state = {key: copy.deepcopy(value) for key, value in optimizer.state.items()}
        self._groups = [
            {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]

    def undo(self) -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters_of(self._optimizer), self._values, strict=True):
                parameter.copy_(value)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)
        for group, saved in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update(saved)
