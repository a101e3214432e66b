"""Writes scikit-learn's 8x8 digits as the four IDX files that simclr_cpp reads.

python digits.py folder
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TEST = 450  # of 1797 digits


def write_idx(path: Path, values: np.ndarray) -> None:
    """Bytes in MNIST's format: zeros, the type, dimensions, big-endian sizes, values."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(header + np.ascontiguousarray(values, np.uint8).tobytes())


def write_digits(folder: Path, seed: int = 0) -> list[Path]:
    """Images and labels to train on, then those to test on; grey values from 0 to 255."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, rows in (("train", order[TEST:]), ("test", order[:TEST])):
        for kind, values in (
            ("images-idx3-ubyte", np.rint(digits.images[rows] * 255 / 16)),
            ("labels-idx1-ubyte", digits.target[rows]),
        ):
            files.append(folder / f"{name}-{kind}")
            write_idx(files[-1], values)
    return files


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(*write_digits(parser.parse_args().folder))
