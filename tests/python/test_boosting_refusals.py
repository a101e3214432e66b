"""What was once taken for something else, and is an error."""

import numpy as np
import pytest
import scipy.sparse
import torch
from reference_trees import table

from tilewright.trees import GradientBoostingRegressor


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"monotonic_cst": {0: 1}}, lambda x: x, "a sign for each feature, got a dict"),
        ({"n_estimators": np.float32(2.7)}, lambda x: x, "n_estimators must be an integer"),
        ({}, lambda x: torch.from_numpy(x).to(torch.complex64), "X must hold real numbers"),
    ],
)
def test_what_was_once_taken_for_something_else(options, x, message):
    given, y = (t.numpy() for t in table())
    with pytest.raises(ValueError, match=message):
        GradientBoostingRegressor(**options).fit(x(given), y)


def test_linear_models_take_no_infinite_values():
    x, y = table()
    x[3, 1] = float("inf")
    with pytest.raises(RuntimeError, match="take no infinite values in x"):
        GradientBoostingRegressor(booster="gblinear").fit(x, y)


def test_a_sparse_matrix_with_wrong_places():
    x, y = table()
    matrix = scipy.sparse.csr_array(x)
    matrix.indptr[5] = 10**8
    with pytest.raises(ValueError):
        GradientBoostingRegressor().fit(matrix, y)
