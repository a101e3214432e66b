"""Contrastive losses whose negatives come from all ranks of a process group.

Each rank calls with its own rows and gets the mean over them; the mean of the ranks' losses is the
loss of one large batch, and so is the gradient of that mean: DistributedDataParallel, which
averages gradients, takes the same step as a single process with all rows. ``ring=True`` passes the
keys from rank to rank, so that a rank never holds more than two ranks' keys; ``ring=False`` gathers
them all, which is fewer messages.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

_ops = torch.ops.tilewright

__all__ = ["clip_loss", "contrastive_lse", "gather_rows", "info_nce", "nt_xent"]


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows of all ranks in the order of ranks, (ranks * N, ...), of (N, ...) here and there.

    Differentiable: a rank's gradient is the sum of what all ranks' losses say about its rows.

    Raises:
        ValueError: where ranks have rows of different shapes or dtypes, on each of them.
    """
    _check_alike("gather_rows", "rows", rows, group)
    return _Gather.apply(rows, group)


def contrastive_lse(
    query: Tensor,
    key: Tensor,
    exclude: Tensor | None = None,
    scale: float = 1.0,
    *,
    group: dist.ProcessGroup | None = None,
    ring: bool = True,
) -> Tensor:
    """``tilewright.contrastive_lse`` of this rank's queries over the keys of all ranks.

    Args:
        query: (N, D), this rank's; N may differ from rank to rank.
        key: (M, D), this rank's; M is the same on all ranks.
        exclude: (N,) int64: query i has no part in row ``exclude[i]`` of all ranks' keys, in the
            order of ranks (row r * M + j is row j of rank r); -1: in all of them.
        scale: of similarities.
        group: of the ranks; the default one unless given. Every rank of it calls.
        ring: pass keys round in place of gathering them: memory for two ranks' keys, whatever
            their number, forward and backward. Differentiable once; gathered, twice.

    Returns:
        (N,), float64 of float64 and else float32.
    """
    _check_alike("contrastive_lse", "key", key, group)
    if not ring:
        return _ops.contrastive_lse(query, _Gather.apply(key, group), exclude, scale=scale)
    device = query.device.type
    if torch.is_autocast_enabled(device) and query.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        query, key = query.to(dtype), key.to(dtype)
    return _Ring.apply(query, key, exclude, scale, group)


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.1,
    *,
    group: dist.ProcessGroup | None = None,
    ring: bool = True,
) -> Tensor:
    """``tilewright.nt_xent`` of this rank's views (N, D) among the views of all ranks: the mean
    over this rank's. N is the same on all ranks."""
    _check("nt_xent", first, second, temperature, group)
    views = _unit(torch.cat([first, second]), True)
    count = views.shape[0]
    itself = torch.arange(count, device=views.device) + dist.get_rank(group) * count
    sums = contrastive_lse(views, views, itself, 1 / temperature, group=group, ring=ring)
    own = _dot(views[: count // 2], views[count // 2 :])
    return sums.mean() - own.mean() / temperature


def info_nce(
    query: Tensor,
    key: Tensor,
    positive: Tensor | None = None,
    temperature: float = 0.1,
    normalize: bool = True,
    *,
    group: dist.ProcessGroup | None = None,
    ring: bool = True,
) -> Tensor:
    """``tilewright.info_nce`` of this rank's queries (N, D) among the keys (M, D) of all ranks.
    ``positive`` are rows of this rank's keys; None: row i to query i. M is the same on all ranks.
    """
    if positive is None and key.shape[0] < query.shape[0]:
        raise ValueError(
            f"tilewright::info_nce: key must have a row for each query ({query.shape[0]}) where "
            f"positive is None, got {tuple(key.shape)}"
        )
    _check("info_nce", query, key, temperature, group, "query", "key")
    q, k = _unit(query, normalize), _unit(key, normalize)
    sums = contrastive_lse(q, k, None, 1 / temperature, group=group, ring=ring)
    own = k[: q.shape[0]] if positive is None else k.index_select(0, positive)
    return sums.mean() - _dot(q, own).mean() / temperature


def clip_loss(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.07,
    normalize: bool = True,
    *,
    group: dist.ProcessGroup | None = None,
    ring: bool = True,
) -> Tensor:
    """``tilewright.clip_loss`` of this rank's pairs (N, D) among those of all ranks: the mean of
    ``info_nce`` in both directions. N is the same on all ranks."""
    _check("clip_loss", first, second, temperature, group)
    rows = [_unit(first, normalize), _unit(second, normalize)]
    options = {"normalize": False, "group": group, "ring": ring}
    both = [info_nce(a, b, None, temperature, **options) for a, b in (rows, rows[::-1])]
    return (both[0] + both[1]) / 2


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, group):
        ctx.group = group
        blocks = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(blocks, rows.contiguous(), group=group)
        return torch.cat(blocks)

    @staticmethod
    def backward(ctx, grad):
        return _ReduceScatter.apply(grad, ctx.group), None


class _ReduceScatter(torch.autograd.Function):
    """The sum over ranks of this rank's part of the rows; the gather's derivative, and it its."""

    @staticmethod
    def forward(ctx, rows, group):
        ctx.group = group
        total = rows.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total.chunk(dist.get_world_size(group))[dist.get_rank(group)].clone()

    @staticmethod
    def backward(ctx, grad):
        return _Gather.apply(grad, ctx.group), None


class _Ring(torch.autograd.Function):
    """Log-sum-exps over all ranks' keys, which go round; in the backward pass each rank's gradient
    goes round with its keys, and comes home."""

    @staticmethod
    def forward(ctx, query, key, exclude, scale, group):
        ctx.scale, ctx.group = scale, group
        world = dist.get_world_size(group)
        block, total = key.contiguous(), None
        for step in range(world):
            own = _part_of(exclude, block.shape[0], step, group)
            part = _ops._contrastive_lse(query, block, own, scale, False, 1)[0]
            total = part if total is None else torch.logaddexp(total, part)
            if step + 1 < world:
                (block,) = _pass_on([block], group)
        ctx.save_for_backward(query, key, exclude, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        query, key, exclude, total = ctx.saved_tensors
        needs = ctx.needs_input_grad
        world = dist.get_world_size(ctx.group)
        none, block = grad.new_empty(0), key.contiguous()
        grad_query = torch.zeros_like(query, dtype=grad.dtype)
        grad_block = torch.zeros_like(block, dtype=grad.dtype)
        for step in range(world):
            own = _part_of(exclude, block.shape[0], step, ctx.group)
            of_query, of_key = _ops._contrastive_lse_backward(
                grad, none, query, block, own, total, none, ctx.scale, False, 1, [needs[0], True]
            )
            if needs[0]:
                grad_query += of_query
            grad_block += of_key
            moving = [grad_block] if step + 1 == world else [grad_block, block]
            grad_block, *rest = _pass_on(moving, ctx.group)
            block = rest[0] if rest else block
        grads = [grad_query.to(query.dtype), grad_block.to(key.dtype)]
        return *(g if n else None for g, n in zip(grads, needs, strict=False)), None, None, None


def _part_of(exclude, count, step, group):
    """Indices among all keys as indices among those that came from `step` ranks before."""
    if exclude is None:
        return None
    owner = (dist.get_rank(group) - step) % dist.get_world_size(group)
    local = exclude - owner * count
    return torch.where((exclude >= 0) & (local >= 0) & (local < count), local, -1)


def _pass_on(tensors, group):
    """Sends to the next rank and returns what the one before sends."""
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    if world == 1:
        return tensors
    group = dist.group.WORLD if group is None else group
    after, before = (dist.get_global_rank(group, (rank + by) % world) for by in (1, -1))
    received = [torch.empty_like(t) for t in tensors]
    messages = [dist.P2POp(dist.isend, t, after, group) for t in tensors]
    messages += [dist.P2POp(dist.irecv, t, before, group) for t in received]
    for request in dist.batch_isend_irecv(messages):
        request.wait()
    return received


def _check(op, first, second, temperature, group, first_name="first", second_name="second"):
    if not 0 < temperature < float("inf"):
        raise ValueError(
            f"tilewright::{op}: temperature must be positive and finite, got {temperature}"
        )
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"tilewright::{op}: {first_name} and {second_name} must have shapes (N, D) and (M, D), "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if second_name == "second" and first.shape != second.shape:
        raise ValueError(
            f"tilewright::{op}: second must have first's shape {tuple(first.shape)}, got "
            f"{tuple(second.shape)}"
        )
    if first.shape[0] == 0 or second.shape[0] * dist.get_world_size(group) < 2:
        raise ValueError(
            f"tilewright::{op}: needs a row of {first_name} on each rank and two of {second_name} "
            f"on all, got {tuple(first.shape)} and {tuple(second.shape)}"
        )


def _check_alike(op, name, rows, group):
    """The ranks' shapes and dtypes, told to all of them: each raises, and none waits for ever."""
    kinds = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    if rows.dtype not in kinds:
        raise ValueError(
            f"tilewright::{op}: {name} must be float64, float32, bfloat16 or float16, got "
            f"{rows.dtype}"
        )
    kind = kinds.index(rows.dtype)
    shape = [*rows.shape[:8], *[-1] * (8 - rows.ndim)]
    mine = torch.tensor([rows.ndim, kind, *shape], device=rows.device)
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, mine, group=group)
    found = [t.tolist() for t in everyones]
    if any(f != found[0] for f in found):
        told = "; ".join(f"{tuple(f[2 : 2 + f[0]])} {kinds[f[1]]}" for f in found)
        raise ValueError(
            f"tilewright::{op}: {name} must have one shape and dtype on all ranks, got {told}"
        )


def _unit(rows, normalize):
    """Rows as scores are made of them: of length 1, computed in float32 at least."""
    if not normalize:
        return rows
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return (wide / torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(1e-12)).to(
        rows.dtype
    )


def _dot(a, b):
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) * b.to(wide)).sum(1)
