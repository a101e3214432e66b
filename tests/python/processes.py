"""Programs and ranks that tests start, as users start them."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def example_program(name):
    """The program of examples/NAME as the build has it."""
    return ROOT / "build" / "cmake" / "tests" / "cpp" / f"tilewright_{name}"


def run_program(program, *arguments, stdout=subprocess.PIPE):
    """Without Python's environment, on one thread: tests share the cores with others."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [program, *map(str, arguments)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def run_ranks(file, world, folder):
    """A test's file as so many ranks, which meet at STORE; what each prints last, as JSON."""
    environment = os.environ | {
        "WORLD_SIZE": str(world),
        "STORE": str(folder / "store"),
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, file],
            env=environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(file).parent,
        )
        for rank in range(world)
    ]
    printed = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world
    return [json.loads(text.splitlines()[-1]) for text in printed]
