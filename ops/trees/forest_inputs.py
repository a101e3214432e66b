"""What forests and AdaBoost take: tensors as they are, anything else as scikit-learn has it, sparse
tables too; shares and threads by scikit-learn's rules."""

import contextlib
import math
import numbers
import os

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight, validate_data

from tilewright.trees.inputs import (
    ACCEPTED,
    check_fits_float,
    dense_of,
    floating_table,
    sparse_tensor,
    tensor_of,
)
from tilewright.trees.tensors import as_array


class ForestInputMixin:
    """Turns what is given for prediction into tensors."""

    def _table(self, x):
        """x as a tensor, or torch's CSR where it is sparse: absent entries are 0."""
        if isinstance(x, torch.Tensor):
            return floating_table(self, x, reset=False)
        return _tensor_of(validate_data(self, x, reset=False, **ACCEPTED))

    def _features(self, x):
        """The same as a dense tensor."""
        return dense_of(self._table(x))


def _tensor_of(x):
    return sparse_tensor(x) if sparse.issparse(x) else tensor_of(x)


def array_of(table):
    """A tensor as an array, or as scipy's CSR where it is sparse."""
    if table.layout == torch.strided:
        return as_array(table)
    parts = (table.values(), table.col_indices(), table.crow_indices())
    return sparse.csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(table.shape))


def training_set(estimator, x, y, sample_weight, numeric, multi_output=False):
    """X as a tensor, y as an array, weights as a float64 array or None; remembers the features."""
    if isinstance(x, torch.Tensor):
        features = floating_table(estimator, x, reset=True)
        labels = np.asarray(as_array(y))
        rows = features.shape[0]
        if len(labels) != rows or rows == 0:
            raise ValueError(
                f"X and y must have as many rows, at least one, got {rows} and {len(labels)}"
            )
    else:
        x, labels = validate_data(
            estimator, x, y, y_numeric=numeric, multi_output=multi_output, **ACCEPTED
        )
        features = _tensor_of(x)
    if sample_weight is not None:
        sample_weight = _check_sample_weight(
            as_array(sample_weight),
            torch.empty(features.shape[0], 1),
            dtype=np.float64,
            ensure_non_negative=True,
            ensure_same_device=False,
            allow_all_zero_weights=False,
        )
        sample_weight = np.asarray(sample_weight, dtype=np.float64)
    return features, labels, sample_weight


def numbers_of(y):
    """Finite values as a float64 tensor."""
    values = tensor_of(np.ascontiguousarray(y, dtype=np.float64))
    bad = ~values.isfinite()
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"y must be finite; that of row {row} is {values[~values.isfinite()][0]}")
    check_fits_float(values)
    return values


def _is_share(value):
    return isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)


def count_of(name, value, rows, least):
    """A count of rows, or a share of them, rounded up."""
    if isinstance(value, numbers.Integral) and value >= least:
        return int(value)
    if _is_share(value) and 0 < value <= 1:
        return max(least, math.ceil(value * rows))
    raise ValueError(f"{name} must be an integer from {least} or a share in (0, 1], got {value!r}")


def features_per_node(max_features, features):
    if max_features is None:
        return features
    if max_features == "sqrt":
        return max(1, int(math.sqrt(features)))
    if max_features == "log2":
        return max(1, int(math.log2(features)))
    if isinstance(max_features, numbers.Integral) and max_features >= 1:
        return min(int(max_features), features)
    if _is_share(max_features) and 0 < max_features <= 1:
        return max(1, int(max_features * features))
    raise ValueError(
        "max_features must be None, 'sqrt', 'log2', a positive integer or a share in (0, 1], got "
        f"{max_features!r}"
    )


def positive(name, value, none_is=None):
    if value is None and none_is is not None:
        return none_is
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def bins(max_bin):
    if not isinstance(max_bin, numbers.Integral) or not 2 <= max_bin <= 32767:
        raise ValueError(f"max_bin must be an integer in [2, 32767], got {max_bin!r}")
    return int(max_bin)


def within(name, value, low, high):
    if not isinstance(value, numbers.Real) or not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value!r}")
    return float(value)


@contextlib.contextmanager
def threads_of(n_jobs):
    """torch's threads while fitting: n_jobs as joblib counts it, None for those torch has."""
    if n_jobs is None:
        yield
        return
    if not isinstance(n_jobs, numbers.Integral) or n_jobs == 0:
        raise ValueError(f"n_jobs must be None or an integer that is not 0, got {n_jobs!r}")
    cores = os.cpu_count() or 1
    wanted = int(n_jobs) if n_jobs > 0 else max(cores + 1 + int(n_jobs), 1)
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def progress(verbose, total, initial=0):
    """A function to call with how many trees are done, which moves a bar; None where not asked."""
    if not verbose:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=initial, desc="trees", unit="tree") as bar:
        yield lambda done: bar.update(done - bar.n)


def importances(arrays, features):
    """(trees, features): the decrease of impurity by each feature, as shares of its tree; the rows
    of trees without a split are 0."""
    pointers = arrays["tree_ptr"]
    trees = pointers.numel() - 1
    tree = torch.repeat_interleave(torch.arange(trees), pointers.diff())
    split = arrays["left"] >= 0
    place = tree[split] * features + arrays["feature"][split].long()
    sums = torch.zeros(trees * features, dtype=torch.float64)
    sums.index_add_(0, place, arrays["gain"][split].double())
    sums = sums.view(trees, features)
    totals = sums.sum(1, keepdim=True)
    return torch.where(totals > 0, sums / totals, 0.0).numpy()
