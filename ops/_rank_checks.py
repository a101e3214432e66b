"""What ranks tell each other before they work together: whether what each was given fits."""

import struct

import torch
import torch.distributed as dist
from torch import Tensor

from tilewright._arguments import check_fixed, check_temperature, check_tensor

_KINDS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_MOST_SIZES = 8  # dimensions of rows that ranks compare


def agree(op, name, rows, group, check, **settings):
    """Tells all ranks whether `check` finds what this one was given fit, and what must be the same
    on all: the shape and dtype of `rows`, and numbers. Each raises, and none waits for one that
    did."""
    wrong = _what_is_wrong(name, rows, check)
    kind = -1 if wrong else _KINDS.index(rows.dtype)
    sizes = [-1] * _MOST_SIZES if wrong else [*rows.shape, *[-1] * _MOST_SIZES][:_MOST_SIZES]
    numbers = [0 if wrong else _bits_of(number) for number in settings.values()]
    device = rows.device if isinstance(rows, Tensor) else _device_of(group)
    mine = torch.tensor([kind, 0 if wrong else rows.ndim, *sizes, *numbers], device=device)
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, mine, group=group)
    if wrong:
        raise ValueError(f"tilewright::{op}: {wrong}")
    found = [t.tolist() for t in everyones]
    bad = [rank for rank, f in enumerate(found) if f[0] < 0]
    if bad:
        raise ValueError(f"tilewright::{op}: what rank {bad[0]} was given does not fit, see there")
    end = 2 + _MOST_SIZES
    if any(f[:end] != found[0][:end] for f in found):
        told = "; ".join(f"{tuple(f[2 : 2 + f[1]])} {_KINDS[f[0]]}" for f in found)
        raise ValueError(
            f"tilewright::{op}: {name} must have one shape and dtype on all ranks, got {told}"
        )
    for i, setting in enumerate(settings):
        told = [_number_of(f[end + i]) for f in found]
        if any(number != told[0] for number in told):
            raise ValueError(
                f"tilewright::{op}: {setting} must be the same on all ranks, got "
                + ", ".join(f"{number:g}" for number in told)
            )


def _what_is_wrong(name, rows, check):
    """In words; nothing where all is well. Whatever is raised is told: other ranks wait."""
    if not isinstance(rows, Tensor):
        return f"{name} must be a tensor, got {type(rows).__name__}"
    if rows.dtype not in _KINDS:
        return f"{name} must be float64, float32, bfloat16 or float16, got {rows.dtype}"
    if rows.ndim < 1 or rows.ndim > _MOST_SIZES:
        return f"{name} must have 1 to {_MOST_SIZES} dimensions, got {tuple(rows.shape)}"
    try:
        check()
    except Exception as error:
        return str(error)
    return ""


def _bits_of(number):
    return struct.unpack("q", struct.pack("d", float(number)))[0]


def _number_of(bits):
    return struct.unpack("d", struct.pack("q", bits))[0]


def _device_of(group):
    """Where the group's messages are."""
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")


def check_pair(first_name, first, second_name, second):
    check_tensor(first_name, first, "(N, D)")
    check_tensor(second_name, second, "(M, D)")
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first_name} and {second_name} must have shapes (N, D) and (M, D), got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    if first.shape[1] == 0:
        raise ValueError(f"{first_name} must have features, got {tuple(first.shape)}")
    for what in ("dtype", "device"):
        ours, theirs = getattr(first, what), getattr(second, what)
        if ours != theirs:
            raise ValueError(
                f"{second_name} must have {first_name}'s {what} ({ours}), got {theirs}"
            )


def check_two(first, second, temperature, group):
    check_pair("first", first, "second", second)
    check_temperature("temperature", temperature)
    if first.shape != second.shape:
        raise ValueError(
            f"second must have first's shape {tuple(first.shape)}, got {tuple(second.shape)}"
        )
    if first.shape[0] == 0 or first.shape[0] * dist.get_world_size(group) < 2:
        raise ValueError(
            f"needs a row of first on each rank and two on all, got {tuple(first.shape)}"
        )


def check_scale(scale):
    check_fixed("scale", scale)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise ValueError(f"scale must be a number, got {type(scale).__name__}")


def check_index(name, index, rows_name, rows):
    check_tensor(name, index, "(N,)")
    if index.shape != rows.shape[:1] or index.dtype != torch.int64:
        raise ValueError(
            f"{name} must be int64 of shape (N,) = ({rows.shape[0]},), the rows of {rows_name}, "
            f"got {index.dtype} of {tuple(index.shape)}"
        )


def check_range(name, index, least, end):
    """What only data can tell, on the CPU."""
    if index.is_cuda or index.numel() == 0:
        return
    low, high = int(index.min()), int(index.max())
    if low < least or high >= end:
        raise ValueError(f"{name} must lie in [{least}, {end}), got {low} to {high}")
