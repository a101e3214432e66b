"""What the loss scaler knows of optimizers between two updates: how far they are, and what was
found in their gradients."""

from __future__ import annotations

import enum
import weakref
from typing import Any

import torch
from torch import Tensor

NOWHERE = 2**63 - 1  # the number of no parameter
ELSEWHERE = NOWHERE - 1  # of one of another rank
_OF_OPTIMIZER = 2**32  # numbers of parameters: an optimizer's times this, and the place in it


class Stage(enum.Enum):
    """How far an optimizer is between two updates."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def parameters_of(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def name_of(optimizer: Any, place: int) -> str:
    """Of a parameter, for an error: its name where the optimizer knows it."""
    for index, group in enumerate(optimizer.param_groups):
        count = len(group["params"])
        if place < count:
            shape = tuple(group["params"][place].shape)
            names = group.get("param_names")
            if names is not None:
                return f"parameter {names[place]!r} of shape {shape}"
            return f"parameter {place} of param_groups[{index}], of shape {shape},"
        place -= count
    return "a parameter that the optimizer has no more"


class OptimizerState:
    """Of one optimizer."""

    def __init__(self, optimizer: Any, number: int) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.number = number
        self.begin_again()

    def begin_again(self) -> None:
        self.stage = Stage.READY
        self.shared = False
        self.found: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.divisor: Tensor | None = None  # of gradients, that the step is to apply
        self.groups: list[Any] = []  # of ranks that hold other parts of its gradients

    def found_on(self, device: torch.device) -> Tensor:
        """(1,) float32: 1 where any gradient was inf or NaN."""
        return self._reduced(0, device, torch.zeros(1, device=device), torch.maximum)

    def first_on(self, device: torch.device) -> Tensor:
        """(1,) int64: the number of the first such parameter, or NOWHERE."""
        first = self._first(device)
        return torch.where(first >= ELSEWHERE, first, first + self.number * _OF_OPTIMIZER)

    def _first(self, device: torch.device) -> Tensor:
        """Its place among the optimizer's parameters."""
        nowhere = torch.full((1,), NOWHERE, dtype=torch.int64, device=device)
        return self._reduced(1, device, nowhere, torch.minimum)

    def add_found(self, bad: Tensor) -> None:
        """Of all gradients together, (): bool; no parameter is the first."""
        device = bad.device
        nowhere = torch.full((1,), NOWHERE, dtype=torch.int64, device=device)
        found, first = self.found.get(device, (torch.zeros(1, device=device), nowhere))
        self.found[device] = (torch.maximum(found, bad.float().view(1)), first)

    def forget_first(self) -> None:
        self.found = {
            device: (found, torch.full_like(first, NOWHERE))
            for device, (found, first) in self.found.items()
        }

    def _reduced(self, which: int, device: torch.device, start: Tensor, reduce: Any) -> Tensor:
        if len(self.found) == 1 and device in self.found:
            return self.found[device][which]
        for pair in self.found.values():
            start = reduce(start, pair[which].to(device, non_blocking=True))
        return start

    def share(self, groups: list[Any], device: torch.device) -> None:
        """Every rank finds what one of them found."""
        found, first = self.found_on(device).clone(), self._first(device)
        for group in groups:
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=group)
        elsewhere = (found > 0) & (first == NOWHERE)
        self.found = {device: (found, torch.where(elsewhere, ELSEWHERE, first))}
        self.shared = True

    def found_something(self) -> bool:
        """Waits for the device."""
        return any(found.item() != 0 for found, _ in self.found.values())


class OptimizerSteps:
    """All optimizers that stepped, or are about to, since the last update."""

    def __init__(self) -> None:
        self._states: dict[int, OptimizerState] = {}
        self._count = 0

    def __getitem__(self, optimizer: Any) -> OptimizerState:
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(
                f"expected an optimizer, with param_groups, got {type(optimizer).__name__}"
            )
        state = self._states.get(id(optimizer))
        if state is None or state.optimizer() is not optimizer:
            state = self._states[id(optimizer)] = OptimizerState(optimizer, self._count)
            self._count += 1
        return state

    def found(self, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Of all optimizers together, or None where nothing was looked at; and the first
        parameter's number."""
        found = first = None
        for state in self.looked_at():
            one, where = state.found_on(device), state.first_on(device)
            found = one if found is None else torch.maximum(found, one)
            first = where if first is None else torch.minimum(first, where)
        return found, first

    def begin_again(self) -> None:
        gone = [key for key, state in self._states.items() if state.optimizer() is None]
        for key in gone:
            del self._states[key]
        for state in self._states.values():
            state.begin_again()

    def looked_at(self) -> list[OptimizerState]:
        """Those in whose gradients something could be found."""
        return [state for state in self._states.values() if state.found]

    def any_begun(self) -> bool:
        return any(state.stage is not Stage.READY for state in self._states.values())

    def name_of(self, number: int) -> str:
        """Of the parameter of that number."""
        if number == ELSEWHERE:
            return "a parameter of another rank, or of all together,"
        for state in self._states.values():
            optimizer = state.optimizer()
            if state.number == number // _OF_OPTIMIZER and optimizer is not None:
                return name_of(optimizer, number % _OF_OPTIMIZER)
        return "a parameter of an optimizer that is gone"
