"""Predictions of few rows by a C++ program: 100 trees of depth 6, one row or 1,000 a call, against
the C interfaces of xgboost and lightgbm, each contender in processes of its own that take turns.

In one process the threads of one library still spin when the next begins, which a call of some
microseconds shows. tilewright reads xgboost's own model, and has to predict what xgboost does;
lightgbm's is its own of the same data and hyperparameters. Each call takes other rows.
python benchmarks/predict_rows.py [--quick]
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from boosters import Contender
from harness import RESULTS, ROOT, machine
from trees import binary

from tilewright.trees import GradientBoostingClassifier

FEATURES, TOTAL = 28, 20_000
LIBRARIES = {"xgboost": "lib/libxgboost.so", "lightgbm": "lib/lib_lightgbm.so", "tilewright": ""}
COLUMNS = ["rows a call", "xgboost", "lightgbm", "tilewright", "faster than the best"]


class Served(torch.nn.Module):
    """What a program loads: an ensemble that is packed for prediction."""

    def __init__(self, ensemble):
        super().__init__()
        self.ensemble = ensemble

    def forward(self, x: torch.Tensor):
        return self.ensemble.predict(x)


def write_models(folder, rows):
    """{name: path}, all trained on the same rows, tilewright's being xgboost's."""
    x, y = binary(rows, FEATURES)
    names = {"xgboost": "xgboost.json", "lightgbm": "lightgbm.txt", "tilewright": "tilewright.pt"}
    paths = {name: str(folder / file) for name, file in names.items()}
    for name in ("xgboost", "lightgbm"):
        Contender(name, True, 2).fit(x, y).model.save_model(paths[name])
    model = GradientBoostingClassifier().load_model(paths["xgboost"])
    ensemble = model.to_module().to_ensemble(FEATURES)
    torch.jit.script(Served(ensemble)).save(paths["tilewright"])
    return paths


def program():
    """The C++ program, built where the library was."""
    build = ROOT / "build" / "cmake"
    target = "tilewright_predict_rows"
    subprocess.run(["cmake", "--build", build, "--target", target, "--", "--quiet"], check=True)
    return next(build.rglob(target))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="models of 20,000 rows, nothing saved")
    quick = parser.parse_args().quick
    print(json.dumps(machine()))
    command = program()
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_models(folder, 20_000 if quick else 1_000_000)
        x, _ = binary(TOTAL, FEATURES, seed=5)
        (folder / "rows").write_bytes(x.tobytes())

        def run(who, count, repeats):
            library = ""
            if LIBRARIES[who]:
                package = Path(importlib.util.find_spec(who).origin).parent
                library = package / LIBRARIES[who]
            told = [who, library, paths[who], folder / "rows", FEATURES, TOTAL, count, repeats]
            done = subprocess.run(
                [command, *map(str, told)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            times, found = done.stdout.splitlines()
            return list(map(float, times.split())), np.array(found.split(), dtype=np.float64)

        rows, lines = [], []
        for count, repeats in ((1, 2000), (1000, 200)):
            times = {who: [] for who in LIBRARIES}
            for _ in range(2 if quick else 9):
                found = {}
                for who in LIBRARIES:
                    taken, found[who] = run(who, count, repeats)
                    times[who].append(statistics.median(taken))
                np.testing.assert_allclose(found["tilewright"], found["xgboost"], atol=1e-6)
            median = {who: statistics.median(t) for who, t in times.items()}
            ratio = min(median["xgboost"], median["lightgbm"]) / median["tilewright"]
            rows.append({"rows": count, "us": median, "ratio": ratio})
            shown = [
                f"{median[who]:.3g} us" if median[who] < 1000 else f"{median[who] / 1000:.3g} ms"
                for who in LIBRARIES
            ]
            lines.append([str(count), *shown, f"{ratio:.1f}x"])
            print(*lines[-1], sep=" | ", flush=True)
    if not quick:
        data = {"machine": machine(), "columns": COLUMNS, "lines": lines, "rows": rows}
        (RESULTS / "predict_rows.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
