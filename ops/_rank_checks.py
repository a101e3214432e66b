"""What ranks tell each other before they work together: whether what each was given fits."""

import torch
import torch.distributed as dist

_MOST_SIZES = 8  # dimensions of rows that ranks compare


def agree(op, name, rows, group, check):
    """Tells all ranks whether `check` finds what this one was given fit, and the shape and dtype of
    `rows`, which must be the same on all: each raises, and none waits for one that did."""
    wrong = ""
    kinds = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    if rows.dtype not in kinds:
        wrong = f"{name} must be float64, float32, bfloat16 or float16, got {rows.dtype}"
    elif rows.ndim < 1 or rows.ndim > _MOST_SIZES:
        wrong = f"{name} must have 1 to {_MOST_SIZES} dimensions, got {tuple(rows.shape)}"
    else:
        try:
            check()
        except ValueError as error:
            wrong = str(error)
    kind = -1 if wrong else kinds.index(rows.dtype)
    sizes = [*rows.shape, *[-1] * _MOST_SIZES][:_MOST_SIZES]
    mine = torch.tensor([kind, rows.ndim, *sizes], device=rows.device)
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, mine, group=group)
    if wrong:
        raise ValueError(f"tilewright::{op}: {wrong}")
    found = [t.tolist() for t in everyones]
    bad = [rank for rank, f in enumerate(found) if f[0] < 0]
    if bad:
        raise ValueError(f"tilewright::{op}: what rank {bad[0]} was given does not fit, see there")
    if any(f != found[0] for f in found):
        told = "; ".join(f"{tuple(f[2 : 2 + f[1]])} {kinds[f[0]]}" for f in found)
        raise ValueError(
            f"tilewright::{op}: {name} must have one shape and dtype on all ranks, got {told}"
        )


def check_pair(first_name, first, second_name, second):
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
    check_temperature(temperature)
    if first.shape != second.shape:
        raise ValueError(
            f"second must have first's shape {tuple(first.shape)}, got {tuple(second.shape)}"
        )
    if first.shape[0] == 0 or first.shape[0] * dist.get_world_size(group) < 2:
        raise ValueError(
            f"needs a row of first on each rank and two on all, got {tuple(first.shape)}"
        )


def check_temperature(temperature):
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def check_index(name, index, rows_name, rows):
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
