"""Negatives from all ranks: two and three processes with gloo do what one process with all rows
does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    return found | refusals(rank) | twice(rank, world)


def refusals(rank):
    """What ranks that do not fit are told; each of them."""
    found = []
    for shape, dtype in (
        ((3 + rank, 4), torch.float32),
        ((3, 4), [torch.float32, torch.float64][min(rank, 1)]),
    ):
        try:
            distributed.gather_rows(torch.ones(shape, dtype=dtype))
        except ValueError as error:
            found.append(str(error))
    return {"refusals": found}


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
    environment = os.environ | {
        "WORLD_SIZE": str(world),
        "STORE": str(tmp_path / "store"),
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__],
            env=environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for rank in range(world)
    ]
    found = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world
    cases = set(found[0]) - {"refusals", "twice"}
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
    for told in found:
        assert len(told["refusals"]) == 2
        assert "rows must have one shape and dtype on all ranks, got (3, 4)" in told["refusals"][0]
        assert "(4, 4)" in told["refusals"][0] and "torch.float64" in told["refusals"][1]
    first, second = (rows_of_all(seed).requires_grad_() for seed in (0, 1))
    sums = tilewright.contrastive_lse(first, second)
    grads = torch.autograd.grad(sums.sum(), (first, second), create_graph=True)
    again = torch.autograd.grad(sum(g.square().sum() for g in grads), (first, second))
    for i, right in enumerate(again):
        got = torch.cat([doubles(f["twice"][i]) for f in found])
        torch.testing.assert_close(got, right)


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
    ("info_nce", (torch.ones(3, 2), torch.ones(2, 2)), r"key must have a row for each query \(3\)"),
    ("info_nce", (torch.ones(1, 2), torch.ones(1, 2)), "and two of key on all, got"),
    ("clip_loss", (torch.ones(3), torch.ones(3)), r"first and second must have shapes \(N, D\)"),
    (
        "gather_rows",
        (torch.ones(3, 2).long(),),
        "rows must be float64, float32, bfloat16 or float16",
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
