"""Ranks that find different things take the same steps: two processes with gloo."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import torch

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


def test_two_ranks(tmp_path):
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": "2",
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
        for rank in range(2)
    ]
    found = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    steps = [[True, 8.0], [False, 4.0], [True, 4.0]]
    assert found[0]["shared"] == found[1]["shared"] == steps * 2
    assert found[1]["alone"] == steps * 2
    assert found[0]["alone"] == [[True, 8.0]] * 6  # without a group each decides for itself


if __name__ == "__main__":
    torch.distributed.init_process_group(
        "gloo",
        init_method="file://" + os.environ["STORE"],
        rank=int(os.environ["RANK"]),
        world_size=2,
    )
    rank = torch.distributed.get_rank()
    print(json.dumps({"shared": train(rank, True), "alone": train(rank, False)}))
    torch.distributed.destroy_process_group()
