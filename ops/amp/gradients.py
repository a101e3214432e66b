"""The gradients of an optimizer's parameters, and how the optimizer takes them."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch
from torch import Tensor

from tilewright.amp.operators import unscale_, unscale_and_norm_
from tilewright.amp.optimizer_steps import NOWHERE, OptimizerState, name_of, parameters_of


def divides(optimizer: Any) -> bool:
    """Whether its step takes found_inf and grad_scale, as torch's fused optimizers do. One that
    asks for a scaler instead is given unscaled gradients."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and (
        "grad_scaler" not in inspect.signature(optimizer.step).parameters
    )


def begins_momentum(optimizer: Any) -> bool:
    """Whether the next step makes buffers of SGD's momentum."""
    return isinstance(optimizer, torch.optim.SGD) and any(
        group["momentum"] != 0
        and any(
            p.grad is not None and optimizer.state.get(p, {}).get("momentum_buffer") is None
            for p in group["params"]
        )
        for group in optimizer.param_groups
    )


def _of_all_parts(norm: Tensor, mesh: Any, placements: Any) -> Tensor:
    """The norm of DTensors from that of this rank's parts."""
    squares = norm.double().square()
    for axis, placement in enumerate(placements):
        if placement.is_partial():
            raise RuntimeError("gradients that are sums still to be made have no norm")
        if placement.is_shard():
            torch.distributed.all_reduce(squares, group=mesh.get_group(axis))
    return squares.sqrt().to(norm.dtype)


class Gradients:
    """The gradients of an optimizer's parameters, by device; of sparse ones the coalesced
    values."""

    def __init__(self, optimizer: Any) -> None:
        self.by_device: dict[torch.device, list[Tensor]] = {}
        self._optimizer = optimizer
        self._whole: dict[int, Tensor] = {}  # DTensors, whose parts are in by_device
        parameters = parameters_of(optimizer)
        for place, parameter in enumerate(parameters):
            grad = parameter.grad
            if grad is None:
                continue
            if hasattr(grad, "to_local"):  # of a DTensor this rank's part
                self._whole[place] = grad
                grad = grad.to_local()
            if grad.layout == torch.sparse_coo:
                # Entries that stand for one place are added now: the sum may be infinite.
                parameter.grad = grad = grad.coalesce()
                grad = grad._values()
            grads = self.by_device.get(grad.device)
            if grads is None:
                none = torch.empty(0, device=grad.device)
                grads = self.by_device[grad.device] = [none] * len(parameters)
            grads[place] = grad.detach()

    def groups(self) -> list[Any]:
        """Of ranks that have other parts of a DTensor, or copies of it: in the order of parameters,
        with a gradient or without, which is the same on all of them."""
        meshes = dict.fromkeys(
            p.device_mesh for p in parameters_of(self._optimizer) if hasattr(p, "device_mesh")
        )
        return [mesh.get_group(axis) for mesh in meshes for axis in range(mesh.ndim)]

    def is_in_parts(self) -> bool:
        """Whether a norm is that of gradients that lie on several ranks."""
        return bool(self._whole)

    def unscale_(
        self, inv_scale: Tensor, state: OptimizerState, norm: bool = False, write: bool = True
    ) -> Tensor | None:
        """Unscales, and records in `state` what was found; the 2-norm where it is asked for, and
        not in parts. write: or gradients are only looked at, as they would be."""
        norms = []
        norm = norm and not self.is_in_parts()
        state.groups = self.groups()
        if not self.by_device:  # nothing is a clean find
            state.add_found(torch.zeros((), device=inv_scale.device))
        with torch.no_grad():
            for device, grads in self.by_device.items():
                found = torch.zeros(1, device=device)
                first = torch.full((1,), NOWHERE, dtype=torch.int64, device=device)
                inv = inv_scale.to(device, non_blocking=True)
                try:
                    if norm:
                        norms.append(unscale_and_norm_(grads, found, inv, first, write))
                    else:
                        unscale_(grads, found, inv, first, write)
                except RuntimeError as error:
                    if "grads[" not in str(error):
                        raise
                    raise RuntimeError(self._named(str(error))) from None
                state.found[device] = (found, first)
        return self._together(norms, inv_scale.device) if norm else None

    def _named(self, message: str) -> str:
        """An operator's message with the parameters' names in the place of its list's."""

        def gradient_of(found: re.Match) -> str:
            return f"the gradient of {name_of(self._optimizer, int(found[1]))}"

        return re.sub(r"grads\[(\d+)\]", gradient_of, message)

    def norm(self) -> Tensor:
        """The 2-norm of all gradients, on the first one's device; of DTensors as a whole."""
        norms = []
        with torch.no_grad():
            for device, grads in self.by_device.items():
                by_parts: dict[Any, list[Tensor]] = {}  # of each mesh and way to lie on it
                for place, grad in enumerate(grads):
                    whole = self._whole.get(place)
                    parts = None if whole is None else (whole.device_mesh, whole.placements)
                    by_parts.setdefault(parts, []).append(grad)
                for parts, some in by_parts.items():
                    one = torch.ones(1, device=device)
                    norm = unscale_and_norm_(some, torch.zeros(1, device=device), one)
                    norms.append(norm if parts is None else _of_all_parts(norm, *parts))
        return self._together(norms, norms[0].device if norms else None)

    @staticmethod
    def _together(norms: list[Tensor], device: torch.device | None) -> Tensor:
        if not norms:
            return torch.zeros((), device=device)
        if len(norms) == 1:
            return norms[0].to(device, non_blocking=True)
        moved = [norm.to(device, non_blocking=True).double() for norm in norms]
        whole = torch.linalg.vector_norm(torch.stack(moved))
        return whole if any(norm.dtype == torch.float64 for norm in norms) else whole.float()

    def multiply_(self, factor: Tensor) -> None:
        """By one number; a factor of 1 writes nothing."""
        factor = factor.float().view(1)
        if factor.is_cpu and factor.item() == 1:
            return
        with torch.no_grad():
            for device, grads in self.by_device.items():
                unscale_(grads, torch.zeros(1, device=device), factor.to(device, non_blocking=True))
