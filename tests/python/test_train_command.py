"""``python -m tilewright train`` as a user runs it: every stage, Ctrl-C, resuming, other data."""

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

import tilewright
from tilewright.__main__ import main
from tilewright.data import LabelledImages, load_digits_images
from tilewright.train import METHODS, CheckpointError, recipe_of
from tilewright.train.command import ImageTrainer, train_and_judge
from tilewright.train.interruption import CtrlC, tell_stopped

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
    return dataclasses.replace(recipe_of(method), **given | changes)


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
    recipe = short(method, checkpoint_every=2, images=len(train))
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
    state = torch.load(checkpoint, weights_only=True)
    told = f"stopped after step {state['step']} of 1000; {checkpoint} holds the state: the same "
    assert told + "command with --resume goes on" in errors and "Traceback" not in errors
    assert 200 <= state["step"] < 1000 and len(state["losses"]) == state["step"]
    assert not (tmp_path / "report.json").exists()


def test_a_command_that_ctrl_c_ends_at_once(tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint.pt"
    assert tell_stopped(KeyboardInterrupt(), checkpoint) == 130
    assert capsys.readouterr().err == "\nstopped\n"
    checkpoint.touch()
    assert tell_stopped(KeyboardInterrupt(), checkpoint) == 130
    assert capsys.readouterr().err == f"\nstopped; --resume goes on from {checkpoint}\n"


def test_the_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with CtrlC() as ctrl_c:
        assert not ctrl_c.seen
        os.kill(os.getpid(), signal.SIGINT)
        assert ctrl_c.seen
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_trains_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = ["rotation", "--steps", 3, "--batch", 8, "--output", tmp_path / "new" / "run"]
    assert command(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert ", 1 x 8 x 8: 1347 to train, 450 to test" in printed
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


def test_images_of_one_class_are_learnt_from(tmp_path, monkeypatch, capsys):
    folder(tmp_path / "data", {"all": 30})
    arguments = ["dim", "--data", "folder", "--path", tmp_path / "data", "--size", 8]
    arguments += ["--batch", 6, "--steps", 3, "--output", tmp_path / "out"]
    assert command(monkeypatch, *arguments) == 0
    assert "not judged: the training images are of one class" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.pt").exists()


def test_few_images_are_judged_without_a_map(tmp_path, monkeypatch):
    for name in ("a", "b"):
        folder(tmp_path / "data", {name: 2})
    arguments = ["dim", "--data", "folder", "--path", tmp_path / "data", "--size", 8]
    arguments += ["--batch", 2, "--steps", 2, "--output", tmp_path / "out"]
    assert command(monkeypatch, *arguments) == 0
    assert (tmp_path / "out" / "report.json").exists()
    assert not (tmp_path / "out" / "representations.png").exists()
