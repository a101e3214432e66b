"""The example of SimCLR without Python: its probe gets better, and Python reads its weights."""

import gzip
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import ROOT, example_program, run_program

from tilewright.models import SimCLR

PROGRAM = example_program("simclr_cpp")
EXAMPLE = ROOT / "examples" / "simclr_cpp"
pytestmark = pytest.mark.skipif(
    not PROGRAM.exists() or not EXAMPLE.is_dir(), reason="the C++ tests are not built"
)


def run(*arguments, **streams):
    return run_program(PROGRAM, *arguments, **streams)


def writer():
    spec = importlib.util.spec_from_file_location("digits", EXAMPLE / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return writer().write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def trained(files):
    weights = files[0].parent / "weights.pt"
    done = run("train", weights, 25, *files)
    assert done.returncode == 0, done.stderr
    return weights, done.stdout


def test_the_probe_gets_better(trained):
    _, printed = trained
    losses = [float(x) for x in re.findall(r"loss ([0-9.]+)", printed)]
    assert len(losses) >= 10 and losses[-1] < losses[0] - 1
    accuracy = re.findall(r"accuracy ([0-9.]+) with 10 labels of each class, ([0-9.]+)", printed)
    untrained, after = ([float(x) for x in pair] for pair in accuracy)
    assert after[0] > untrained[0] + 0.03 and after[1] > untrained[1] + 0.005, printed


def test_python_gives_the_same_features(trained, files):
    weights, _ = trained
    few = weights.parent / "few"
    data = np.frombuffer(files[2].read_bytes()[16:], np.uint8).reshape(-1, 8, 8)[:5]
    writer().write_idx(few, data)
    printed = run("features", weights, few)
    assert printed.returncode == 0, printed.stderr
    found = torch.tensor([[float(x) for x in line.split()] for line in printed.stdout.splitlines()])
    model = SimCLR().load(weights).eval()
    with torch.no_grad():
        right = model.represent(torch.tensor(data).unsqueeze(1) / 255)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    full = Path("/dev/full")
    if full.exists():
        with full.open("w") as output:
            failed = run("features", weights, few, stdout=output)
        assert failed.returncode == 1 and "the features cannot be written" in failed.stderr


def test_what_it_says_when_something_is_wrong(tmp_path, files):
    assert run().returncode == 2
    images, labels = files[:2]
    whole = images.read_bytes()
    for name, content in (
        ("short", whole[:-1]),
        ("long", whole + b"x"),
        ("text", b"not an image"),
        ("huge", whole[:4] + b"\xff" * 12 + whole[16:]),
        ("float", whole[:2] + b"\x0d" + whole[3:]),
        ("packed.gz", gzip.compress(whole)),
    ):
        (tmp_path / name).write_bytes(content)
    weights = tmp_path / "w.pt"
    for arguments, message in (
        (("train", weights, 0, *files), "epochs must be a number from 1 on, got 0"),
        (("train", weights, 1, tmp_path / "none", *files[1:]), "none: cannot be opened"),
        (("train", weights, 1, tmp_path, *files[1:]), "cannot be opened"),
        (("train", weights, 1, tmp_path / "short", *files[1:]), "must have 86208 values after"),
        (("train", weights, 1, tmp_path / "long", *files[1:]), "must have 86208 values after its"),
        (("train", weights, 1, tmp_path / "text", *files[1:]), "text: is no IDX file"),
        (("train", weights, 1, tmp_path / "huge", *files[1:]), "shorter than its header says"),
        (("train", weights, 1, tmp_path / "float", *files[1:]), "must hold bytes (type 8) in 3"),
        (("train", weights, 1, labels, *files[1:]), "in 3 dimensions, got type 8 in 1"),
        (("train", weights, 1, tmp_path / "packed.gz", *files[1:]), "is compressed: gunzip it"),
        (("train", weights, 1, images, files[3], *files[2:]), "a label for each of 1347 images"),
        (("train", tmp_path, 1, *files), f"{tmp_path}: cannot be written"),
        (("train", tmp_path / "none" / "w.pt", 1, *files), "w.pt: cannot be written"),
        (("features", tmp_path / "none.pt", images), "none.pt"),
    ):
        done = run(*arguments)
        assert done.returncode == 1 and message in done.stderr, (arguments, done.stderr)
        assert not done.stdout, "nothing was trained before"
    assert not weights.exists()
