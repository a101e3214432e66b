"""Contrastive losses whose negatives come from all ranks of a process group.

Each rank calls with its own rows and gets the mean over them; where ranks have as many rows, the
mean of the ranks' losses is the loss of one large batch, and so is the gradient of that mean:
DistributedDataParallel, which averages gradients, takes the same step as a single process with all
rows. ``ring=True`` passes the keys from rank to rank, so that memory does not grow with their
number: a rank holds its own keys, those at hand and those that arrive, and backward as many
gradients. ``ring=False`` gathers them all, which is fewer messages.

Every call begins with one small message in which ranks tell each other what they were given and
whether it can be: where something does not fit, all of them raise and none waits. Reading it waits
for the device.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from tilewright._arguments import check_temperature
from tilewright._rank_checks import (
    agree,
    check_index,
    check_pair,
    check_range,
    check_scale,
    check_two,
)

_ops = torch.ops.tilewright

__all__ = ["clip_loss", "contrastive_lse", "gather_rows", "info_nce", "nt_xent"]


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows of all ranks in the order of ranks, (ranks * N, ...), of (N, ...) here and there:
    floating, or int64, int32 and uint8 (labels).

    Differentiable: a rank's gradient is the sum of what all ranks' losses say about its rows.

    Raises:
        ValueError: where ranks have rows of different shapes or dtypes, on each of them.
    """
    agree("gather_rows", "rows", rows, group, lambda: None)
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
        ring: pass keys round in place of gathering them, forward and backward. Differentiable
            once; gathered, twice.

    Returns:
        (N,), float64 of float64 and else float32.

    Raises:
        ValueError: on every rank, where what one of them was given does not fit.
    """

    def check():
        check_pair("query", query, "key", key)
        check_scale(scale)
        if exclude is not None:
            check_index("exclude", exclude, "query", query)
            check_range("exclude", exclude, -1, dist.get_world_size(group) * key.shape[0])

    agree("contrastive_lse", "key", key, group, check, query, scale=scale, ring=ring)
    return _sums(query, key, exclude, 1, float(scale), group, ring)


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

    def check():
        check_two(first, second, temperature, group)

    agree("nt_xent", "first", first, group, check, second, temperature=temperature, ring=ring)
    temperature = float(temperature)
    # Views of an example stand side by side, so that two consecutive ones are no negatives.
    views = [_ops._score_rows(view, True) for view in (first, second)]
    rows = torch.stack(views, 1).flatten(0, 1)
    own = _dot(rows[::2], rows[1::2]) / temperature
    example = torch.arange(rows.shape[0], device=rows.device) // 2 * 2
    others = _others(rows, rows, example, 2, temperature, group, ring)
    return _ops._loss_of_positive(own[:, None], others.view(-1, 2)).mean()


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

    def check():
        check_pair("query", query, "key", key)
        check_temperature("temperature", temperature)
        if query.shape[0] == 0 or key.shape[0] * dist.get_world_size(group) < 2:
            raise ValueError(
                "needs a row of query on each rank and two of key on all, got "
                f"{tuple(query.shape)} and {tuple(key.shape)}"
            )
        if positive is not None:
            check_index("positive", positive, "query", query)
            check_range("positive", positive, 0, key.shape[0])
        elif key.shape[0] < query.shape[0]:
            raise ValueError(
                f"key must have a row for each query ({query.shape[0]}) where positive is None, "
                f"got {tuple(key.shape)}"
            )

    settings = {"temperature": temperature, "normalize": normalize, "ring": ring}
    agree("info_nce", "key", key, group, check, query, **settings)
    return _info_nce(query, key, positive, float(temperature), normalize, group, ring)


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

    def check():
        check_two(first, second, temperature, group)

    settings = {"temperature": temperature, "normalize": normalize, "ring": ring}
    agree("clip_loss", "first", first, group, check, second, **settings)
    options = (None, float(temperature), normalize, group, ring)
    return (_info_nce(first, second, *options) + _info_nce(second, first, *options)) / 2


def _info_nce(query, key, positive, temperature, normalize, group, ring):
    q, k = (_ops._score_rows(rows, normalize) for rows in (query, key))
    if positive is None:
        positive, chosen = torch.arange(q.shape[0], device=q.device), k[: q.shape[0]]
    else:
        chosen = k.index_select(0, positive)
    own = _dot(q, chosen) / temperature
    return _ops._loss_of_positive(own, _others(q, k, positive, 1, temperature, group, ring)).mean()


def _others(query, key, own, count, temperature, group, ring):
    """Log-sum-exps without the `count` keys of this rank from `own` on."""
    exclude = own + dist.get_rank(group) * key.shape[0]
    return _sums(query, key, exclude, count, 1 / temperature, group, ring)


def _sums(query, key, exclude, count, scale, group, ring):
    """None of the ranges [exclude, exclude + count) holds keys of two ranks."""
    if not ring:
        keys = _Gather.apply(key, group)
        return _ops.contrastive_lse(query, keys, exclude, scale=scale, exclude_count=count)
    query, key = (_ops._score_rows(rows, False) for rows in (query, key))  # in autocast's dtype
    return _Ring.apply(query, key, exclude, count, scale, group)


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
    def forward(ctx, query, key, exclude, count, scale, group):
        # Of both operators: without columns, and without a diagonal that is left out.
        ctx.options, ctx.group = (scale, False, count, False), group
        world = dist.get_world_size(group)
        block, total = key.contiguous(), None
        for step in range(world):
            own = _part_of(exclude, block.shape[0], step, group)
            part = _ops._contrastive_lse(query, block, own, *ctx.options)[0]
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
                grad, none, query, block, own, total, none, *ctx.options, [needs[0], True]
            )
            if needs[0]:
                grad_query += of_query
            grad_block += of_key
            moving = [grad_block] if step + 1 == world else [grad_block, block]
            grad_block, *rest = _pass_on(moving, ctx.group)
            block = rest[0] if rest else block
        grads = [grad_query.to(query.dtype), grad_block.to(key.dtype)]
        return *(g if n else None for g, n in zip(grads, needs, strict=False)), *[None] * 4


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


def _dot(a, b):
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) * b.to(wide)).sum(1)
