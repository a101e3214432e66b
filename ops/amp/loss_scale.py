"""The loss scale as numbers: its options, its state, and how both are read and written."""

from __future__ import annotations

import math
import numbers
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tilewright.amp.optimizer_steps import NOWHERE, OptimizerState, OptimizerSteps

SMALLEST = 2.0**-126  # the least scale whose inverse is finite in float32
LARGEST = torch.finfo(torch.float32).max


class LossScaleError(RuntimeError):
    """The scale is at its floor, and gradients are still inf or NaN."""


class LossScale:
    """What :class:`~tilewright.amp.LossScaler` is beside its steps."""

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
        min_scale: float = SMALLEST,
        max_scale: float | None = None,
        hysteresis: int = 1,
        process_group: Any = None,
    ) -> None:
        check(
            device is None or isinstance(device, (str, torch.device)),
            "device must be a device, and comes before init_scale",
            device,
        )
        if device is not None:
            torch.device(device)  # which says what is none
        for name, flag in (("enabled", enabled), ("dynamic", dynamic)):
            check(isinstance(flag, bool), f"{name} must be True or False", flag)
        check_moves(growth_factor, backoff_factor, growth_interval)
        check_count("hysteresis", hysteresis)
        check_real("min_scale", min_scale)
        check(0 <= min_scale <= LARGEST, "min_scale must be finite and not negative", min_scale)
        if max_scale is not None:
            check_real("max_scale", max_scale)
            check(
                max_scale >= min_scale,
                f"max_scale must be None or at least min_scale ({min_scale})",
                max_scale,
            )
        check_real("init_scale", init_scale)
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._enabled = enabled
        self._dynamic = dynamic
        # As the scale itself: a floor between two numbers of float32 would never be reached.
        self._min_scale = in_float32(min_scale)
        self._max_scale = None if max_scale is None else in_float32(min(max_scale, LARGEST))
        self._hysteresis = hysteresis
        self._process_group = process_group
        self._init_scale = in_float32(init_scale)
        self._init_growth = 0
        self._init_hysteresis = hysteresis
        self._scale: Tensor | None = None  # (1,) float32
        self._growth: Tensor | None = None  # (1,) int32
        self._left: Tensor | None = None  # (1,) int32, of hysteresis
        self._stuck: Tensor | None = None  # (1,) int64: a parameter's number, or NOWHERE
        self._steps = OptimizerSteps()
        self._check_scale("init_scale", self._init_scale)

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
        check_moves(new_factor, self._backoff_factor, self._growth_interval)
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        check_moves(self._growth_factor, new_factor, self._growth_interval)
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        check_moves(self._growth_factor, self._backoff_factor, new_interval)
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
        """Of a state dict of this class or of GradScaler's. Floor, ceiling and hysteresis stay
        those that the scaler was made with.

        Raises:
            RuntimeError: for an empty one, of a scaler that was not enabled.
            KeyError, TypeError, ValueError: for one that lacks something or holds numbers that
                cannot be; the scaler is then as it was. A scale beyond floor and ceiling becomes
                the nearer of the two: GradScaler's may have fallen to 0.
        """
        if not self._enabled:
            return
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {type(state_dict).__name__}")
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled "
                "scaler."
            )
        scale = float(state_dict["scale"])
        check(0 <= scale <= LARGEST, "a scale must be finite and not negative", scale)
        moves = [
            state_dict[name] for name in ("growth_factor", "backoff_factor", "growth_interval")
        ]
        check_moves(*moves)
        tracker = state_dict["_growth_tracker"]
        check_count("_growth_tracker", tracker, least=0)
        left = state_dict.get("_hysteresis_left", self._hysteresis)
        check_count("_hysteresis_left", left, least=-(2**31))
        # Nothing was changed before.
        most = LARGEST if self._max_scale is None else self._max_scale
        self._init_scale = min(max(scale, self._min_scale), most)
        self._init_growth = int(tracker)
        self._init_hysteresis = int(min(left, self._hysteresis))
        self._growth_factor, self._backoff_factor, self._growth_interval = moves
        if self._scale is not None:  # in place: a CUDA graph may hold these
            self._scale.fill_(self._init_scale)
            self._growth.fill_(self._init_growth)
            self._left.fill_(self._init_hysteresis)
            self._stuck.fill_(NOWHERE)

    def __getstate__(self) -> dict[str, Any]:
        if self._steps.any_begun():
            raise RuntimeError(
                "a LossScaler can be pickled before unscale_ and step or after update, not between"
            )
        state = self.__dict__.copy()
        state["_process_group"] = None  # of this process alone
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

    def _check_scale(self, name: str, scale: float) -> None:
        check_real(name, scale)
        most = LARGEST if self._max_scale is None else self._max_scale
        check(
            self._min_scale <= scale <= min(most, LARGEST),
            f"{name} must lie between the floor and the ceiling, {self._min_scale:g} and {most:g}",
            scale,
        )

    def _check_begun(self, method: str) -> None:
        if self._scale is None:
            raise RuntimeError(
                f"{method}() comes after scale(loss).backward(): no loss has been scaled yet"
            )

    def _raise_where_stuck(self, state: OptimizerState | None = None) -> None:
        """By what updates found at the floor, or the step that `state` is of."""
        number = self._stuck.item()
        at_floor = self._dynamic and self._scale.item() <= self._min_scale
        if state is not None and at_floor and self._left.item() <= 1:
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


def check(holds: bool, what: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{what}, got {got!r}")


def check_real(name: str, value: float) -> None:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    check(real, f"{name} must be a number", value)


def check_count(name: str, count: int, least: int = 1) -> None:
    whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    good = whole and least <= count < 2**31
    check(good, f"{name} must be a whole number in [{least}, 2^31)", count)


def in_float32(number: float) -> float:
    """Its neighbour among the numbers of float32, which the scale is one of."""
    if not -LARGEST <= number <= LARGEST:
        return float(number)
    return struct.unpack("f", struct.pack("f", number))[0]


def check_moves(growth_factor: float, backoff_factor: float, growth_interval: int) -> None:
    check_real("growth_factor", growth_factor)
    check_real("backoff_factor", backoff_factor)
    check(1 < growth_factor < math.inf, "growth_factor must be finite and above 1", growth_factor)
    check(0 < backoff_factor < 1, "backoff_factor must lie in (0, 1)", backoff_factor)
    check_count("growth_interval", growth_interval)
