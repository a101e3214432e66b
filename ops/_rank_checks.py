"""What ranks tell each other before they work together: whether what each was given fits."""

import math
import numbers
import struct

import torch
import torch.distributed as dist
from torch import Tensor

from tilewright._arguments import check_fixed, check_temperature, check_tensor

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_KINDS = (*_FLOATS, torch.int64, torch.int32, torch.uint8)
_CALLS = ("gather_rows", "contrastive_lse", "nt_xent", "info_nce", "clip_loss")
_MOST_SIZES = 8  # dimensions of rows that ranks compare
_MOST_SETTINGS = 3
_ROWS_END = 4 + _MOST_SIZES  # of a message: the call; two dtypes, dimensions, sizes; then gradients
_GRADIENTS = ("none", "{}", "all but {}", "all")


def agree(op, name, rows, group, check, other=None, **settings):
    """Tells all ranks whether `check` finds what this one was given fit, and what must be the same
    on all: which call it is, the shape and dtype of `rows`, the dtype of their products where there
    are settings, whether `rows` and the `other` ones get gradients, and the settings: numbers, and
    `normalize` and `ring`, which are True or False. Each raises, and none waits for one that did.
    All calls send as much."""
    mine, wrong = [-1], ""
    try:
        mine = _message(op, name, rows, other, group, check, settings)
    except Exception as error:  # whatever is raised is told: other ranks wait
        wrong = str(error) or repr(error)
    mine += [0] * (_ROWS_END + 1 + _MOST_SETTINGS - len(mine))
    sent = torch.tensor(mine, device=_device_of(group, rows))
    everyones = [torch.empty_like(sent) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, sent, group=group)
    if wrong:
        raise ValueError(f"tilewright::{op}: {wrong}")
    found = [t.tolist() for t in everyones]
    bad = [rank for rank, f in enumerate(found) if f[0] < 0]
    if bad:
        raise ValueError(f"tilewright::{op}: what rank {bad[0]} was given does not fit, see there")
    differs = [any(f[i] != found[0][i] for f in found) for i in range(len(mine))]
    if differs[0]:
        told = ", ".join(_CALLS[f[0]] for f in found)
        raise ValueError(f"tilewright::{op}: all ranks must make the same call, got {told}")
    if any(differs[1:_ROWS_END]):
        raise ValueError(
            f"tilewright::{op}: {name} must have one shape and dtype on all ranks, got "
            + "; ".join(_told(f[1:_ROWS_END]) for f in found)
        )
    if differs[_ROWS_END]:
        told = ", ".join(_GRADIENTS[f[_ROWS_END]].format(name) for f in found)
        raise ValueError(
            f"tilewright::{op}: the same tensors must get gradients on all ranks, got {told}"
        )
    for i, setting in enumerate(settings, _ROWS_END + 1):
        if differs[i]:
            told = ", ".join(f"{_number_of(f[i]):g}" for f in found)
            raise ValueError(
                f"tilewright::{op}: {setting} must be the same on all ranks, got {told}"
            )


def _message(op, name, rows, other, group, check, settings):
    """What a rank tells the others, as integers; raises where what it was given does not fit."""
    check_rows(name, rows)
    kinds = _FLOATS if settings else _KINDS
    if rows.dtype not in kinds:
        names = ", ".join(str(kind).removeprefix("torch.") for kind in kinds[:-1])
        last = str(kinds[-1]).removeprefix("torch.")
        raise ValueError(f"{name} must be {names} or {last}, got {rows.dtype}")
    if rows.ndim < 1 or rows.ndim > _MOST_SIZES:
        raise ValueError(f"{name} must have 1 to {_MOST_SIZES} dimensions, got {tuple(rows.shape)}")
    if _device_of(group, rows).type == "cuda" and not rows.is_cuda:
        raise ValueError(f"{name} must be on a CUDA device, as NCCL's are, got {rows.device}")
    check()
    for setting in set(settings) & {"normalize", "ring"}:
        if not isinstance(settings[setting], bool):
            raise ValueError(f"{setting} must be True or False, got {settings[setting]!r}")
    products = products_of(rows) if settings else rows.dtype
    dtypes = [_KINDS.index(dtype) for dtype in (rows.dtype, products)]
    sizes = [*rows.shape, *[-1] * _MOST_SIZES][:_MOST_SIZES]
    learnt = [t is not None and t.requires_grad and torch.is_grad_enabled() for t in (rows, other)]
    gradients = learnt[0] + 2 * learnt[1]
    given = map(_bits_of, settings.values())
    return [_CALLS.index(op), *dtypes, rows.ndim, *sizes, gradients, *given]


def products_of(rows):
    """The dtype of products of rows (N, D): their own or autocast's."""
    return torch.ops.tilewright._score_rows(rows[:1].detach(), False).dtype


def _told(words):
    """Shape and dtypes of a rank's rows, in words."""
    kind, products, ndim, *sizes = words
    cast = "" if kind == products else f" (by autocast {_KINDS[products]})"
    return f"{tuple(sizes[:ndim])} {_KINDS[kind]}{cast}"


def _bits_of(number):
    return struct.unpack("q", struct.pack("d", float(number)))[0]


def _number_of(bits):
    return struct.unpack("d", struct.pack("q", bits))[0]


def _device_of(group, rows):
    """Where the group's messages are."""
    if dist.get_backend(group) != "nccl":
        return torch.device("cpu")
    return rows.device if isinstance(rows, Tensor) and rows.is_cuda else torch.device("cuda")


def check_rows(name, rows, shape=""):
    """A tensor whose data can be sent."""
    check_tensor(name, rows, shape)
    if rows.layout != torch.strided or rows.is_meta:
        what = "the meta device" if rows.is_meta else str(rows.layout)
        raise ValueError(f"{name} must be a dense tensor with data, got one of {what}")


def check_pair(first_name, first, second_name, second):
    check_rows(first_name, first, "(N, D)")
    check_rows(second_name, second, "(M, D)")
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first_name} and {second_name} must have shapes (N, D) and (M, D), got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    if first.shape[1] == 0:
        raise ValueError(f"{first_name} must have features, got {tuple(first.shape)}")
    if first.device != second.device:
        raise ValueError(
            f"{second_name} must have {first_name}'s device ({first.device}), got {second.device}"
        )
    if products_of(first) != products_of(second):
        raise ValueError(
            f"{second_name} must have {first_name}'s dtype ({first.dtype}), got {second.dtype}"
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
    if isinstance(scale, bool) or not isinstance(scale, (numbers.Real, Tensor)):
        raise ValueError(f"scale must be a number, got {type(scale).__name__}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {float(scale)}")


def check_index(name, index, rows_name, rows):
    check_rows(name, index, "(N,)")
    if index.shape != rows.shape[:1] or index.dtype != torch.int64:
        raise ValueError(
            f"{name} must be int64 of shape (N,) = ({rows.shape[0]},), the rows of {rows_name}, "
            f"got {index.dtype} of {tuple(index.shape)}"
        )
    if index.device != rows.device:
        raise ValueError(
            f"{name} must be on {rows_name}'s device ({rows.device}), got {index.device}"
        )


def check_range(name, index, least, end):
    """What only data can tell, on the CPU."""
    if index.is_cuda or index.numel() == 0:
        return
    low, high = int(index.min()), int(index.max())
    if low < least or high >= end:
        raise ValueError(f"{name} must lie in [{least}, {end}), got {low} to {high}")
