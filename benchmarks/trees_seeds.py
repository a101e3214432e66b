"""The quality of boosting beside xgboost's over many seeds of the table's data: where the first
splits of an interaction are chance, one seed says little. python benchmarks/trees_seeds.py [seeds]
"""

import statistics
import sys

from boosters import contenders
from trees import binary

ROWS, HELD_OUT, FEATURES = 100_000, 100_000, 28


def main(seeds):
    differences, peer = [], []
    for seed in range(seeds):
        x, y = binary(ROWS + HELD_OUT, FEATURES, seed)
        auc = {
            c.name: c.fit(x[:ROWS], y[:ROWS]).quality(x[ROWS:], y[ROWS:])
            for c in contenders(True, 2, None)
            if c.name in ("xgboost", "tilewright")
        }
        differences.append(auc["tilewright"] - auc["xgboost"])
        peer.append(auc["xgboost"])
        print(seed, {name: round(value, 5) for name, value in auc.items()}, flush=True)
    spread = statistics.stdev(differences)
    print(
        f"AUC beside xgboost's: mean {statistics.mean(differences):+.5f}, standard error "
        f"{spread / seeds**0.5:.5f}, standard deviation {spread:.5f}; xgboost's own over seeds "
        f"{statistics.stdev(peer):.5f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
