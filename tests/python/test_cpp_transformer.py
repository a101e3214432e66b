"""The example of a language model trained without Python: its loss falls, and the same weights give
the same scores in Python."""

import importlib.util
import re

import pytest
import torch
from processes import ROOT, example_program, run_program

PROGRAM = example_program("cpp_transformer")
EXAMPLE = ROOT / "examples" / "cpp_transformer"
pytestmark = pytest.mark.skipif(
    not PROGRAM.exists() or not EXAMPLE.is_dir(), reason="the C++ tests are not built"
)


def run(*arguments):
    return run_program(PROGRAM, *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    weights = tmp_path_factory.mktemp("transformer") / "weights.pt"
    done = run("train", weights, 20, *sorted((ROOT / "docs").glob("*.md")))
    assert done.returncode == 0, done.stderr
    return weights, done.stdout


def test_the_loss_falls(trained):
    _, printed = trained
    losses = [float(x) for x in re.findall(r"loss ([0-9.]+)", printed)]
    before, steps, after = losses[0], losses[1:-1], losses[-1]
    assert len(steps) == 10 and 5 < before < 6.5
    assert steps[-1] < steps[0] - 1
    assert after < before - 1.5


def test_python_gives_the_same_scores(trained):
    weights, _ = trained
    spec = importlib.util.spec_from_file_location("sample", EXAMPLE / "sample.py")
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    text = "Attention that never stores the matrix"
    printed = run("logits", weights, text)
    assert printed.returncode == 0, printed.stderr
    scores = torch.tensor([float(line) for line in printed.stdout.split()])
    model = sample.load(str(weights))
    with torch.no_grad():
        expected = model(torch.tensor([list(text.encode())]))[0, -1]
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    written = sample.sample(model, "The ", 20)
    assert written.startswith("The ") and len(written.encode()) >= 24


def test_what_it_says_when_something_is_wrong(tmp_path):
    assert run().returncode == 2
    (tmp_path / "short.md").write_text("short")
    for arguments, message in (
        (("train", tmp_path / "w.pt", 1, tmp_path / "none.md"), "none.md: cannot be opened"),
        (("train", tmp_path / "w.pt", 1, tmp_path / "short.md"), "the text has 5 bytes, of 2560"),
        (("logits", tmp_path / "none.pt", "text"), "none.pt"),
    ):
        done = run(*arguments)
        assert done.returncode == 1 and message in done.stderr, done.stderr
