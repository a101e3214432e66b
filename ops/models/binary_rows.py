"""What the models of binary vectors check of rows that are given to them, in words of one kind."""

from typing import Optional

import torch
from torch import Tensor

from tilewright._arguments import check_integer, check_tensor


def checked_binary_rows(model: str, name: str, rows: Tensor) -> Tensor:
    """The rows, which must be zeros and ones. That is looked at on the CPU only, where no program
    is traced: elsewhere it would cost a synchronisation."""
    return torch.ops.tilewright._checked_binary(rows, model, name)


def check_rows(model: str, x: Tensor, pixels: int) -> None:
    """(N, pixels)."""
    check_tensor(f"tilewright::{model}: x", x, f"(N, {pixels})")
    if x.dim() != 2 or x.size(1) != pixels:
        raise RuntimeError(f"tilewright::{model}: x must have shape (N, {pixels}), got {x.shape}")


def check_count(model: str, n: int) -> None:
    """How many rows to draw."""
    if not torch.jit.is_scripting():  # where it always is an integer
        check_integer(f"tilewright::{model}: n", n)
    if n < 0:
        raise RuntimeError(f"tilewright::{model}: n must not be negative, got {n}")


def begin_rows(model: str, n: int, given: Optional[Tensor], like: Tensor, pixels: int) -> Tensor:  # noqa: UP045
    """(n, pixels) of the dtype and device of ``like``: the given first pixels, then zeros."""
    check_count(model, n)
    rows = torch.zeros((n, pixels), dtype=like.dtype, device=like.device)
    if given is not None:
        check_tensor(f"tilewright::{model}: given", given, "(n, d)")
        if given.dim() != 2 or given.size(0) != n or given.size(1) > pixels:
            raise RuntimeError(
                f"tilewright::{model}: given must have shape (n, d) = ({n}, at most {pixels}), "
                f"got {given.shape}"
            )
        given = checked_binary_rows(model, "given", given)
        rows[:, : given.size(1)] = given.to(like.dtype)
    return rows


def draw(logits: Tensor) -> Tensor:
    """Pixels that are 1 with probability sigmoid(logits), of the logits' shape and dtype. 16 bits
    are too few for the numbers that are drawn: rare pixels would come too often."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (torch.rand_like(wide) < torch.sigmoid(wide)).to(logits.dtype)
