"""What learning without labels is worth on 8x8 digits, over three seeds: representations trained
and untrained by linear probes and neighbours, log likelihoods of generative models.

    python benchmarks/pretraining.py [--output FOLDER] [--seeds 3] [--only METHOD ...] [--steps N]

What is done is kept in the folder: the same command goes on where it was stopped.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when torch is loaded; see train_detector.py

import harness
import torch

from tilewright.data import load_digits_images
from tilewright.train import METHODS, knn_accuracy, linear_probe, recipe_of
from tilewright.train.command import train_and_judge

MEASURES = {
    "few": "probe, {few} labels per class",
    "all": "probe, {labels} labels",
    "neighbours": "{neighbours} nearest neighbours",
}


def trained(method, seed, folder, steps):
    """The report of one run, made now or before."""
    report = folder / "report.json"
    if not report.exists():
        print(f"== {method}, seed {seed}", flush=True)
        recipe = dataclasses.replace(recipe_of(method), seed=seed, data="8x8 digits")
        if steps:
            recipe = dataclasses.replace(recipe, steps=steps)
        folder.mkdir(parents=True, exist_ok=True)
        data = [load_digits_images(split, recipe.binary) for split in ("train", "test")]
        resume = (folder / "checkpoint.pt").exists()
        train_and_judge(recipe, method, *data, folder, resume)
    return json.loads(report.read_text())


def mean_of(values, digits):
    """The mean, and what it is of."""
    return f"{statistics.mean(values):.{digits}f} ({', '.join(f'{v:.{digits}f}' for v in values)})"


def seconds(reports):
    return f"{statistics.mean(sum(one['seconds'].values()) for one in reports):.0f}"


def representations(reports):
    """Columns and lines of methods that learn representations, by name."""
    first = next(iter(reports.values()))[0]
    named = {**first["recipe"], "labels": first["result"]["images"]["train"]}
    heads = [text.format(**named) for text in MEASURES.values()]
    columns = ["method", *(x for head in heads for x in (head, "untrained")), "s"]
    lines = []
    for method, runs in reports.items():
        cells = [
            mean_of([run["result"][who][measure] for run in runs], 3)
            for measure in MEASURES
            for who in ("trained", "untrained")
        ]
        lines.append([method, *cells, seconds(runs)])
    few, k = first["recipe"]["few"], first["recipe"]["neighbours"]
    cells = [f"{value:.3f}" for value in of_pixels(few, k)]
    return columns, [*lines, ["pixels", *(x for cell in cells for x in (cell, "-")), "-"]]


def of_pixels(few, neighbours):
    """The same measures of the images themselves."""
    train, test = (load_digits_images(split) for split in ("train", "test"))
    data = (train.images.flatten(1), train.labels, test.images.flatten(1), test.labels)
    return (
        linear_probe(*data, per_class=few),
        linear_probe(*data),
        knn_accuracy(*data, k=neighbours),
    )


def densities(reports):
    """Columns and lines of generative models; what they are compared with has lines of its own."""
    lines = []
    for method, runs in reports.items():
        found = [run["result"]["log_likelihood"] for run in runs]
        lines.append([method, mean_of([one["trained"] for one in found], 2), seconds(runs)])
    for name in found[0]:
        if name not in ("trained", "untrained"):
            lines.append([name, mean_of([one[name] for one in found], 2), "-"])
    return ["model", "log likelihood of test images, nats", "s"], lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/pretraining"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, help="in place of the recipes'")
    given = parser.parse_args()
    reports = {
        method: [
            trained(method, seed, given.output / f"{method}_{seed}", given.steps)
            for seed in range(given.seeds)
        ]
        for method in given.only
    }
    for name, binary, made in (
        ("pretraining", False, representations),
        ("densities", True, densities),
    ):
        chosen = {m: runs for m, runs in reports.items() if recipe_of(m).binary == binary}
        if not chosen:
            continue
        columns, lines = made(chosen)
        for line in (columns, *lines):
            print(*line, sep=" | ")
        if given.only == list(METHODS) and not given.steps:
            table = {"machine": harness.machine(), "columns": columns, "lines": lines}
            table["threads"] = torch.get_num_threads()
            (harness.RESULTS / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
