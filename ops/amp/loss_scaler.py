"""The loss scaler: torch.amp.GradScaler's interface, without its traps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tilewright.amp.gradients import Gradients, begins_momentum, divides
from tilewright.amp.loss_scale import LossScale, LossScaleError, check, check_real
from tilewright.amp.operators import update_scale_
from tilewright.amp.optimizer_steps import NOWHERE, OptimizerState, Stage
from tilewright.amp.rollback import Overflow, Rollback

__all__ = ["LossScaleError", "LossScaler"]


class LossScaler(LossScale):
    """Scales a loss so that gradients of float16 do not vanish, and never applies an update made
    from gradients that are inf or NaN (arXiv:1710.03740).

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
        min_scale: the floor; by default the least normal number of float32. A scale of 2^-128 or
            less has no inverse there, and all gradients count as infinite.
        max_scale: the ceiling, or None.
        hysteresis: so many steps of inf or NaN in a row before the scale falls.
        process_group: ranks that share what they find, ``torch.distributed.group.WORLD`` or
            another; None where each decides alone, or, where gradients are DTensors (FSDP2, tensor
            parallelism), as the ranks of their mesh do. With DistributedDataParallel gradients, and
            what is found in them, are the same anyway. A pickle leaves it out.
    """

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

    @torch.compiler.disable
    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, in place, once before
        each step: for what looks at gradients before the step does.

        Raises:
            RuntimeError: where it was called for this step already, or comes after ``step``.
        """
        if self._enabled:
            self._unscale(optimizer)

    @torch.compiler.disable
    def unscale_and_clip_(
        self, optimizer: torch.optim.Optimizer, max_norm: float, eps: float = 1e-6
    ) -> Tensor:
        """``unscale_`` and then what ``clip_grad_norm_`` does: where the 2-norm of all the
        optimizer's gradients is above `max_norm`, they are scaled down to it.

        The norm is found in the pass that unscales. An optimizer that divides gradients itself
        (``fused=True``) clips them within its step, and until then they are what ``unscale_`` makes
        of them; others are clipped here. Returns the norm, one number
        on the scale's device; where it is beyond its dtype the step counts as one of inf. It is of
        this rank's gradients, also where `process_group` shares what is found; of DTensors it is
        that of the whole, in a pass of its own.
        """
        check_real("max_norm", max_norm)
        check(max_norm > 0, "max_norm must be positive", max_norm)
        check_real("eps", eps)
        check(0 <= eps < math.inf, "eps must be finite and not negative", eps)
        if not self._enabled:
            gradients = Gradients(optimizer)
            norm = gradients.norm()
        else:
            gradients, norm = self._unscale(optimizer, norm=True)
        factor = (max_norm / (norm + eps)).clamp(max=1.0)
        if not self._enabled:
            gradients.multiply_(factor)
            return norm
        state = self._steps[optimizer]
        state.add_found(~norm.isfinite())
        if divides(optimizer):
            state.divisor = factor.reciprocal().float().view(())
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
        if not write:
            # The optimizer divides by the scale, which may round up where a product rounds down.
            inv_scale = inv_scale * (1 + 2.0**-20)
        found = gradients.unscale_(inv_scale, state, norm, write)
        state.stage = Stage.UNSCALED
        if norm and gradients.is_in_parts():
            found = gradients.norm().to(self._scale.device)
        return gradients, found

    @torch.compiler.disable
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
                names the first parameter concerned. ``update`` comes next all the same.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        closure = kwargs.get("closure", args[0] if args and callable(args[0]) else None)
        if closure is not None:
            rest = {name: value for name, value in kwargs.items() if name != "closure"}
            return self._step_by_closure(optimizer, closure, args[1:], rest)
        self._check_begun("step")
        state = self._steps[optimizer]
        if state.stage is Stage.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        on_device = divides(optimizer)
        if state.stage is Stage.READY:
            # An optimizer that divides gradients anyway need not find them divided.
            self._unscale(optimizer, write=not on_device)
            state.divisor = self._scale.squeeze() if on_device else None
        self._share(state)
        # A first step of torch's fused SGD that is left out on the device would go on with buffers
        # of momentum that nothing was written to.
        asks = not on_device or begins_momentum(optimizer)
        left_out = asks and state.found_something()
        if left_out:
            returned = None
        elif on_device:
            returned = self._step_on_device(optimizer, state, args, kwargs)
        else:
            returned = optimizer.step(*args, **kwargs)
        state.stage = Stage.STEPPED  # not where the optimizer raised: its step may be tried again
        if left_out:
            self._raise_where_stuck(state)
        return returned

    def _step_on_device(self, optimizer: Any, state: OptimizerState, args: Any, kwargs: Any) -> Any:
        """By an optimizer that looks at found_inf itself: nothing is asked of the device."""
        own = getattr(optimizer, "grad_scale", None)
        both = [one for one in (state.divisor, own) if one is not None]
        optimizer.grad_scale = math.prod(both) if both else None
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
            state.begin_again()
            self._unscale(optimizer)
            self._share(state)
            if state.found_something():
                raise Overflow
            return loss

        try:
            returned = optimizer.step(evaluated, *args, **kwargs)
        except Overflow:
            pass
        except BaseException:
            state.begin_again()
            raise
        state.stage = Stage.STEPPED
        if not state.found_something():
            return returned
        rollback.undo()
        self._raise_where_stuck(state)
        return None

    def _share(self, state: OptimizerState) -> None:
        groups = state.groups if self._process_group is None else [self._process_group]
        if groups and not state.shared:
            state.share(groups, self._scale.device)

    @torch.compiler.disable
    def update(self, new_scale: float | Tensor | None = None) -> None:
        """The scale of the next step: by what the steps since the last update found, or
        `new_scale`.

        Raises:
            RuntimeError: where no gradient has been looked at since the last update.
            ValueError: for a new scale that is not finite or beyond floor and ceiling; one on a GPU
                is not looked at.
        """
        if not self._enabled:
            return
        self._check_begun("update")
        if new_scale is not None:
            if isinstance(new_scale, Tensor):
                if new_scale.numel() != 1 or new_scale.requires_grad:
                    needs = ", which requires grad" if new_scale.requires_grad else ""
                    raise ValueError(
                        "new_scale must be one number that requires no grad, got a tensor of shape "
                        f"{tuple(new_scale.shape)}{needs}"
                    )
                if new_scale.is_cpu:
                    self._check_scale("new_scale", new_scale.item())
                self._scale.copy_(new_scale.view(1))
            else:
                self._check_scale("new_scale", new_scale)
                self._scale.fill_(new_scale)
        else:
            for state in self._steps.looked_at():
                self._share(state)
            found, first = self._steps.found(self._scale.device)
            if found is None:
                raise RuntimeError(
                    "update() comes after step() or unscale_(): no gradient has been looked at "
                    "since the last update()"
                )
            if self._dynamic:
                stuck = (found > 0) & (self._scale <= self._min_scale) & (self._left <= 1)
                first = torch.where(stuck, first, NOWHERE)
                self._stuck.copy_(torch.minimum(self._stuck, first))
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
