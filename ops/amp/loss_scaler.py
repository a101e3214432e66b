"""The loss scaler: torch.amp.GradScaler's interface, without its traps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tilewright.amp.gradients import (
    NOWHERE,
    Gradients,
    LossScaleError,
    OptimizerState,
    OptimizerSteps,
    Stage,
)
from tilewright.amp.operators import update_scale_
from tilewright.amp.rollback import Overflow, Rollback

__all__ = ["LossScaleError", "LossScaler"]

_SMALLEST = 2.0**-126  # the least scale whose inverse is finite in float32


class LossScaler:
    """Scales a loss so that gradients of float16 do not vanish, and never applies an update made from
    gradients that are inf or NaN (arXiv:1710.03740).

    It takes the place of ``torch.amp.GradScaler``, follows the same scale step by step, and
    exchanges state dicts with it::

        scaler = LossScaler()
        for inputs, target in data:
            optimizer.zero_grad()
            with torch.autocast(device):
                loss = loss_of(model(inputs), target)
            scaler.scale(loss).backward()
            scaler.unscale_and_clip_(optimizer, max_norm=1.0)  # or unscale_(optimizer), or nothing
            scaler.step(optimizer)
            scaler.update()

    Beyond GradScaler: the scale has a floor, at which a step that is still infinite is an error
    that names the parameter; a ceiling; hysteresis; steps with a closure; float16 parameters;
    inf that is found after unscaling; ranks that decide together.

    Where the optimizer takes ``found_inf`` itself (``fused=True``), nothing waits for the device.

    Args:
        device: for GradScaler's signature; the scale lies where the first scaled loss does.
        init_scale, growth_factor, backoff_factor, growth_interval: as GradScaler's.
        enabled: or all methods do nothing but ``optimizer.step()``.
        dynamic: or the scale stays what it is, and steps of inf or NaN are left out.
        min_scale: the floor. Below 2^-126 a scale has no inverse in float32, and all gradients count
            as infinite.
        max_scale: the ceiling, or None.
        hysteresis: so many steps of inf or NaN in a row before the scale falls.
        process_group: ranks that share what they find, ``torch.distributed.group.WORLD`` or
            another; None where each decides alone. With DistributedDataParallel gradients, and what
            is found in them, are the same anyway; with sharded ones they are not.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        dynamic: bool = True,
        min_scale: float = _SMALLEST,
        max_scale: float | None = None,
        hysteresis: int = 1,
        process_group: Any = None,
    ) -> None:
        del device
        _check(growth_factor > 1, "growth_factor must be above 1", growth_factor)
        _check(0 < backoff_factor < 1, "backoff_factor must lie in (0, 1)", backoff_factor)
        _check(growth_interval >= 1, "growth_interval must be positive", growth_interval)
        _check(hysteresis >= 1, "hysteresis must be positive", hysteresis)
        _check(min_scale >= 0, "min_scale must not be negative", min_scale)
        _check(
            max_scale is None or max_scale >= min_scale,
            f"max_scale must be None or at least min_scale ({min_scale})",
            max_scale,
        )
        _check_scale(init_scale)
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._enabled = enabled
        self._dynamic = dynamic
        self._min_scale = min_scale
        self._max_scale = max_scale
        self._hysteresis = hysteresis
        self._process_group = process_group
        self._init_scale = float(init_scale)
        self._init_growth = 0
        self._init_hysteresis = hysteresis
        self._scale: Tensor | None = None  # (1,) float32
        self._growth: Tensor | None = None  # (1,) int32
        self._left: Tensor | None = None  # (1,) int32, of hysteresis
        self._stuck: Tensor | None = None  # (1,) int64: a parameter's number, or NOWHERE
        self._steps = OptimizerSteps()

    def scale(self, outputs: Any) -> Any:
        """A loss, or an iterable of losses (nested too), times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._begin(outputs.device)
            return outputs * self._scale.to(outputs.device, non_blocking=True).view(())
        if isinstance(outputs, Iterable) and not isinstance(outputs, (str, bytes, dict)):
            scaled = [self.scale(one) for one in outputs]
            if isinstance(outputs, tuple):
                return outputs._make(scaled) if hasattr(outputs, "_make") else tuple(scaled)
            return scaled if isinstance(outputs, list) else iter(scaled)
        raise ValueError(f"scale takes a tensor or an iterable of them, got {type(outputs)}")

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, in place, once before
        each step: for what looks at gradients before the step does.

        Raises:
            RuntimeError: where it was called for this step already, or comes after ``step``.
        """
        if self._enabled:
            self._unscale(optimizer)

    def unscale_and_clip_(
        self, optimizer: torch.optim.Optimizer, max_norm: float, eps: float = 1e-6
    ) -> Tensor:
        """``unscale_`` and then what ``clip_grad_norm_`` does: where the 2-norm of all the
        optimizer's gradients is above `max_norm`, they are scaled down to it.

        The norm is found in the pass that unscales. An optimizer that divides gradients itself
        (``fused=True``) clips them within its step, and others here. Returns the norm, one number on
        the scale's device.
        """
        _check(max_norm > 0, "max_norm must be positive", max_norm)
        if not self._enabled:
            gradients = Gradients(optimizer)
            norm = gradients.norm()
        else:
            gradients, norm = self._unscale(optimizer, norm=True)
        factor = (max_norm / (norm + eps)).clamp(max=1.0)
        if self._enabled and _divides(optimizer):
            self._steps[optimizer].divisor = factor.reciprocal().float().view(())
        else:
            gradients.multiply_(factor)
        return norm

    def _unscale(
        self, optimizer: torch.optim.Optimizer, norm: bool = False, write: bool = True
    ) -> tuple[Gradients, Any]:
        self._check_begun("unscale_")
        state = self._steps[optimizer]
        if state.stage is Stage.UNSCALED:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        if state.stage is Stage.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        gradients = Gradients(optimizer)
        inv_scale = self._scale.double().reciprocal().float()
        found = gradients.unscale_(inv_scale, state, norm, write)
        state.stage = Stage.UNSCALED
        return gradients, found

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(*args, **kwargs)``, unless a gradient is inf or NaN; unscales before
        where that was not done.

        With a closure the step is undone, the optimizer's state included, where a gradient turns
        out to be inf or NaN in any of its calls. The closure scales its loss and calls
        ``backward()``; it unscales nothing. It should return the loss without the scale.

        Returns what the optimizer's step returns, None where it was left out.

        Raises:
            RuntimeError: where it was called already since the last ``update``.
            LossScaleError: where the scale was at its floor and the gradients still infinite; it
                names the first parameter concerned.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        closure = kwargs.get("closure", args[0] if args else None)
        if closure is not None:
            rest = {name: value for name, value in kwargs.items() if name != "closure"}
            return self._step_by_closure(optimizer, closure, args[1:], rest)
        self._check_begun("step")
        state = self._steps[optimizer]
        if state.stage is Stage.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        on_device = _divides(optimizer)
        if state.stage is Stage.READY:
            # An optimizer that divides gradients anyway need not find them divided.
            self._unscale(optimizer, write=not on_device)
            state.divisor = self._scale.squeeze() if on_device else None
        self._share(state)
        state.stage = Stage.STEPPED
        if on_device:
            return self._step_on_device(optimizer, state, args, kwargs)
        if not state.found_something():
            return optimizer.step(*args, **kwargs)
        self._raise_where_stuck(state)
        return None

    def _step_on_device(
        self, optimizer: Any, state: OptimizerState, args: Any, kwargs: Any
    ) -> Any:
        """By an optimizer that looks at found_inf itself: nothing is asked of the device."""
        if _begins_momentum(optimizer) and state.found_something():
            # torch's fused SGD would go on with buffers that a step left out never wrote to.
            return None
        optimizer.grad_scale = state.divisor
        optimizer.found_inf = state.found_on(self._scale.device).view(())
        try:
            return optimizer.step(*args, **kwargs)
        finally:
            del optimizer.grad_scale, optimizer.found_inf

    def _step_by_closure(self, optimizer: Any, closure: Any, args: Any, kwargs: Any) -> Any:
        state = self._steps[optimizer]
        if state.stage is not Stage.READY:
            raise RuntimeError(
                "step() with a closure comes once after update(), and unscales by itself."
            )
        rollback = Rollback(optimizer)

        def evaluated() -> Any:
            with torch.enable_grad():
                loss = closure()
            state.stage = Stage.READY
            self._unscale(optimizer)
            self._share(state)
            if state.found_something():
                raise Overflow
            return loss

        try:
            return optimizer.step(evaluated, *args, **kwargs)
        except Overflow:
            rollback.undo()
            self._raise_where_stuck(state)
            return None
        finally:
            state.stage = Stage.STEPPED

    def _share(self, state: OptimizerState) -> None:
        if self._process_group is not None:
            state.share(self._process_group, self._scale.device)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """The scale of the next step: by what the steps since the last update found, or
        `new_scale`."""
        if not self._enabled:
            return
        self._check_begun("update")
        if new_scale is not None:
            if isinstance(new_scale, Tensor):
                if new_scale.numel() != 1 or new_scale.requires_grad:
                    raise ValueError("new_scale must be one number that requires no grad")
                self._scale.copy_(new_scale.view(1))
            else:
                _check_scale(new_scale)
                self._scale.fill_(new_scale)
        else:
            found, first = self._steps.found(self._scale.device)
            if found is None:
                raise RuntimeError(
                    "update() comes after step() or unscale_(): no gradient has been looked at "
                    "since the last update()"
                )
            if self._dynamic:
                stuck = (found > 0) & (self._scale <= self._min_scale)
                self._stuck = torch.where(stuck, torch.minimum(self._stuck, first), self._stuck)
                update_scale_(
                    self._scale,
                    self._growth,
                    found,
                    self._growth_factor,
                    self._backoff_factor,
                    self._growth_interval,
                    self._min_scale,
                    self._max_scale,
                    self._left,
                    self._hysteresis,
                )
        self._steps.begin_again()

    def get_scale(self) -> float:
        """The scale. Waits for the device.

        Raises:
            LossScaleError: where an update found gradients of inf or NaN at the floor.
        """
        if not self._enabled:
            return 1.0
        if self._scale is None:
            return self._init_scale
        scale = self._scale.item()
        self._raise_where_stuck()
        return scale

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        _check(new_factor > 1, "growth_factor must be above 1", new_factor)
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        _check(0 < new_factor < 1, "backoff_factor must lie in (0, 1)", new_factor)
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        _check(new_interval >= 1, "growth_interval must be positive", new_interval)
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """GradScaler's keys, and ``_hysteresis_left``; empty where the scaler is not enabled. Waits
        for the device.

        Raises:
            LossScaleError: as ``get_scale``.
        """
        if not self._enabled:
            return {}
        begun = self._scale is not None
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": int(self._growth.item()) if begun else self._init_growth,
            "_hysteresis_left": int(self._left.item()) if begun else self._init_hysteresis,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a state dict of this class or of GradScaler's. Floor, ceiling and hysteresis stay those
        that the scaler was made with.

        Raises:
            RuntimeError: for an empty one, of a scaler that was not enabled.
            KeyError, ValueError: for one that lacks something or holds numbers that cannot be; the
                scaler is then as it was.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled "
                "scaler."
            )
        scale = float(state_dict["scale"])
        growth_factor, backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        interval, tracker = state_dict["growth_interval"], state_dict["_growth_tracker"]
        _check_scale(scale)
        _check(growth_factor > 1, "growth_factor must be above 1", growth_factor)
        _check(0 < backoff_factor < 1, "backoff_factor must lie in (0, 1)", backoff_factor)
        _check(interval >= 1, "growth_interval must be positive", interval)
        _check(tracker >= 0, "_growth_tracker must not be negative", tracker)
        self._init_scale, self._init_growth = scale, int(tracker)
        self._init_hysteresis = min(
            int(state_dict.get("_hysteresis_left", self._hysteresis)), self._hysteresis
        )
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = interval
        if self._scale is not None:
            self._begin(self._scale.device)

    def __getstate__(self) -> dict[str, Any]:
        if self._steps.any_begun():
            raise RuntimeError(
                "a LossScaler can be pickled before unscale_ and step or after update, not between"
            )
        state = self.__dict__.copy()
        if self._scale is not None:
            state["_init_scale"] = self._scale.item()
            state["_init_growth"] = int(self._growth.item())
            state["_init_hysteresis"] = int(self._left.item())
        for name in ("_scale", "_growth", "_left", "_stuck"):
            state[name] = None
        state["_steps"] = OptimizerSteps()
        return state

    def _begin(self, device: torch.device) -> None:
        def one(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((1,), value, dtype=dtype, device=device)

        self._scale = one(self._init_scale, torch.float32)
        self._growth = one(self._init_growth, torch.int32)
        self._left = one(self._init_hysteresis, torch.int32)
        self._stuck = one(NOWHERE, torch.int64)

    def _check_begun(self, method: str) -> None:
        if self._scale is None:
            raise RuntimeError(
                f"{method}() comes after scale(loss).backward(): no loss has been scaled yet"
            )

    def _raise_where_stuck(self, state: OptimizerState | None = None) -> None:
        """By what updates found at the floor, or the step that `state` is of."""
        number = self._stuck.item()
        scale = self._scale.item()
        if state is not None and self._dynamic and scale <= self._min_scale:
            number = min(number, state.first_on(self._scale.device).item())
            state.forget_first()  # what update() would say once more
        if number == NOWHERE:
            return
        self._stuck.fill_(NOWHERE)
        raise LossScaleError(
            f"the loss scale is at its floor, {self._min_scale:g}, and the gradient of "
            f"{self._steps.name_of(number)} is still inf or NaN: not the scale, but the loss, the "
            "input or the parameters make it so"
        )


def _divides(optimizer: Any) -> bool:
    """Whether its step takes found_inf and grad_scale."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _begins_momentum(optimizer: Any) -> bool:
    """Whether the next step makes buffers of SGD's momentum."""
    return isinstance(optimizer, torch.optim.SGD) and any(
        group["momentum"] != 0
        and any(p.grad is not None and not optimizer.state.get(p) for p in group["params"])
        for group in optimizer.param_groups
    )


def _check(holds: bool, what: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{what}, got {got}")


def _check_scale(scale: float) -> None:
    _check(0 <= scale < float("inf"), "a scale must be finite and not negative", scale)
