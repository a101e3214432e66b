"""What the loss scaler knows of one optimizer between two updates: its gradients, and what was
found in them."""

from __future__ import annotations

import enum
import weakref
from typing import Any

import torch
from torch import Tensor

from tilewright.amp.operators import unscale_, unscale_and_norm_

NOWHERE = 2**63 - 1  # the number of no parameter
_OF_OPTIMIZER = 2**32  # numbers of parameters: an optimizer's times this, and the place in it


class LossScaleError(RuntimeError):
    """The scale is at its floor, and gradients are still inf or NaN."""


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


class Gradients:
    """The gradients of an optimizer's parameters, by device; of sparse ones the coalesced
    values."""

    def __init__(self, optimizer: Any) -> None:
        self.by_device: dict[torch.device, list[Tensor]] = {}
        parameters = parameters_of(optimizer)
        for place, parameter in enumerate(parameters):
            grad = parameter.grad
            if grad is None:
                continue
            if grad.layout == torch.sparse_coo:
                # Entries that stand for one place are added now: the sum may be infinite.
                parameter.grad = grad = grad.coalesce()
                grad = grad._values()
            grads = self.by_device.get(grad.device)
            if grads is None:
                none = torch.empty(0, device=grad.device)
                grads = self.by_device[grad.device] = [none] * len(parameters)
            grads[place] = grad.detach()

    def unscale_(
        self, inv_scale: Tensor, state: OptimizerState, norm: bool = False, write: bool = True
    ) -> Tensor | None:
        """Unscales, and records in `state` what was found; the 2-norm where it is asked for.
        write: or gradients are only looked at, as they would be."""
        norms = []
        with torch.no_grad():
            for device, grads in self.by_device.items():
                found = torch.zeros(1, device=device)
                first = torch.full((1,), NOWHERE, dtype=torch.int64, device=device)
                inv = inv_scale.to(device, non_blocking=True)
                if norm:
                    norms.append(unscale_and_norm_(grads, found, inv, first, write))
                else:
                    unscale_(grads, found, inv, first, write)
                state.found[device] = (found, first)
        return self._together(norms, inv_scale.device) if norm else None

    def norm(self) -> Tensor:
        """The 2-norm of all gradients, on the first one's device."""
        norms = []
        with torch.no_grad():
            for device, grads in self.by_device.items():
                one = torch.ones(1, device=device)
                norms.append(unscale_and_norm_(grads, torch.zeros(1, device=device), one))
        return self._together(norms, norms[0].device if norms else None)

    @staticmethod
    def _together(norms: list[Tensor], device: torch.device | None) -> Tensor:
        if not norms:
            return torch.zeros((), device=device)
        if len(norms) == 1:
            return norms[0].to(device, non_blocking=True)
        moved = [norm.to(device, non_blocking=True) for norm in norms]
        return torch.linalg.vector_norm(torch.stack(torch.broadcast_tensors(*moved)))

    def multiply_(self, factor: Tensor) -> None:
        """By one number; a factor of 1 writes nothing."""
        factor = factor.float().view(1)
        if factor.is_cpu and factor.item() == 1:
            return
        with torch.no_grad():
            for device, grads in self.by_device.items():
                unscale_(grads, torch.zeros(1, device=device), factor.to(device, non_blocking=True))


class OptimizerState:
    """Of one optimizer."""

    def __init__(self, optimizer: Any, number: int) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.number = number
        self.begin_again()

    def begin_again(self) -> None:
        self.stage = Stage.READY
        self.found: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.divisor: Tensor | None = None  # of gradients, that the step is to apply

    def found_on(self, device: torch.device) -> Tensor:
        """(1,) float32: 1 where any gradient was inf or NaN."""
        return self._reduced(0, device, torch.zeros(1, device=device), torch.maximum)

    def first_on(self, device: torch.device) -> Tensor:
        """(1,) int64: the number of the first such parameter, or NOWHERE."""
        nowhere = torch.full((1,), NOWHERE, dtype=torch.int64, device=device)
        first = self._reduced(1, device, nowhere, torch.minimum)
        return torch.where(first == NOWHERE, first, first + self.number * _OF_OPTIMIZER)

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

    def share(self, group: Any, device: torch.device) -> None:
        """Every rank finds what one of them found."""
        found, first = self.found_on(device), self.first_on(device)
        local = torch.where(first == NOWHERE, first, first - self.number * _OF_OPTIMIZER)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=group)
        self.found = {device: (found, local)}

    def found_something(self) -> bool:
        """Waits for the device."""
        return any(found.item() != 0 for found, _ in self.found.values())


class OptimizerSteps:
    """All optimizers that stepped, or are about to, since the last update."""

    def __init__(self) -> None:
        self._states: dict[int, OptimizerState] = {}
        self._count = 0

    def __getitem__(self, optimizer: Any) -> OptimizerState:
        state = self._states.get(id(optimizer))
        if state is None or state.optimizer() is not optimizer:
            state = self._states[id(optimizer)] = OptimizerState(optimizer, self._count)
            self._count += 1
        return state

    def found(self, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Of all optimizers together, or None where nothing was looked at; and the first
        parameter's number."""
        found = first = None
        for state in self._states.values():
            if not state.found:
                continue
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

    def any_begun(self) -> bool:
        return any(state.stage is not Stage.READY for state in self._states.values())

    def name_of(self, number: int) -> str:
        """Of the parameter of that number."""
        for state in self._states.values():
            optimizer = state.optimizer()
            if state.number == number // _OF_OPTIMIZER and optimizer is not None:
                return name_of(optimizer, number % _OF_OPTIMIZER)
        return "a parameter of an optimizer that is gone"
