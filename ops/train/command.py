"""``python -m tilewright train``: its arguments, its stages and its exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import tilewright
from tilewright.data import DataError, ImageError, LabelledImages

from .arguments import positive, seed
from .checkpoint import CheckpointError, keep_earlier, make_folder, write_whole
from .interruption import Interrupted, tell_stopped
from .methods import METHODS, recipe_of
from .optional import required
from .pictures import draw_losses
from .recipe import Recipe
from .sources import KINDS, checksum, open_images
from .stages import stage
from .trainer import Trainer, round_generator

_TOLD = (CheckpointError, DataError, ImageError, FloatingPointError, ImportError, OSError)
_PACKAGES = ("sklearn", "matplotlib", "tqdm")
_LOOKED_AT = 2  # images that a model is built for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes to a parser."""
    width = max(map(len, METHODS))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Trains a model without labels, judges it with them, and writes a checkpoint, the model as "
        "TorchScript, pictures\nand a report.\n\nmethods:\n"
    ) + "\n".join(f"  {name:{width}}  {text}" for name, text in METHODS.items())
    parser.add_argument("method", metavar="METHOD", choices=METHODS, help="one of the above")
    parser.add_argument("--data", choices=KINDS, default="digits", help="which images (digits)")
    parser.add_argument("--path", type=Path, help="folder that holds them, but for the digits")
    parser.add_argument(
        "--size", type=positive, help="side that images of --data folder are scaled to (32)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, help="optimizer steps in place of the recipe's")
    length.add_argument("--epochs", type=positive, help="the same in rounds through the images")
    parser.add_argument("--batch", type=positive, help="images per step in place of the recipe's")
    parser.add_argument("--seed", type=seed, default=0, help="of weights, order, augmentation (0)")
    parser.add_argument("--output", type=Path, help="folder to write (train_output/METHOD)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint there")


def run(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Runs the command; returns the exit status: 1 for a failure, 130 after Ctrl-C."""
    if arguments.data == "digits" and arguments.path:
        parser.error("--path needs --data mnist, cifar10 or folder: the digits have none")
    if arguments.data != "digits" and not arguments.path:
        parser.error(f"--data {arguments.data} needs --path, the folder that holds it")
    if arguments.size and arguments.data != "folder":
        parser.error("--size needs --data folder: other images have a size")
    output: Path = arguments.output or Path("train_output") / arguments.method
    try:
        for package in _PACKAGES:  # now, not when the training is done
            required(package, "a training needs scikit-learn, matplotlib and tqdm")
        recipe = recipe_of(arguments.method)
        train, test, told = open_images(
            arguments.data, arguments.path, arguments.size or 32, recipe.binary
        )
        recipe = _chosen(recipe, arguments, len(train), told)
        print(told)
        report = train_and_judge(recipe, arguments.method, train, test, output, arguments.resume)
        print(f"{sum(report['seconds'].values()):.0f} s in all; everything is in {output}/")
    except (Interrupted, KeyboardInterrupt) as stop:
        return tell_stopped(stop, output / "checkpoint.pt")
    except _TOLD as error:
        print(f"tilewright train: {error}", file=sys.stderr)
        return 1
    return 0


class ImageTrainer(Trainer):
    """Trains a recipe's model on images, as many as the recipe says, round after round, each in an
    order of its own; what is left over by the last batch of a round waits for the next."""

    def __init__(self, model: nn.Module, recipe: Recipe, checkpoint: Path, data: LabelledImages):
        super().__init__(model, recipe, checkpoint)
        self.data = data

    def step_losses(self, step: int) -> dict[str, Tensor]:
        turn, place = divmod(step, len(self.data) // self.recipe.batch)
        order = round_generator(self.recipe.seed, turn).permutation(len(self.data))
        rows = torch.from_numpy(order[place * self.recipe.batch :][: self.recipe.batch])
        images = self.recipe.prepare(self.data.floats(rows))
        return self.recipe.losses(self.model, images)


def train_and_judge(
    recipe: Recipe,
    method: str,
    train: LabelledImages,
    test: LabelledImages,
    output: Path,
    resume: bool = False,
) -> dict:
    """Every stage of a run; returns the report, which is also written as JSON.

    Args:
        recipe: what to do, its `batch` not above the number of training images.
        method: its name, for the report.
        train, test: images of one size.
        output: a folder, made where there is none.
        resume: whether to go on from the checkpoint there.

    Raises:
        CheckpointError, Interrupted, FloatingPointError: as `Trainer` does.
        DataError: where the method cannot learn from images or batches like these.
        NotADirectoryError: where the output is a file.
    """
    output = Path(output)
    for name, data in (("train", train), ("test", test)):
        if not isinstance(data, LabelledImages):
            raise DataError(f"{name} must be LabelledImages, got {type(data).__name__}")
    for name, number in (("steps", recipe.steps), ("batch", recipe.batch)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise DataError(f"{name} must be a positive integer, got {number!r}")
    if recipe.batch > len(train) or len(test) == 0:
        raise DataError(
            f"batches of {recipe.batch} need as many training images, and judging needs some test "
            f"images, got {len(train)} and {len(test)}"
        )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            "training and test images must be of one size, got "
            f"{tuple(train.images.shape[1:])} and {tuple(test.images.shape[1:])}"
        )
    if tuple(train.class_names) != tuple(test.class_names):
        raise DataError(
            "training and test images must be of the same classes, got "
            f"{train.class_names} and {test.class_names}"
        )
    few = recipe.prepare(train.floats(torch.arange(min(_LOOKED_AT, len(train)))))
    data = recipe.data or f"images of checksum {checksum(train):08x}"
    recipe = dataclasses.replace(recipe, images=len(train), data=data)
    _rehearse(recipe, few, train)
    make_folder(output, "checkpoint.pt", "model.pt", "report.json", "losses.png", *recipe.pictures)
    trainer = ImageTrainer(recipe.initial(few), recipe, output / "checkpoint.pt", train)
    if resume:
        trainer.resume()
        print(f"resumed after step {trainer.step} of {recipe.steps}")
    else:
        keep_earlier(trainer.checkpoint)
    seconds: dict[str, float] = {}
    with stage("train", seconds):
        trainer.run()
    seconds["train"] = trainer.seconds  # with the earlier runs of a resumed training
    model, untrained = trainer.model, recipe.initial(few)
    for one in (model, untrained):
        recipe.settle(one, train)
    recipe.export(output / "model.pt", model)  # first: whatever follows, the model is there
    with stage("evaluate", seconds):
        result = recipe.evaluate(model, untrained, train, test)
    print(result.table())
    report = {
        "method": method,
        "recipe": recipe.as_dict(),
        "result": result.values,
        "seconds": seconds,
        "class_names": train.class_names,
        "tilewright": tilewright.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    _write_report(output, report)  # before pictures: whatever becomes of them
    with stage("draw", seconds):
        recipe.draw(output, model, untrained, test)
        draw_losses(output / "losses.png", trainer.losses)
    _write_report(output, report)
    return report


def _write_report(output: Path, report: dict) -> None:
    text = json.dumps(report, indent=2) + "\n"
    write_whole(output / "report.json", lambda path: path.write_text(text))


def _rehearse(recipe: Recipe, few: Tensor, train: LabelledImages) -> None:
    """One loss of a model that is thrown away: what cannot be trained is told before training."""
    try:
        batch = recipe.prepare(train.floats(torch.arange(recipe.batch)))
        recipe.losses(recipe.initial(few), batch)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot train on batches of {recipe.batch}: {reason}") from error


def _chosen(recipe: Recipe, arguments: argparse.Namespace, images: int, told: str) -> Recipe:
    """The recipe with what the command line says in its place."""
    batch = arguments.batch or min(recipe.batch, images)
    if batch > images:
        raise DataError(f"--batch must be at most {images}, as there are images, got {batch}")
    steps = arguments.steps or recipe.steps
    if arguments.epochs:
        steps = arguments.epochs * (images // batch)
    return dataclasses.replace(recipe, batch=batch, steps=steps, seed=arguments.seed, data=told)
