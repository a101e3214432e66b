"""What the estimators take: tensors, arrays, data frames, and sparse tables, of which
blocks of rows are dense at a time."""

import contextlib
import math
import warnings

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from tilewright.trees.tensors import as_array, table_of

# What scikit-learn's checks let through: numbers, NaN for missing.
ACCEPTED = {
    "dtype": [np.float64, np.float32],
    "ensure_all_finite": "allow-nan",
    "accept_sparse": "csr",
}

BLOCK_ROWS = 1 << 13  # labels that are looked at together
BLOCK_CELLS = 1 << 22  # values of a sparse table that are dense at a time


def tensor_of(array):
    """The array's memory, or a copy where torch does not take it: read only, or backwards."""
    shared = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if shared else array.copy())


def distinct(labels):
    """numpy.unique of at least one label, without copies of all."""
    parts = [
        np.unique(labels[first : first + BLOCK_ROWS]) for first in range(0, len(labels), BLOCK_ROWS)
    ]
    return np.unique(np.concatenate(parts))


def places_of(labels, classes):
    """Where each label stands among its ascending classes, int16 for up to 2^15 classes, without
    copies of all."""
    places = np.empty(len(labels), np.int16 if len(classes) <= 1 << 15 else np.int64)
    for first in range(0, len(labels), BLOCK_ROWS):
        some = slice(first, first + BLOCK_ROWS)
        places[some] = np.searchsorted(classes, labels[some])
    return places


def check_labels(y, numeric=False):
    """A ValueError names the first row, and column where y has several, whose label is NaN or
    infinite; other kinds of y pass."""
    values = np.asarray(as_array(y))
    if numeric and values.dtype.kind in "OSU":
        for value in values.flat:
            if isinstance(value, str):
                raise ValueError(f"y must hold numbers, got strings such as {str(value)!r}")
    if values.dtype.kind != "f" or values.ndim not in (1, 2):
        return
    bad = ~np.isfinite(values)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        column = f", column {place[1]}" if values.ndim == 2 else ""
        raise ValueError(
            f"y must be finite; that of row {place[0]}{column} is {values[tuple(place)]}"
        )


def check_same_names(estimator, names, what):
    """The columns' names of a model that is to be gone on from, where both have some."""
    own = getattr(estimator, "feature_names_in_", None)
    if own is not None and names is not None and list(own) != list(names):
        raise ValueError(
            f"X must have the columns of {what}, {list(names)}, in this order; got {list(own)}"
        )


# Beyond it, what float32 rounds of a label is a ten-thousandth of how far labels lie apart.
MOST_OFFSET = 1 << 10


def check_fits_float(y):
    """Models answer in float32. Finite labels, a float64 tensor, beyond its range are a ValueError;
    those of which it keeps too little, such as timestamps, a warning."""
    if y.numel() == 0:
        return
    greatest = float(y.abs().max())
    if torch.finfo(torch.float32).max < greatest < math.inf:  # the rest is not finite
        raise ValueError(f"y must fit float32, got {greatest:g}: divide it by a constant")
    spread = float(y.std(0, correction=0).max())
    if 0 < spread * MOST_OFFSET < greatest:
        warnings.warn(
            f"y lies up to {greatest:g} from 0 and {spread:g} from its mean, and models answer in "
            "float32, of 7 digits: subtract a constant from y, and add it to predictions",
            stacklevel=4,
        )


def sparse_tensor(matrix):
    """scipy's CSR matrix or array as torch's, indices in order and duplicates added up."""
    matrix.check_format(full_check=True)  # scipy's own steps take places as they are
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    with _beta():
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.copy()),
            size=matrix.shape,
        )


@contextlib.contextmanager
def _beta():
    """Without torch's warnings that CSR tensors are in beta state and not checked: C++ does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant)")
        yield


def dense_blocks(table):
    """The rows of torch's CSR tensor, some at a time; at least one block."""
    rows, features = table.shape
    pointers, columns, values = table.crow_indices(), table.col_indices(), table.values()
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < features:
        raise ValueError(
            f"x's column indices must lie in [0, {features}), they lie in "
            f"[{int(columns.min())}, {int(columns.max())}]"
        )
    height = max(BLOCK_CELLS // max(features, 1), 1)
    for first in range(0, max(rows, 1), height):
        last = min(first + height, rows)
        begin, end = int(pointers[first]), int(pointers[last])
        lengths = pointers[first : last + 1].diff()
        row = torch.repeat_interleave(torch.arange(last - first), lengths)
        block = torch.zeros(last - first, features, dtype=values.dtype)
        block.index_put_((row, columns[begin:end]), values[begin:end], accumulate=True)
        yield block


def dense_of(table):
    """torch's CSR tensor as a dense one; a dense one as it is."""
    return table if table.layout == torch.strided else torch.cat(list(dense_blocks(table)))


def columns_of(table, columns):
    """Some columns of a tensor, dense or CSR, as a dense one."""
    if table.layout == torch.strided:
        return table[:, columns]
    return torch.cat([block[:, columns] for block in dense_blocks(table)])


def floating_table(estimator, x, reset):
    """A tensor X as floating numbers, dense or CSR; its features are remembered or checked."""
    x = table_of(estimator, x, reset)
    x = x if x.is_floating_point() else x.float()
    if x.layout == torch.strided:
        return x
    with _beta():
        return x.to_sparse_csr()


class InputMixin:
    """Turns what is given into tensors and remembers the features."""

    def _features(self, x):
        """x for prediction, as a dense tensor."""
        return dense_of(self._table(x))

    def _table(self, x):
        """The same, or torch's CSR where x is sparse: absent entries are 0."""
        if isinstance(x, torch.Tensor):
            table = floating_table(self, x, reset=False)
        else:
            x = validate_data(self, self._encoded(x, reset=False), reset=False, **ACCEPTED)
            table = sparse_tensor(x) if sparse.issparse(x) else tensor_of(x)
        self._check_categories(table)
        return table

    def _training_set(self, x, y, sample_weight, numeric, reset=True, multi_output=False):
        """X as a tensor, y as an array (a column of one, with a warning, without its dimension),
        weights as a tensor or None; remembers the features."""
        if reset:
            self._forget_inputs()
        if isinstance(x, torch.Tensor):
            features = floating_table(self, x, reset)
            labels = np.asarray(as_array(y))
            if labels.ndim != 1 and not multi_output:
                raise ValueError(f"y must have shape (n_samples,), got {labels.shape}")
        else:
            if y is not None:
                check_labels(y, numeric)
            x = self._encoded(x, reset)
            if sparse.issparse(y):
                raise TypeError("y must be dense, got a sparse matrix")
            kind = {"y_numeric": numeric, "multi_output": multi_output}
            x, labels = validate_data(self, x, y, reset=reset, **kind, **ACCEPTED)
            features = sparse_tensor(x) if sparse.issparse(x) else tensor_of(x)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = column_or_1d(labels, warn=True)
        return features, labels, self._weights(sample_weight, features.shape[0])

    def _weights(self, sample_weight, rows, sizes=None):
        """(rows,) float32; ``sizes`` of queries matter to rankers."""
        if sample_weight is None:
            return None
        checked = _check_sample_weight(
            as_array(sample_weight),
            torch.empty(rows, 1),
            ensure_non_negative=True,
            ensure_same_device=False,
            allow_all_zero_weights=False,
        )
        weights = torch.from_numpy(np.asarray(checked, np.float64)).float()
        if not weights.isfinite().all() or not weights.any():
            raise ValueError(
                "sample_weight must fit float32, got weights up to "
                f"{float(np.max(as_array(checked)))}: multiply it by a constant"
            )
        return weights
