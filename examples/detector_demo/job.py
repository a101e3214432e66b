"""The stages of the demo in order, its command line and its exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

import tilewright
from tilewright.data import DataError, ImageError
from tilewright.models import FasterRCNNCpp
from tilewright.train.arguments import positive, seed
from tilewright.train.checkpoint import keep_earlier, make_folder
from tilewright.train.interruption import tell_stopped
from tilewright.train.pictures import draw_losses
from tilewright.train.stages import stage

from . import evaluation, export, pictures
from .own_data import own_data_recipe
from .recipe import FULL, SMOKE, Recipe
from .training import CheckpointError, Interrupted, Trainer

_COMPARED = 4  # held-out images that the C++ program is given
_TOLD = (CheckpointError, DataError, ImageError, export.ExportError, FloatingPointError, OSError)
_FILES = ("detector.pt", "report.json", "detections.png", "losses.png")
_FOLDERS = ("cpp_detector", "scenes")
_SHOWN = 8  # of its detections in the first scene, the best are printed


def main() -> int:
    """Runs the job; returns the exit status: 1 for a failure, 130 after Ctrl-C."""
    arguments = _arguments()
    output: Path = arguments.output
    checkpoint = output / "checkpoint.pt"
    try:
        recipe = _recipe(arguments)
        make_folder(output, "checkpoint.pt", *_FILES, folders=_FOLDERS)
        torch.manual_seed(recipe.seed)
        trainer = Trainer(FasterRCNNCpp(**recipe.model), recipe, checkpoint)
        if arguments.resume:
            trainer.resume()
            print(f"resumed after step {trainer.step} of {recipe.steps}")
        else:
            keep_earlier(checkpoint)
        seconds: dict[str, float] = {}
        with stage("train", seconds):
            trainer.run()
        seconds["train"] = trainer.seconds  # with the earlier runs of a resumed training
        report = _finish(trainer, recipe, output, seconds)
    except (Interrupted, KeyboardInterrupt) as stop:
        return tell_stopped(stop, checkpoint)
    except _TOLD as error:
        print(f"train_detector: {error}", file=sys.stderr)
        return 1
    map50 = report["result"]["map50"]
    if map50 < recipe.required_map50 and arguments.steps is None:
        print(
            f"train_detector: mAP@.5 is {map50:.3f}, below {recipe.required_map50}", file=sys.stderr
        )
        return 1
    return 0


def _finish(
    trainer: Trainer, recipe: Recipe, output: Path, seconds: dict[str, float]
) -> dict[str, Any]:
    """Everything after the training; returns the report, which is also written as JSON."""
    scenes = recipe.held_out_scenes()
    # A fresh module has its weights in the usual layout, as the exported one: sums are added in
    # the same order, so that the two can be compared closely.
    model = FasterRCNNCpp(**recipe.model)
    model.load_state_dict(trainer.model.state_dict())
    with stage("evaluate", seconds):
        detections, targets = evaluation.detect(model, scenes)
        result = evaluation.evaluate(detections, targets, recipe.class_names)
    print(f"{result.images} held-out images:\n{result.table()}")
    with stage("export", seconds):  # first: whatever follows, the detector is there
        export.export_torchscript(model, recipe, output / "detector.pt")
    with stage("draw", seconds):
        pictures.draw_detections(output / "detections.png", scenes, detections, recipe.class_names)
        draw_losses(output / "losses.png", trainer.losses)
    with stage("build examples/cpp_detector", seconds):
        program = export.build_program(output / "cpp_detector")
    with stage("compare with the C++ program", seconds):
        same = _compare(model, program, recipe, output)
    print(f"the C++ program found the same {same} detections")
    report = {
        "recipe": recipe.as_dict(),
        "result": dataclasses.asdict(result),
        "seconds": seconds,
        "class_names": recipe.class_names,
        "images_seen": trainer.step * recipe.batch,
        "tilewright": tilewright.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{sum(seconds.values()):.0f} s in all; everything is in {output}/")
    return report


@torch.no_grad()
def _compare(model: Any, program: Path, recipe: Recipe, output: Path) -> int:
    """Has the C++ program and the C++ module look at the same files; returns the detections."""
    scenes = recipe.held_out_scenes()
    folder = output / "scenes"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.ppm" for i in range(min(_COMPARED, len(scenes)))]
    model.eval()
    ours = [model([export.write_ppm(file, scenes[i][0])])[1][0] for i, file in enumerate(files)]
    theirs = export.run_program(program, output / "detector.pt", files)
    same = export.compare(ours, theirs)
    best = zip(*(theirs[0][key][:_SHOWN] for key in ("labels", "scores", "boxes")), strict=True)
    for label, score, box in best:
        place = " ".join(f"{side:6.1f}" for side in box.tolist())
        print(f"  {files[0].name}: {recipe.class_names[int(label)]} {score:.3f} [{place}]")
    return same


def _recipe(arguments: argparse.Namespace) -> Recipe:
    if arguments.data is not None:
        return own_data_recipe(
            arguments.data,
            steps=arguments.steps,
            seed=arguments.seed,
            min_size=arguments.min_size,
            mirror=arguments.mirror,
            smoke=arguments.smoke,
        )
    recipe = SMOKE if arguments.smoke else FULL
    chosen = {"steps": arguments.steps, "seed": arguments.seed}
    return dataclasses.replace(
        recipe, **{name: value for name, value in chosen.items() if value is not None}
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Trains, evaluates and exports a detector, of digits or of what your images "
        "show, and runs it from C++."
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="a folder of COCO or Pascal VOC data (docs/data.md), or a JSON file",
    )
    parser.add_argument(
        "--min-size",
        type=positive,
        help="shorter side in pixels that the images of --data are resized to",
    )
    parser.add_argument(
        "--mirror", action="store_true", help="train on mirror images of those of --data too"
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to write")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint there")
    parser.add_argument("--smoke", action="store_true", help="every stage, but hardly any training")
    parser.add_argument("--steps", type=positive, help="optimizer steps in place of the recipe's")
    parser.add_argument("--seed", type=seed, help="of the weights and the training scenes")
    arguments = parser.parse_args()
    for name, given in (("--min-size", arguments.min_size), ("--mirror", arguments.mirror)):
        if given and arguments.data is None:
            parser.error(f"{name} needs --data: the digits' scenes have a size and a side")
    return arguments
