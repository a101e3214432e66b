"""From the trained C++ module to a TorchScript file, and to a C++ program that runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tilewright
from tilewright.models import FasterRCNN

from .recipe import Recipe
from .training import write_whole

_PROGRAM = "cpp_detector"
_SOURCE = Path(__file__).resolve().parent.parent / _PROGRAM
_BOX_TOLERANCE = 1e-3  # pixels
_SCORE_TOLERANCE = 1e-5


class ExportError(RuntimeError):
    """A tool that is missing or failed, or a program that detects something else."""


def export_torchscript(model: Any, recipe: Recipe, path: Path) -> None:
    """Moves the weights of `model` into the scriptable twin and writes its TorchScript."""
    twin = FasterRCNN(**recipe.model)
    twin.load_state_dict(model.state_dict())
    scripted = torch.jit.script(twin.eval())
    write_whole(path, lambda temporary: scripted.save(str(temporary)))


def build_program(build: Path) -> Path:
    """Builds examples/cpp_detector against the installed package; returns the program."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=search)
    if cmake is None:
        raise ExportError(f"cmake, which builds {_SOURCE}, is not installed: `pip install cmake`")
    prefix = f"-DCMAKE_PREFIX_PATH={tilewright.cmake_prefix_path}"
    _run([cmake, "-S", str(_SOURCE), "-B", str(build), prefix])
    _run([cmake, "--build", str(build), "--config", "Release"])
    return build / _PROGRAM


def write_ppm(path: Path, image: Tensor) -> Tensor:
    """Writes `image` (3, H, W) in [0, 1] with 8 bits per channel.

    Returns:
        (3, H, W) float32, the image that a reader of the file gets.
    """
    pixels = (image * 255.0).round().clamp(0, 255).to(torch.uint8)
    height, width = image.shape[1:]
    header = f"P6\n{width} {height}\n255\n".encode()
    path.write_bytes(header + pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
    return pixels.to(torch.float32) / 255.0


def run_program(program: Path, model: Path, images: Sequence[Path]) -> list[dict[str, Tensor]]:
    """Runs the C++ program and reads what it prints: detections of each image."""
    output = _run([str(program), str(model), *map(str, images)])
    rows: list[list[list[float]]] = []
    for line in output.splitlines():
        if line.startswith("#"):
            rows.append([])
        else:
            rows[-1].append([float(word) for word in line.split()])
    tables = [torch.tensor(image, dtype=torch.float64).reshape(-1, 6) for image in rows]
    return [
        {"labels": table[:, 0].long(), "scores": table[:, 1], "boxes": table[:, 2:]}
        for table in tables
    ]


def compare(ours: Sequence[dict[str, Tensor]], theirs: Sequence[dict[str, Tensor]]) -> int:
    """Checks that two sets of detections are the same; returns how many they are.

    Args:
        ours: for each image boxes (D, 4), labels (D,) and scores (D,), the expected ones.
        theirs: the same from the other side; detections of near-equal scores may change places.

    Raises:
        ExportError: naming the image and the detection, unless each has a partner of the same
            label within 1e-3 pixels and a score within 1e-5.
    """
    if len(ours) != len(theirs):
        raise ExportError(f"detections of {len(ours)} images expected, got {len(theirs)}")
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if len(a["labels"]) != len(b["labels"]):
            raise ExportError(
                f"image {i}: {len(a['labels'])} detections expected, got {len(b['labels'])}"
            )
        boxes = (a["boxes"].double()[:, None] - b["boxes"].double()).abs()  # (D, D, 4)
        scores = (a["scores"].double()[:, None] - b["scores"].double()).abs()  # (D, D)
        same = (a["labels"][:, None] == b["labels"]) & (scores <= _SCORE_TOLERANCE)
        same &= (boxes <= _BOX_TOLERANCE).all(dim=2)
        for row, column in ((same, a), (same.T, b)):
            lost = (~row.any(dim=1)).nonzero().flatten().tolist()
            if lost:
                one = {name: column[name][lost[0]].tolist() for name in column}
                raise ExportError(f"image {i}: {len(lost)} detections have no partner, as {one}")
    return sum(len(a["labels"]) for a in ours)


def _run(command: list[str]) -> str:
    """Runs a command to its end and returns what it printed; ExportError with all of it else."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError(
            f"`{' '.join(command)}` failed with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout
