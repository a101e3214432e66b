"""Checks of arguments that the functions and modules share."""

import numbers

import torch
from torch import Tensor


def check_tensor(name: str, x: Tensor, shape: str = "") -> None:
    """Raises ValueError where x is no tensor; in TorchScript it always is one. ``shape`` is what
    the message says a tensor would need."""
    if not isinstance(x, Tensor):
        wanted = f"a tensor of shape {shape}" if shape else "a tensor"
        raise ValueError(f"{name} must be {wanted}, got {type(x).__name__}")


_DIVIDE = "multiply or divide the features of one side by it, of losses with normalize=False"


def check_fixed(name: str, number: float, instead: str = _DIVIDE) -> None:
    """Raises ValueError where a number is a tensor whose gradient would be lost."""
    if isinstance(number, Tensor):  # noqa: SIM102 (TorchScript leaves out the branch of a type)
        if number.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name} must be a number, got a tensor that requires a gradient and would get "
                f"none: {instead}"
            )


def check_integer(name: str, value: object) -> None:
    """Raises ValueError where value is no integer; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be an integer, got {value!r}")


def check_integers(function: str, **values: object) -> None:
    """The same of several arguments of a function or module, by their names."""
    for name, value in values.items():
        check_integer(f"tilewright::{function}: {name}", value)


def check_temperature(name: str, value: float) -> None:
    """Raises ValueError where value is no positive and finite number, or one that would learn."""
    check_fixed(name, value)
    if not isinstance(value, (numbers.Real, Tensor)) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
