"""Checks of arguments that the functions and modules share."""

from torch import Tensor


def check_tensor(name: str, x: Tensor) -> None:
    """Raises ValueError where x is no tensor; in TorchScript it always is one."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}")
