"""``python -m tilewright train`` as a user runs it: every stage, Ctrl-C and resuming, other data,
and what it refuses."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data_labelled import folder
from test_data_mnist import cifar, mnist
from torch import nn

import tilewright
from tilewright.__main__ import main
from tilewright.data import LabelledImages, load_digits_images
from tilewright.train import METHODS, CheckpointError, recipe_of
from tilewright.train.augment import random_affine
from tilewright.train.command import ImageTrainer, train_and_judge
from tilewright.train.density import DensityRecipe, factorised_bernoulli
from tilewright.train.sources import open_images

pytestmark = pytest.mark.usefixtures("one_thread")
for name in ("tqdm", "matplotlib", "sklearn"):
    pytest.importorskip(name, reason="pip install 'tilewright[train]'")

PICTURES = ("losses.png", "representations.png")


def command(monkeypatch, *arguments):
    """The exit status of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["tilewright", "train", *map(str, arguments)])
    return main()


def short(method, **changes):
    """A recipe that takes a second, and few images for it."""
    given = {"steps": 6, "batch": 8, "warmup": 2, "map_method": "pca", "width": 4}
    known = {field.name for field in dataclasses.fields(recipe_of(method))}
    given = {name: value for name, value in given.items() if name in known}
    return dataclasses.replace(recipe_of(method), **given, **changes)


def some_digits(split, count):
    data = load_digits_images(split)
    return LabelledImages(data.images[:count], data.labels[:count], data.class_names)


@pytest.mark.parametrize("method", METHODS)
def test_every_stage(method, tmp_path, capsys):
    train, test = some_digits("train", 60), some_digits("test", 30)
    recipe = short(method)
    if recipe.binary:
        train, test = train.binarised(), test.binarised()
    report = train_and_judge(recipe, method, train, test, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["method"] == method and report["recipe"]["steps"] == 6
    assert set(report["seconds"]) == {"train", "evaluate", "draw"}
    printed = capsys.readouterr().out
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) >= 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert not list(tmp_path.glob("*.partial"))
    model = torch.jit.load(tmp_path / "model.pt")
    images = recipe.prepare(test.floats())
    if recipe.binary:
        assert "log likelihood of 30 test images" in printed
        found = model.log_prob(images.flatten(1)).mean().item()
        expected = report["result"]["log_likelihood"]["trained"]
        assert found == pytest.approx(expected, rel=1e-5)
    else:
        assert "accuracy on 30 test images" in printed
        assert model.represent(images).shape[0] == 30
        for name in ("trained", "untrained"):
            assert all(0 <= value <= 1 for value in report["result"][name].values())


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_uninterrupted_one(method, tmp_path):
    train = some_digits("train", 40)
    recipe = short(method, checkpoint_every=2)
    if recipe.binary:
        train = train.binarised()
    few = recipe.prepare(train.floats(torch.arange(2)))

    def trainer(name):
        return ImageTrainer(recipe.initial(few), recipe, tmp_path / name, train)

    whole = trainer("whole")
    whole.run()
    trainer("parts").run(until=3)
    parts = trainer("parts")
    torch.manual_seed(99)  # what happened since must not matter
    parts.resume()
    assert parts.step == 3
    parts.run()
    assert parts.losses == whole.losses and len(whole.losses) == 6
    for key, value in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[key], value), key
    other = ImageTrainer(
        recipe.initial(few), dataclasses.replace(recipe, seed=1), tmp_path / "parts", train
    )
    with pytest.raises(CheckpointError, match=r"other settings \(seed was 0, and is 1 now\)"):
        other.resume()


def test_each_round_shows_every_image_once(tmp_path):
    seen = []

    class Watched(ImageTrainer):
        def step_losses(self, step):
            self.data = Rows(self.data)
            losses = super().step_losses(step)
            self.data = self.data.data
            return losses

    class Rows:
        def __init__(self, data):
            self.data = data

        def __len__(self):
            return len(self.data)

        def floats(self, rows):
            seen.append(rows.tolist())
            return self.data.floats(rows)

    train = some_digits("train", 34)
    recipe = short("rotation")
    few = train.floats(torch.arange(2))
    Watched(recipe.initial(few), recipe, tmp_path / "c", train).run()
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    assert len(set(first)) == 32 and len(set(second)) == 16
    assert not np.array_equal(first[:16], second)


def subprocess_command(output, *arguments):
    return {
        "args": [
            *(sys.executable, "-m", "tilewright", "train", "rotation", "--batch", "8"),
            *("--output", str(output), *arguments),
        ],
        "env": {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(tilewright.__file__).parent.parent),
        },
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


def test_ctrl_c_keeps_a_checkpoint_and_resume_goes_on(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    running = subprocess.Popen(**subprocess_command(tmp_path, "--steps", "1000"))
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert "the same command with --resume goes on" in errors and "Traceback" not in errors
    state = torch.load(checkpoint, weights_only=True)
    assert 200 <= state["step"] < 1000 and len(state["losses"]) == state["step"]
    assert not (tmp_path / "report.json").exists()


def test_the_command_trains_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = ["rotation", "--steps", 3, "--batch", 8, "--output", tmp_path / "new" / "run"]
    assert command(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "digits, 1 x 8 x 8: 1347 to train, 450 to test" in printed
    assert "linear probe, 10 labels per class" in printed
    for name in (*PICTURES, "model.pt", "report.json", "checkpoint.pt"):
        assert (tmp_path / "new" / "run" / name).exists()
    assert command(monkeypatch, *arguments, "--resume") == 0
    again = capsys.readouterr().out
    assert "resumed after step 3 of 3" in again
    table = printed[printed.index("accuracy") : printed.index("== draw")]
    assert table in again, "the trained and the untrained model are the same"


def test_epochs_are_rounds(tmp_path, monkeypatch):
    for label, name in enumerate(("a", "b")):
        folder(tmp_path / "data", {name: 12 + label})
    arguments = ["dim", "--data", "folder", "--path", tmp_path / "data", "--size", 8]
    arguments += ["--batch", 6, "--epochs", 2, "--output", tmp_path / "out"]
    assert command(monkeypatch, *arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["recipe"]["steps"] == 2 * (19 // 6)
    assert report["class_names"] == ["a", "b"]
    assert report["recipe"]["data"].endswith("3 x 8 x 8: 19 to train, 6 to test")


def test_other_data(tmp_path, monkeypatch):
    mnist(tmp_path / "mnist", 40, 20)
    rng = np.random.default_rng(0)
    cifar(tmp_path / "cifar" / "data_batch_1.bin", [0, 1] * 10, rng)
    cifar(tmp_path / "cifar" / "test_batch.bin", [0, 1] * 5, rng)
    for method, kind in (("rotation", "cifar"), ("jigsaw", "mnist")):
        data = "cifar10" if kind == "cifar" else kind
        arguments = [method, "--data", data, "--path", tmp_path / kind, "--batch", 4]
        assert command(monkeypatch, *arguments, "--steps", 2, "--output", tmp_path / "o") == 0


def test_binary_images(tmp_path):
    mnist(tmp_path, 12, 5)
    train, test, told = open_images("mnist", tmp_path, 0, True)
    assert set(train.images.unique().tolist()) == {0.0, 1.0}
    assert train.labels.tolist() == [*range(10), 0, 1]
    assert told.endswith("1 x 28 x 28, binary: 12 to train, 5 to test")
    for name, rows in (("train", 4), ("test", 2)):
        lines = "".join(" ".join("01" * 392) + "\n" for _ in range(rows))
        (tmp_path / f"binarized_mnist_{name}.amat").write_text(lines)
    train, test, _ = open_images("mnist", tmp_path, 0, True)
    assert train.images.shape == (4, 1, 28, 28) and len(test) == 2, "the fixed binarisation"
    assert train.images[0].flatten().tolist() == [0.0, 1.0] * 392
    folder(tmp_path / "f", {"a": 8, "b": 4})
    assert open_images("folder", tmp_path / "f", 6, True)[0].images.shape == (9, 1, 6, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["magic"], "argument METHOD: invalid choice: 'magic' (choose from"),
        ([], "the following arguments are required: METHOD"),
        (["dim", "--data", "imagenet"], "argument --data: invalid choice: 'imagenet'"),
        (["dim", "--steps", "-3"], "argument --steps: must be at least 1, got -3"),
        (["dim", "--epochs", "0"], "argument --epochs: must be at least 1, got 0"),
        (["dim", "--steps", "1", "--epochs", "1"], "not allowed with argument"),
        (["dim", "--seed", "x"], "argument --seed: must be a whole number, got 'x'"),
        (["dim", "--data", "mnist"], "--data mnist needs --path, the folder that holds it"),
        (["dim", "--path", "somewhere"], "--path needs --data mnist, cifar10 or folder"),
        (["dim", "--size", "9"], "--size needs --data folder"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err.replace("argument --epochs: not", "not")


def test_failures_are_told_in_a_line(tmp_path, monkeypatch, capsys):
    output = ["--output", tmp_path / "out"]

    def told(*arguments):
        assert command(monkeypatch, *arguments, *output) == 1
        error = capsys.readouterr().err
        assert error.startswith("tilewright train: ") and error.count("\n") == 1
        return error

    nowhere = tmp_path / "nowhere"
    for kind in ("mnist", "cifar10", "folder"):
        error = told("dim", "--data", kind, "--path", nowhere)
        assert f"{nowhere}: there is no such folder" in error
    assert "there is no checkpoint" in told("dim", "--resume")
    assert "--batch must be at most 1347, as there are images, got 2000" in told(
        "dim", "--batch", "2000"
    )
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert "cannot be read" in told("dim", "--resume")


def test_unknown_methods_have_no_recipe():
    with pytest.raises(ValueError, match=r"method must be one of dim, .*, got 'magic'"):
        recipe_of("magic")


class Independent(nn.Module):
    """A generative model as simple as they come: each pixel by itself."""

    def __init__(self, pixels: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(pixels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.log_prob(x)

    @torch.jit.export
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        signed = (2.0 * x - 1.0) * self.logits
        return nn.functional.logsigmoid(signed).sum(dim=1)

    @torch.jit.export
    def sample(self, n: int, given: torch.Tensor | None = None) -> torch.Tensor:
        drawn = (torch.rand(n, len(self.logits)) < torch.sigmoid(self.logits)).float()
        if given is not None:
            drawn[:, : given.size(1)] = given
        return drawn


@dataclasses.dataclass(frozen=True)
class IndependentRecipe(DensityRecipe):
    steps: int = 400
    learning_rate: float = 0.1

    def build(self, images):
        return Independent(images[0].numel())


def test_generative_models_fit_in(tmp_path):
    """The likelihood of independent pixels is known: the trained model must come to it."""
    train, test = (load_digits_images(split, binarised=True) for split in ("train", "test"))
    report = train_and_judge(IndependentRecipe(), "independent", train, test, tmp_path)
    found = report["result"]["log_likelihood"]
    assert found["untrained"] == pytest.approx(64 * np.log(0.5))
    assert found["trained"] == pytest.approx(found["factorised Bernoulli"], abs=0.3)
    assert found["trained"] > found["untrained"] + 5
    for name in ("samples.png", "completions.png", "losses.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    model = torch.jit.load(tmp_path / "model.pt")
    assert model.sample(3, torch.ones(3, 5))[:, :5].min() == 1


def test_factorised_bernoulli():
    train = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    shares = torch.tensor([3 / 5, 1 / 5])
    expected = torch.distributions.Bernoulli(shares).log_prob(train).sum(1).mean()
    assert factorised_bernoulli(train, train) == pytest.approx(expected.item())


def test_random_affine():
    images = torch.rand(5, 2, 9, 9)
    nothing = random_affine(images, 0, 0, 0, 0)
    torch.testing.assert_close(nothing, images)
    torch.manual_seed(3)
    once = random_affine(images)
    torch.manual_seed(3)
    assert torch.equal(random_affine(images), once)
    assert once.shape == images.shape and not torch.allclose(once[0], images[0], atol=0.05)
    # A disc stays where it is however it is turned, and moves by no more than the shift.
    place = torch.linspace(-1, 1, 33)
    disc = ((place[:, None] ** 2 + place**2) < 0.3).float().expand(40, 1, 33, 33)
    turned = random_affine(disc, 180, 0, 0, 0)
    assert (turned - disc).abs().mean() < 0.02
    moved = random_affine(disc, 0, 0, 0, 0.1)
    centre = (moved * place).sum((1, 2, 3)) / moved.sum((1, 2, 3))
    assert 0.1 < centre.abs().max() < 0.21 and centre.min() < 0 < centre.max()
