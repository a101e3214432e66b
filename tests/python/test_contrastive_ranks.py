"""Negatives from all ranks: two and three processes with gloo do what one process with all rows
does."""

import json
import os
from fractions import Fraction

import pytest
import torch
from processes import run_ranks

import tilewright
from tilewright import distributed

ROWS, DIM = 12, 6  # of all ranks together


def rows_of_all(seed, dtype=torch.float64):
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(seed)).to(dtype)


def excluded(query, key, exclude):
    return tilewright.contrastive_lse(query, key, exclude, scale=0.7)


EXCLUDE = torch.tensor([3, -1, 0, 7, 11, 2, 2, -1, 5, 9, 10, 1])
# Each call by its arguments behind the two tensors, here with all rows and with a rank's.
CASES = {
    "nt_xent": (0.2,),
    "info_nce": (None, 0.3, True),
    "clip_loss": (0.5, True),
}


def pieces(tensor, rank, world):
    return tensor.chunk(world)[rank].clone().requires_grad_()


def on_ranks(rank, world):
    """Losses and gradients of this rank, by case: gradients of the mean of the ranks' losses."""
    found = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        first, second = (pieces(rows_of_all(seed, dtype), rank, world) for seed in (0, 1))
        for ring in (True, False):
            for name, rest in CASES.items():
                loss = getattr(distributed, name)(first, second, *rest, ring=ring)
                grads = torch.autograd.grad(loss / world, (first, second))
                found[f"{name} {ring} {dtype}"] = [loss.item(), *(g.tolist() for g in grads)]
            exclude = EXCLUDE.chunk(world)[rank]
            sums = distributed.contrastive_lse(first, second, exclude, 0.7, ring=ring)
            weights = torch.arange(1.0, ROWS + 1).chunk(world)[rank].to(sums)
            grads = torch.autograd.grad(sums, (first, second), weights)
            found[f"lse {ring} {dtype}"] = [sums.tolist(), *(g.tolist() for g in grads)]
    more = {"group": in_a_group(rank, world)} | under_autocast()
    more |= far_keys(rank, world)
    return found | refusals(rank) | twice(rank, world) | more


def cast_on(enabled, call, *given):
    with torch.autocast("cpu", torch.bfloat16, enabled):
        return call(*given)


def refusals(rank):
    """What ranks are told where one of them, the second, was given what does not fit: each raises,
    and none waits."""
    good, last = torch.ones(3, 4), rank == 1
    learnt, learnt_rows = torch.tensor(0.1, requires_grad=True), torch.ones(3, 4).requires_grad_()
    calls = [
        lambda: distributed.gather_rows(torch.ones(4 if last else 3, 4)),
        lambda: distributed.gather_rows(good.double() if last else good),
        lambda: distributed.nt_xent(good, good, ring=last),
        lambda: distributed.clip_loss(good, good, 0.2 if last else 0.1),
        lambda: cast_on(last, distributed.nt_xent, good, good),
        lambda: getattr(distributed, "clip_loss" if last else "nt_xent")(good, good),
        lambda: distributed.info_nce(learnt_rows, learnt_rows if last else good),
        lambda: distributed.gather_rows(learnt_rows if last else good),
        lambda: distributed.nt_xent(None if last else good, good),
        lambda: distributed.info_nce(good, [1.0] if last else good),
        lambda: distributed.clip_loss(good, good, None if last else 0.1),
        lambda: distributed.nt_xent(good, torch.ones(2, 4) if last else good),
        lambda: distributed.nt_xent(*[good[: 0 if last else 3]] * 2),
        lambda: distributed.info_nce(good, good[: 2 if last else 3]),
        lambda: distributed.info_nce(good, good, torch.tensor([0, 1, 3 if last else 2])),
        lambda: distributed.clip_loss(good, good.double() if last else good),
        lambda: distributed.contrastive_lse(good, good, torch.tensor([0, -1, 99 if last else 1])),
        lambda: distributed.clip_loss(good, good, learnt if last else 0.1),
        lambda: distributed.contrastive_lse(good, good, None, learnt if last else 0.1),
        lambda: distributed.contrastive_lse(good, good, None, float("nan") if last else 0.1),
        lambda: distributed.nt_xent(good, good, ring=None if last else True),
        lambda: distributed.info_nce(good, good, normalize="yes" if last else True),
        lambda: distributed.clip_loss(good, good, 10**400 if last else 1),
        lambda: distributed.info_nce(good, good.to_sparse() if last else good),
        lambda: distributed.gather_rows(good.to("meta") if last else good),
        lambda: distributed.contrastive_lse(
            good, good, good[:, 0].long().to("meta" if last else "cpu")
        ),
    ]
    found = []
    for call in calls:
        try:
            call()
            found.append("")
        except ValueError as error:
            found.append(str(error))
    return {"refusals": found}


def in_a_group(rank, world):
    """The last two ranks by themselves, of three; their queries are not as many."""
    if world < 3:
        return {}
    group = torch.distributed.new_group([1, 2])
    if rank == 0:
        return {}
    first, second = (rows_of_all(seed)[6 * (rank - 1) : 6 * rank].clone() for seed in (0, 1))
    first = first[: 4 + rank].requires_grad_()
    second.requires_grad_()
    found = {}
    for ring in (True, False):
        sums = distributed.contrastive_lse(first, second, None, 0.7, group=group, ring=ring)
        grads = torch.autograd.grad(sums.sum(), (first, second))
        found[f"group {ring}"] = [sums.tolist(), *(g.tolist() for g in grads)]
    return found


FAR = torch.tensor([[0.5, 0.0], [-200.0, 0.0], [-90.0, 1.0]])  # a key of each rank


def far_keys(rank, world):
    """One key on each rank, which its query leaves out, far above all others' or far below."""
    found = []
    for ring in (True, False):
        query = torch.tensor([[1.0, 0.0]], requires_grad=True)
        key = FAR[rank : rank + 1].clone().requires_grad_()
        loss = distributed.info_nce(query, key, None, Fraction(1), False, ring=ring)
        grads = torch.autograd.grad(loss, (query, key))
        found.append([loss.item(), *(g.tolist() for g in grads)])
    return {"far": found}


def under_autocast():
    """Losses of small temperature, whose positives' scores must be those in the sums."""
    found = []
    for ring in (True, False):
        rows = rows_of_all(3 + torch.distributed.get_rank(), torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(distributed.nt_xent(rows, rows, 0.02, ring=ring).item())
    with torch.autocast("cpu", torch.bfloat16):  # as a projection beside rows of a memory bank
        mixed = distributed.info_nce(rows.half(), rows, temperature=0.02).item()
    labels = distributed.gather_rows(torch.tensor([torch.distributed.get_rank()]))
    return {"autocast": found, "mixed": mixed, "labels": labels.tolist()}


def twice(rank, world):
    """Second derivatives, of the gathered keys."""
    first, second = (pieces(rows_of_all(seed), rank, world) for seed in (0, 1))
    sums = distributed.contrastive_lse(first, second, ring=False)
    grads = torch.autograd.grad(sums.sum(), (first, second), create_graph=True)
    again = torch.autograd.grad(sum(g.square().sum() for g in grads), (first, second))
    return {"twice": [g.tolist() for g in again]}


def doubles(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def alone(name, first, second):
    if name == "lse":
        return excluded(first, second, EXCLUDE)
    return getattr(tilewright, name)(first, second, *CASES[name])


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_equal_one_process(world, tmp_path):
    found = run_ranks(__file__, world, tmp_path)
    cases = set(found[0]) - {"refusals", "twice", "group", "autocast", "mixed", "labels", "far"}
    assert len(cases) == 3 * 2 * (len(CASES) + 1)
    for case in cases:
        name, _, dtype = case.split()
        dtype = getattr(torch, dtype.removeprefix("torch."))
        first, second = (rows_of_all(seed, dtype).requires_grad_() for seed in (0, 1))
        loss = alone(name, first, second)
        weights = torch.arange(1.0, ROWS + 1).to(loss) if name == "lse" else torch.ones_like(loss)
        grads = torch.autograd.grad(loss, (first, second), weights)
        limit = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
        losses = doubles([f[case][0] for f in found]).flatten().to(loss)
        ours = losses if name == "lse" else losses.mean()
        torch.testing.assert_close(ours, loss, rtol=limit, atol=limit)
        for i, right in enumerate(grads, 1):
            got = torch.cat([doubles(f[case][i]) for f in found]).to(right)
            torch.testing.assert_close(
                got, right, rtol=limit, atol=limit * right.abs().max().item()
            )
    reasons = [
        "rows must have one shape and dtype on all ranks, got (3, 4)",
        "rows must have one shape and dtype on all ranks, got (3, 4)",
        "ring must be the same on all ranks, got 0, 1",
        "temperature must be the same on all ranks, got 0.1, 0.2",
        "first must have one shape and dtype on all ranks, got (3, 4) torch.float32; "
        "(3, 4) torch.float32 (by autocast torch.bfloat16)",
        "all ranks must make the same call, got nt_xent, clip_loss",
        "the same tensors must get gradients on all ranks, got all but key, all",
        "the same tensors must get gradients on all ranks, got none, rows",
        "first must be a tensor, got NoneType",
        "key must be a tensor, got list",
        "temperature must be positive and finite, got None",
        "second must have first's shape (3, 4), got (2, 4)",
        "needs a row of first on each rank",
        "key must have a row for each query (3)",
        "positive must lie in [0, 3), got 0 to 3",
        "second must have first's dtype (torch.float32), got torch.float64",
        "exclude must lie in [-1, ",
        "temperature must be a number, got a tensor that requires a gradient",
        "scale must be a number, got a tensor that requires a gradient",
        "scale must be finite, got nan",
        "ring must be True or False, got None",
        "normalize must be True or False, got 'yes'",
        "int too large to convert to float",
        "key must be a dense tensor with data, got one of torch.sparse_coo",
        "rows must be a dense tensor with data, got one of the meta device",
        "exclude must be a dense tensor with data, got one of the meta device",
    ]
    everywhere = 8  # of these are told on all ranks
    for rank, told in enumerate(found):
        for i, reason in enumerate(reasons):
            own = reason if i < everywhere or rank == 1 else "what rank 1 was given does not fit"
            assert own in told["refusals"][i]
    rows = torch.cat([rows_of_all(3 + rank, torch.float32) for rank in range(world)])
    with torch.autocast("cpu", torch.bfloat16):
        alone_cast = tilewright.nt_xent(rows, rows, 0.02).item()
        mixed = tilewright.info_nce(rows.half(), rows, temperature=0.02).item()
    means = [sum(f["autocast"][i] for f in found) / world for i in range(2)]
    assert means == pytest.approx([alone_cast] * 2, rel=1e-4)
    assert sum(f["mixed"] for f in found) / world == pytest.approx(mixed, rel=1e-4)
    assert all(f["labels"] == list(range(world)) for f in found)
    check_far_keys(found, world)
    if world == 3:
        in_the_group(found[1:])
    first, second = (rows_of_all(seed).requires_grad_() for seed in (0, 1))
    sums = tilewright.contrastive_lse(first, second)
    grads = torch.autograd.grad(sums.sum(), (first, second), create_graph=True)
    again = torch.autograd.grad(sum(g.square().sum() for g in grads), (first, second))
    for i, right in enumerate(again):
        got = torch.cat([doubles(f["twice"][i]) for f in found])
        torch.testing.assert_close(got, right)


def check_far_keys(found, world):
    """Against the sum of the ranks' losses by its formula, in float64."""
    query = torch.tensor([[1.0, 0.0]] * world, dtype=torch.float64, requires_grad=True)
    key = FAR[:world].double().requires_grad_()
    losses = torch.nn.functional.cross_entropy(query @ key.T, torch.arange(world), reduction="none")
    right = [losses, *torch.autograd.grad(losses.sum(), (query, key))]
    for ring in (0, 1):
        for i, expected in enumerate(right):
            got = doubles([f["far"][ring][i] for f in found]).view_as(expected)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def in_the_group(found):
    first = torch.cat([rows_of_all(0)[:5], rows_of_all(0)[6:12]]).requires_grad_()
    second = rows_of_all(1).requires_grad_()
    sums = tilewright.contrastive_lse(first, second, scale=0.7)
    right = [sums, *torch.autograd.grad(sums.sum(), (first, second))]
    for case in ("group True", "group False"):
        for i, expected in enumerate(right):
            parts = [doubles(f["group"][case][i]) for f in found]
            torch.testing.assert_close(torch.cat(parts), expected)


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


BAD = [
    (
        "nt_xent",
        (torch.ones(3, 2), torch.ones(4, 2)),
        r"second must have first's shape \(3, 2\), got",
    ),
    (
        "nt_xent",
        (torch.ones(3, 2), torch.ones(3, 2), 0.0),
        "temperature must be positive and finite",
    ),
    ("nt_xent", (torch.ones(0, 2), torch.ones(0, 2)), "needs a row of first on each rank"),
    ("info_nce", (torch.ones(3, 2), torch.ones(3, 2), torch.tensor([0])), "positive must be int64"),
    ("info_nce", (torch.ones(3, 2), torch.ones(2, 2)), r"key must have a row for each query \(3\)"),
    ("info_nce", (torch.ones(1, 2), torch.ones(1, 2)), "and two of key on all, got"),
    ("clip_loss", (torch.ones(3), torch.ones(3)), r"first and second must have shapes \(N, D\)"),
    (
        "gather_rows",
        (torch.ones(3, 2).bool(),),
        "rows must be float64, float32, bfloat16, float16, int64, int32 or uint8, got torch.bool",
    ),
]


@pytest.mark.parametrize("name,given,message", BAD)
def test_bad_input(name, given, message, one_rank):
    with pytest.raises(ValueError, match=f"tilewright::{name}: .*{message}"):
        getattr(distributed, name)(*given)


if __name__ == "__main__":
    torch.distributed.init_process_group(
        "gloo",
        init_method="file://" + os.environ["STORE"],
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    print(json.dumps(on_ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())))
    torch.distributed.barrier()  # a rank that goes first takes its connections away
    torch.distributed.destroy_process_group()
