"""What the models of binary vectors check of rows that are given to them, in words of one kind."""

from typing import Optional

import torch
from torch import Tensor


def check_binary_rows(model: str, name: str, rows: Tensor) -> None:
    """Zeros and ones alone. On the CPU only: elsewhere a look would cost a synchronisation."""
    if rows.is_cuda:
        return
    if not bool(((rows == 0) | (rows == 1)).all()):
        raise RuntimeError(f"tilewright::{model}: {name} must hold zeros and ones alone")


def check_rows(model: str, x: Tensor, pixels: int) -> None:
    """(N, pixels)."""
    if x.dim() != 2 or x.size(1) != pixels:
        raise RuntimeError(f"tilewright::{model}: x must have shape (N, {pixels}), got {x.shape}")


def begin_rows(model: str, n: int, given: Optional[Tensor], like: Tensor, pixels: int) -> Tensor:  # noqa: UP045
    """(n, pixels) of the dtype and device of ``like``: the given first pixels, then zeros."""
    if n < 0:
        raise RuntimeError(f"tilewright::{model}: n must not be negative, got {n}")
    rows = torch.zeros((n, pixels), dtype=like.dtype, device=like.device)
    if given is not None:
        if given.dim() != 2 or given.size(0) != n or given.size(1) > pixels:
            raise RuntimeError(
                f"tilewright::{model}: given must have shape (n, d) = ({n}, at most {pixels}), "
                f"got {given.shape}"
            )
        check_binary_rows(model, "given", given)
        rows[:, : given.size(1)] = given.to(like.dtype)
    return rows


def draw(logits: Tensor) -> Tensor:
    """Pixels that are 1 with probability sigmoid(logits), of the logits' shape and dtype."""
    return (torch.rand_like(logits) < torch.sigmoid(logits)).to(logits.dtype)
