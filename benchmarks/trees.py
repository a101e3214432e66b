"""The room's table: fits and prediction against xgboost, lightgbm and scikit-learn, same data,
same hyperparameters, in turns in one process, with quality beside speed.

100 trees of depth 6, at most 256 bins; times are of binning and boosting together. Memory is what a
fit takes at most beyond what its process had before, the median of three processes. A peer that is
not installed is left out (pip install --no-deps xgboost==3.2.0 lightgbm==4.7.0 catboost==1.2.10
six: their other requirements are here, or would overwrite torch's). catboost's trees are symmetric:
it learns less from as many. python benchmarks/trees.py [--quick] [--only WORK]
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings

import numpy as np
import torch
from boosters import NAMES, TREES, contenders
from flights import flights, has_flights
from harness import RESULTS, machine, measure, peak_memory
from sklearn import ensemble
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from tilewright import trees

FILE = RESULTS / "trees.json"
COLUMNS = ["work", *NAMES, "faster than the best"]


def binary(rows, features, seed=0):
    """Interactions, steps and waves of some features; the others are noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features), dtype=np.float32)
    z = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + 0.5 * x[:, 3] + 0.3 * x[:, 6] ** 2
    z -= 0.7 * (x[:, 4] > 0.3) * x[:, 5]
    return x, (z + rng.logistic(size=rows) > 0.3).astype(np.float32)


def regression(rows, features, seed=0):
    x, _ = binary(rows, features, seed)
    rng = np.random.default_rng(seed + 1)
    y = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + 0.5 * x[:, 3] + 0.5 * rng.standard_normal(rows)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, y.astype(np.float32)


def shown(milliseconds):
    return f"{milliseconds / 1e3:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"


class Fits:
    """One piece of work: {name: function of a number of rows} of its contenders, None for all."""

    def __init__(self, functions, quality, most, found=()):
        self.functions, self.quality, self.most, self.found = functions, quality, most, found


def boosted(train, test, classify, threads, categorical=None):
    """train, test: (x, y)."""
    found = contenders(classify, threads, categorical)
    kind = "AUC" if classify else "RMSE"

    def fit(contender):
        return lambda rows=None: contender.fit(train[0][:rows], train[1][:rows])

    def quality():
        return {c.name: f" ({kind} {c.fit(*train).quality(*test):.4f})" for c in found}

    return Fits({c.name: fit(c) for c in found}, quality, 3, found)


def parted(make, rows, features):
    """So many rows to train on, and 100,000 others."""
    x, y = make(rows + 100_000, features)
    return (x[:rows], y[:rows]), (x[rows:], y[rows:])


def of_flights(share, threads):
    """A real table, with missing values and categories."""
    x, y, categorical = flights()
    order = np.random.default_rng(0).permutation(len(y))[: len(y) // share]
    train, test = order[len(order) // 5 :], order[: len(order) // 5]
    return boosted((x[train], y[train]), (x[test], y[test]), True, threads, categorical)


def ensembles(name, share, threads):
    """100 full-grown trees, or 100 stumps of AdaBoost: scikit-learn is the peer."""
    train, test = parted(binary, 100_000 // share, 28)
    theirs = {} if name == "AdaBoostClassifier" else {"n_jobs": threads}
    kinds = {
        "scikit-learn": getattr(ensemble, name)(n_estimators=TREES, random_state=0, **theirs),
        "tilewright": getattr(trees, name)(n_estimators=TREES, random_state=0),
    }

    def fit(who):
        model = clone(kinds[who])
        x = torch.from_numpy(train[0]) if who == "tilewright" else train[0]
        return lambda rows=None: model.fit(x[:rows], train[1][:rows])

    functions = {who: fit(who) for who in kinds}

    def quality():
        found = {w: f().predict_proba(test[0])[:, 1] for w, f in functions.items()}
        return {who: f" (AUC {roc_auc_score(test[1], p):.4f})" for who, p in found.items()}

    return Fits(functions, quality, 2)


def works(share, threads):
    """{title: function that makes the Fits}."""
    size = f"{100 // share}k x 28 binary"

    def made(make, rows, features, classify):
        return lambda: boosted(*parted(make, rows // share, features), classify, threads)

    listed = {
        "1M x 28 binary": made(binary, 1_000_000, 28, True),
        "200k x 100 binary": made(binary, 200_000, 100, True),
        "50k x 50 regression, 10 % missing": made(regression, 50_000, 50, False),
        "flights, 22 columns, 4 of categories": lambda: of_flights(share, threads),
    }
    if not has_flights():
        del listed["flights, 22 columns, 4 of categories"]
    for title, name in (
        ("random forest, 100 full trees", "RandomForestClassifier"),
        ("extremely randomised, 100 full trees", "ExtraTreesClassifier"),
        ("AdaBoost, 100 stumps", "AdaBoostClassifier"),
    ):
        listed[f"{title}, {size}"] = lambda name=name: ensembles(name, share, threads)
    return listed


def memory_of(title, name, quick):
    """MB that one contender takes, in processes of its own."""
    command = [sys.executable, __file__, "--memory", title, name, *(["--quick"] if quick else [])]

    def once():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    return once() if quick else statistics.median(once() for _ in range(3))


def measure_memory(fits, name):
    fit = fits.functions[name]
    fit(2000)  # loads code and starts threads
    print(peak_memory(fit))


class Rows:
    """The table. Rows that are measured again take the places of those in the file."""

    def __init__(self, kept):
        self.lines, self.rows = (kept["lines"], kept["rows"]) if kept else ([], [])

    def put(self, line, row):
        for i, old in enumerate(self.rows):
            if old["work"] == row["work"]:
                self.lines[i], self.rows[i] = line, row
                return
        self.lines.append(line)
        self.rows.append(row)

    def add(self, work, functions, extra=None, memory=None, **options):
        """Times {name: function}; `extra` is {name: text} beside the times, `memory` {name: MB}."""
        times = {name: statistics.median(t) for name, t in measure(functions, **options).items()}
        best = min((t for name, t in times.items() if name != "tilewright"), default=None)
        ratio = None if best is None else best / times["tilewright"]
        row = {"work": work, "ms": times, "mb": memory, "ratio": ratio, "quality": extra or {}}

        def cell(name):
            if name not in times:
                return ""
            taken = f", {memory[name]:.0f} MB" if memory else ""
            return f"{shown(times[name])}{(extra or {}).get(name, '')}{taken}"

        cells = [cell(name) for name in COLUMNS[1:-1]]
        line = [work, *cells, "" if ratio is None else f"{ratio:.1f}x"]
        self.put(line, row)
        print(*line, sep=" | ", flush=True)

    def save(self):
        RESULTS.mkdir(exist_ok=True)
        data = {"machine": machine(), "columns": COLUMNS, "lines": self.lines, "rows": self.rows}
        FILE.write_text(json.dumps(data, indent=1) + "\n")


def kept_rows():
    """What the file holds, of this machine."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else None
    return kept if kept and kept["machine"] == machine() else None


def bench_predict(table, found, features, rows, threads):
    x, _ = binary(rows, features, seed=5)
    first = found[0].predict(x)
    for other in found[1:]:
        assert other.predict(x).shape == first.shape
    functions = {c.name: (lambda c=c: c.predict(x)) for c in found}
    table.add(f"predict {rows} rows of {features}, {threads} threads", functions)


def main():
    # catboost leaves the tables it has read not writable.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, nothing saved")
    parser.add_argument("--only", metavar="WORK", help="measure works of this title anew")
    parser.add_argument("--memory", nargs=2, metavar=("WORK", "NAME"), help="of one contender")
    given = parser.parse_args()
    share = 10 if given.quick else 1
    threads = torch.get_num_threads()
    listed = works(share, threads)
    if given.memory:
        title, name = given.memory
        return measure_memory(listed[title](), name)
    print(json.dumps(machine()))
    table = Rows(kept_rows() if given.only else None)
    for number, (title, make) in enumerate(listed.items()):
        if given.only and given.only not in title:
            continue
        fits = make()
        memory = {name: memory_of(title, name, given.quick) for name in fits.functions}
        quality = fits.quality()
        work = f"{title}, {threads} threads"
        table.add(work, fits.functions, quality, memory, most=fits.most)
        if number == 0:
            for rows in (1_000_000 // share, 1000, 1):
                bench_predict(table, fits.found, 28, rows, threads)
        if not given.quick:
            table.save()  # what is measured stays, whatever becomes of the rest


if __name__ == "__main__":
    main()
