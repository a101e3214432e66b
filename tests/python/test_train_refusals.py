"""What ``python -m tilewright train`` refuses, and how it says so: arguments, folders, checkpoints
of other runs, images that a method cannot learn from."""

import dataclasses
import shutil
import sys

import pytest
import torch
from test_data_labelled import folder
from test_train_command import command, short, some_digits

from tilewright.data import DataError, LabelledImages
from tilewright.train import recipe_of
from tilewright.train.checkpoint import CheckpointError, load_checkpoint, write_whole
from tilewright.train.command import train_and_judge

pytestmark = pytest.mark.usefixtures("one_thread")


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
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    checkpoint.write_bytes(b"no checkpoint")
    assert "cannot be read" in told("dim", "--resume")
    output = ["--output", checkpoint]
    assert f"the output must be a folder, got {checkpoint}, and {checkpoint} is a file" in told(
        "dim"
    )
    output = ["--output", checkpoint / "a" / "b"]
    assert f"the output must be a folder, got {output[1]}, and {checkpoint} is a file" in told(
        "dim"
    )
    output = ["--output", tmp_path / "other"]
    for name in ("checkpoint.pt", "report.json", "representations.png"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for more in ((), ("--resume",)):
            assert f"other/{name} must be a file, and is a folder" in told("dim", *more)
        (tmp_path / "other" / name).rmdir()


def test_pictures_of_densities_are_looked_for_before(tmp_path, monkeypatch, capsys):
    (tmp_path / "completions.png").mkdir()
    assert command(monkeypatch, "made", "--output", tmp_path) == 1
    assert "completions.png must be a file, and is a folder" in capsys.readouterr().err


def test_an_output_that_leads_nowhere_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert command(monkeypatch, "made", "--output", tmp_path / "link") == 1
    assert f"{tmp_path / 'link'} is a link that leads nowhere" in capsys.readouterr().err


def test_a_missing_package_is_told_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command(monkeypatch, "dim", "--output", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "matplotlib cannot be imported" in error
    assert "run `pip install matplotlib pillow scikit-learn tqdm`" in error
    assert not (tmp_path / "out").exists()


def test_unknown_methods_have_no_recipe():
    with pytest.raises(ValueError, match=r"method must be one of simclr, .*, got 'magic'"):
        recipe_of("magic")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simclr", "--batch", 1], "nt_xent: first must have at least two rows"),
        (["dim", "--batch", 1], "local_global_infomax: whole must have at least two rows"),
    ],
)
def test_what_a_method_cannot_learn_from_is_told_before(
    arguments, message, tmp_path, monkeypatch, capsys
):
    assert command(monkeypatch, *arguments, "--output", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert told.startswith("tilewright train: ") and message in told
    assert not (tmp_path / "out").exists()


def test_another_methods_checkpoint_is_named(tmp_path, monkeypatch, capsys):
    arguments = ["--steps", 2, "--batch", 8, "--output", tmp_path / "out"]
    assert command(monkeypatch, "dim", *arguments) == 0
    assert command(monkeypatch, "rotation", *arguments, "--resume") == 1
    assert "was trained by dim: choose another folder" in capsys.readouterr().err


def test_images_are_the_same_wherever_they_lie(tmp_path, monkeypatch, capsys):
    folder(tmp_path / "data", {"a": 12, "b": 12})
    folder(tmp_path / "other", {"b": 12, "a": 12})  # as many, of each other's colours
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    arguments = ["dim", "--data", "folder", "--size", 8, "--batch", 6, "--steps", 2]
    arguments += ["--output", tmp_path / "out", "--path"]
    assert command(monkeypatch, *arguments, tmp_path / "data") == 0
    for same in ("data", "moved", "moved/../data/", "link"):
        assert command(monkeypatch, *arguments, same, "--resume") == 0
        assert "resumed after step 2 of 2" in capsys.readouterr().out
    assert command(monkeypatch, *arguments, "other", "--resume") == 1
    assert "trained with other settings (data was" in capsys.readouterr().err


def test_what_a_program_gives_wrongly(tmp_path):
    train, test = some_digits("train", 20), some_digits("test", 10)
    for given, message in (
        ((None, test), "train must be LabelledImages, got NoneType"),
        ((train, test.images), "test must be LabelledImages, got Tensor"),
    ):
        with pytest.raises(DataError, match=message):
            train_and_judge(short("dim"), "dim", *given, tmp_path)
    with pytest.raises(DataError, match="batches of 64 need as many training images"):
        train_and_judge(recipe_of("dim"), "dim", train, test, tmp_path)
    other = LabelledImages(torch.rand(5, 1, 9, 9), torch.zeros(5).long(), ("0",))
    with pytest.raises(DataError, match=r"must be of one size, got \(1, 8, 8\) and \(1, 9, 9\)"):
        train_and_judge(short("dim"), "dim", train, other, tmp_path)
    for steps in (0, 2.5, True):
        with pytest.raises(DataError, match=f"steps must be a positive integer, got {steps}"):
            train_and_judge(short("dim", steps=steps), "dim", train, test, tmp_path)
    named = dataclasses.replace(test, class_names=tuple("abcdefghij"))
    with pytest.raises(DataError, match=r"must be of the same classes, got \('0', .*'j'\)"):
        train_and_judge(short("dim"), "dim", train, named, tmp_path)


def test_a_program_that_resumes_with_other_images(tmp_path):
    train, test = some_digits("train", 20), some_digits("test", 10)
    recipe = short("dim")
    train_and_judge(recipe, "dim", train, test, tmp_path)
    train_and_judge(recipe, "dim", train, test, tmp_path, resume=True)
    others = dataclasses.replace(train, images=1 - train.images)
    with pytest.raises(CheckpointError, match="data was 'images of checksum "):
        train_and_judge(recipe, "dim", others, test, tmp_path, resume=True)


def test_a_run_that_forgot_to_resume_keeps_the_earlier_checkpoint(tmp_path, capsys):
    train, test = some_digits("train", 20), some_digits("test", 10)
    train_and_judge(short("dim"), "dim", train, test, tmp_path)
    first = (tmp_path / "checkpoint.pt").read_bytes()
    train_and_judge(short("dim", seed=1), "dim", train, test, tmp_path)
    assert (tmp_path / "earlier_checkpoint.pt").read_bytes() == first
    assert "checkpoint.pt of an earlier run is earlier_checkpoint.pt now" in capsys.readouterr().out
    (tmp_path / "earlier_checkpoint.pt").replace(tmp_path / "checkpoint.pt")
    train_and_judge(short("dim"), "dim", train, test, tmp_path, resume=True)
    assert "resumed after step 6 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("pos 8")])
def test_what_cannot_be_written_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"before")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(
        OSError, match=r"checkpoint\.pt cannot be written \(.*: is there space left"
    ):
        write_whole(path, fail)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_checkpoints_of_another_version(tmp_path):
    torch.save({"format": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="was written by another version of tilewright"):
        load_checkpoint(tmp_path / "checkpoint.pt", 2)
