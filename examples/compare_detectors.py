"""Plain and deformable detectors on scenes of turned and sheared digits: mAP over three seeds, and
where a deformable layer samples.

    python examples/compare_detectors.py [--output FOLDER] [--seeds 3] [--parts] [--only TEXT]
        [--smoke]

Each detector is trained for about as long as the demo's. What is done is kept: the same command
goes on where it was stopped.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when torch is loaded; see train_detector.py

import torch
from detector_demo import evaluation, sampling
from detector_demo.recipe import FULL, SMOKE
from detector_demo.training import Trainer

from tilewright.models import FasterRCNN, FasterRCNNCpp, RFCNCpp

WARP = {"rotation": 45.0, "shear": 0.4}
_PYRAMID = dict(FULL.model)
# One map of stride 8, of the third stage. Its scores have maps of 3 x 3 bins.
_SINGLE = {name: value for name, value in _PYRAMID.items() if "fpn" not in name} | {
    "feature_level": 3,
    "anchor_sizes": [[11, 18, 26, 38, 54, 76]],
    "head_channels": 256,
    "pooled_size": 3,
}
del _SINGLE["representation_size"]
_STAGES = {"deformable_stages": 2}
_POOLING = {"deformable_pooling": True}
_SENSITIVE = {"pooling": "deform_ps_roi_pool"}
# R-FCN's steps are quicker, and its scores, means of votes, are slower to learn.
_RECIPES = {
    FasterRCNNCpp: {},
    RFCNCpp: {"steps": 1600, "learning_rate": 2e-3, "warmup": 200},
}
DETECTORS = {
    "Faster R-CNN": (FasterRCNNCpp, _PYRAMID),
    "Faster R-CNN, deformable": (FasterRCNNCpp, _PYRAMID | _STAGES | _POOLING),
    "R-FCN": (RFCNCpp, _SINGLE),
    "R-FCN, deformable": (RFCNCpp, _SINGLE | _STAGES | _SENSITIVE),
}
PARTS = {
    "Faster R-CNN, deformable stages": (FasterRCNNCpp, _PYRAMID | _STAGES),
    "Faster R-CNN, deformable pooling": (FasterRCNNCpp, _PYRAMID | _POOLING),
    "R-FCN, deformable stages": (RFCNCpp, _SINGLE | _STAGES),
    "R-FCN, deformable pooling": (RFCNCpp, _SINGLE | _SENSITIVE),
}
COLUMNS = ["detector", "mAP@.5", "seeds", "mAP@[.5:.95]", "seeds", "s for training"]


def train(kind, options, seed, folder, smoke):
    """The trained model, its quality on held-out scenes and the seconds that training took."""
    given = SMOKE if smoke else dataclasses.replace(FULL, **_RECIPES[kind])
    recipe = dataclasses.replace(given, model=options, seed=seed, **WARP)
    torch.manual_seed(seed)
    trainer = Trainer(kind(**options), recipe, folder / "checkpoint.pt")
    if trainer.checkpoint.exists():
        trainer.resume()
    trainer.run()
    result = evaluation.evaluate(
        *evaluation.detect(trainer.model, recipe.held_out_scenes()), recipe.class_names
    )
    return trainer.model, result, trainer.seconds


def picture(model, options, path, smoke):
    """Where the last deformable layer samples, of the scriptable twin with the same weights."""
    twin = FasterRCNN(**options)
    twin.load_state_dict(model.state_dict())
    scenes = dataclasses.replace(SMOKE if smoke else FULL, **WARP).held_out_scenes()
    sampling.draw_sampling_places(path, twin.eval(), scenes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("compare_output"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="stages and pooling by themselves too")
    parser.add_argument("--only", metavar="TEXT", default="", help="detectors whose name has this")
    parser.add_argument("--smoke", action="store_true", help="hardly any training")
    given = parser.parse_args()
    lines = []
    detectors = DETECTORS | (PARTS if given.parts else {})
    for name, (kind, options) in detectors.items():
        if given.only not in name:
            continue
        found = []
        for seed in range(given.seeds):
            kept = f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
            folder = given.output / (f"smoke_{kept}" if given.smoke else kept)
            folder.mkdir(parents=True, exist_ok=True)
            report = folder / "report.json"
            if not report.exists():
                print(f"== {name}, seed {seed}", flush=True)
                model, result, seconds = train(kind, options, seed, folder, given.smoke)
                values = {"map50": result.map50, "map5095": result.map5095, "seconds": seconds}
                report.write_text(json.dumps(values) + "\n")
                if kind is FasterRCNNCpp and "deformable_stages" in options:
                    picture(model, options, folder / "sampling.png", given.smoke)
            found.append(json.loads(report.read_text()))
        cells = [name]
        for key in ("map50", "map5095"):
            values = [one[key] for one in found]
            cells.append(f"{statistics.mean(values):.3f}")
            cells.append(", ".join(f"{value:.3f}" for value in values))
        lines.append([*cells, f"{statistics.mean(one['seconds'] for one in found):.0f}"])
        print(*lines[-1], sep=" | ", flush=True)
    if not given.only:
        table = {"columns": COLUMNS, "lines": lines, "threads": torch.get_num_threads()}
        (given.output / "table.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
