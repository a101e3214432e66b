"""Ranks that find different things take the same steps: two processes with gloo."""

import copy
import json
import math
import os

import pytest
import torch
from processes import run_ranks
from torch.distributed.fsdp import fully_shard

from tilewright.amp import LossScaler


def train(rank, shared):
    """Each rank has a shard of its own parameters; rank 1 meets an inf in its second step."""
    torch.manual_seed(rank)
    parameter = torch.nn.Parameter(torch.ones(3))
    kinds = [torch.optim.SGD([parameter], 0.5), torch.optim.AdamW([parameter], 0.5, fused=True)]
    found = []
    for optimizer in kinds:
        group = torch.distributed.group.WORLD if shared else None
        scaler = LossScaler(init_scale=8.0, process_group=group)
        for step in range(3):
            optimizer.zero_grad()
            factor = math.inf if rank == 1 and step == 1 else 1.0
            scaler.scale((parameter * factor).sum()).backward()
            before = parameter.detach().clone()
            scaler.step(optimizer)
            scaler.update()
            found.append([bool((before != parameter).any()), scaler.get_scale()])
    return found


def train_sharded(rank, fused):
    """One model, whose parameters FSDP2 cuts in two; rank 1's part of a gradient is infinite in the
    second step, and clipping goes by the norm of the whole."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    single = copy.deepcopy(model)
    fully_shard(model)
    optimizers = [torch.optim.AdamW(m.parameters(), 0.1, fused=fused) for m in (model, single)]
    scaler, plain = LossScaler(init_scale=8.0), LossScaler(init_scale=8.0)
    found = []
    for step in range(3):
        x = torch.arange(6.0).view(2, 3) + step
        for m, optimizer, one, data in (
            (model, optimizers[0], scaler, x[rank : rank + 1]),
            (single, optimizers[1], plain, x),
        ):
            optimizer.zero_grad()
            one.scale(m(data).square().mean()).backward()
            if step == 1 and (rank == 1 or m is single):
                grad = next(m.parameters()).grad
                getattr(grad, "to_local", lambda whole=grad: whole)()[-1] = math.inf
            norm = one.unscale_and_clip_(optimizer, 0.5)
            one.step(optimizer)
            one.update()
            found.append([norm.item() if step != 1 else 0.0, one.get_scale()])
    same = all(
        torch.allclose(a.full_tensor(), b, rtol=1e-5, atol=1e-6)
        for a, b in zip(model.parameters(), single.parameters(), strict=True)
    )
    return {"sharded": found[0::2], "whole": found[1::2], "same": same}


def test_two_ranks(tmp_path):
    found = run_ranks(__file__, 2, tmp_path)
    steps = [[True, 8.0], [False, 4.0], [True, 4.0]]
    assert found[0]["shared"] == found[1]["shared"] == steps * 2
    assert found[1]["alone"] == steps * 2
    assert found[0]["alone"] == [[True, 8.0]] * 6  # without a group each decides for itself
    for kind in ("plain", "fused"):
        assert found[0][kind] == found[1][kind]
        assert found[0][kind]["same"]
        assert [scale for _, scale in found[0][kind]["sharded"]] == [8.0, 4.0, 4.0]
        norms, expected = ([norm for norm, _ in found[0][kind][of]] for of in ("sharded", "whole"))
        assert norms == pytest.approx(expected, rel=1e-5)


if __name__ == "__main__":
    torch.distributed.init_process_group(
        "gloo",
        init_method="file://" + os.environ["STORE"],
        rank=int(os.environ["RANK"]),
        world_size=2,
    )
    rank = torch.distributed.get_rank()
    results = {"shared": train(rank, True), "alone": train(rank, False)}
    results |= {"plain": train_sharded(rank, False), "fused": train_sharded(rank, True)}
    print(json.dumps(results))
    torch.distributed.barrier()  # a rank that goes first takes its connections away
    torch.distributed.destroy_process_group()
