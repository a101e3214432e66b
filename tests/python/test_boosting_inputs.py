"""Sparse tables, whose absent entries are 0, and data frames: the same models as dense arrays."""

import numpy as np
import pytest
import torch
from reference_trees import table
from scipy import sparse

from tilewright._C import Booster
from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor, inputs


def sparse_table(rows=500, features=7):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, features)) * (rng.random((rows, features)) < 0.3)
    x[rng.random(x.shape) < 0.05] = np.nan
    y = np.nan_to_num(x[:, 0]) * 2 + (np.nan_to_num(x[:, 1]) > 0) + 0.1 * rng.standard_normal(rows)
    return x, y


def assert_same_arrays(a, b):
    for name, array in a.arrays_.items():
        assert torch.equal(array, b.arrays_[name]), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "lil_matrix"])
def test_sparse_is_dense_with_zeros(form, dtype):
    x, y = sparse_table()
    x = x.astype(dtype)
    given = getattr(sparse, form)(x)
    dense = GradientBoostingRegressor(n_estimators=6).fit(x, y, eval_set=(x, y))
    model = GradientBoostingRegressor(n_estimators=6).fit(given, y, eval_set=(given, y))
    assert_same_arrays(dense, model)
    assert model.evals_result_ == dense.evals_result_
    assert (model.predict(given) == dense.predict(x)).all()
    assert (model.predict(x) == dense.predict(x)).all()
    assert model.n_features_in_ == 7


@pytest.mark.parametrize("rows", [50000])
def test_tables_of_several_blocks(rows):
    """4 M values are dense at a time: here 100 columns, of which 41,943 rows or 83 columns are."""
    generator = np.random.default_rng(3)
    x = sparse.random_array((rows, 100), density=0.02, format="csr", rng=generator)
    y = x[:, [0]].toarray()[:, 0] - x[:, [99]].toarray()[:, 0]
    model = GradientBoostingRegressor(n_estimators=3, max_depth=3, warm_start=True).fit(x, y)
    dense = GradientBoostingRegressor(n_estimators=3, max_depth=3, warm_start=True)
    dense.fit(x.toarray(), y)
    assert_same_arrays(dense, model)
    assert (model.predict(x) == dense.predict(x.toarray())).all()
    model.set_params(n_estimators=4).fit(x, y)
    dense.set_params(n_estimators=4).fit(x.toarray(), y)
    assert_same_arrays(dense, model)


def test_what_a_sparse_table_may_hold(monkeypatch):
    x, y = sparse_table(60)
    model = GradientBoostingClassifier(n_estimators=3).fit(sparse.csr_array(x), y > 0)
    monkeypatch.setattr(inputs, "BLOCK_CELLS", 20)  # two rows
    assert (model.predict(sparse.csr_array(x)) == model.predict(x)).all()
    assert model.predict_proba(sparse.csr_array((1, 7))).shape == (1, 2)
    # Duplicates add up, rows may be empty, entries may be zeros.
    doubled = sparse.csr_array(
        (np.array([1.0, 1.0, 0.0]), np.array([1, 1, 0]), np.array([0, 2, 2, 3])), shape=(3, 7)
    )
    assert (model.predict_proba(doubled) == model.predict_proba(doubled.toarray())).all()
    assert not doubled.has_canonical_format  # what was given stays as it is
    tensor = torch.from_numpy(np.nan_to_num(x)).to_sparse()
    assert torch.equal(model.predict_proba(tensor), model.predict_proba(tensor.to_dense()))
    again = GradientBoostingClassifier(n_estimators=3).fit(tensor, torch.from_numpy(y > 0))
    dense = GradientBoostingClassifier(n_estimators=3).fit(tensor.to_dense(), y > 0)
    assert_same_arrays(again, dense)


@pytest.mark.parametrize(
    ("pointers", "columns", "message"),
    [
        ([0, 1, 3], [0, 1, 2], r"column indices must lie in \[0, 2\), entry 2 is 2"),
        ([0, 1, 3], [0, -1, 1], r"column indices must lie in \[0, 2\), entry 1 is -1"),
        ([0, 4, 3], [0, 1, 1], "row pointers must ascend from 0 to its 3 values"),
        ([1, 1, 3], [0, 1, 1], "row pointers must ascend from 0 to its 3 values"),
    ],
)
def test_indices_that_are_no_table(pointers, columns, message):
    x = torch.sparse_csr_tensor(
        torch.tensor(pointers), torch.tensor(columns), torch.ones(3), (2, 2),
        check_invariants=False,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=message):
        Booster({}).fit(x, torch.zeros(2))


def test_other_layouts_are_refused():
    with pytest.raises(RuntimeError, match="x must be dense or of layout sparse_csr, got Sparse"):
        Booster({}).fit(torch.eye(3).to_sparse(), torch.zeros(3))


def test_data_frames():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    x, y = table(300, missing=True)
    frame = pandas.DataFrame(x.numpy(), columns=[f"f{i}" for i in range(5)])
    frame["f5"] = (np.arange(300) % 3).astype(np.int8)
    frame["f6"] = np.arange(300) % 2 == 0
    model = GradientBoostingRegressor(n_estimators=5).fit(frame, y.numpy(), eval_set=(frame, y))
    assert model.feature_names_in_.tolist() == [f"f{i}" for i in range(7)]
    array = frame.to_numpy(dtype=np.float32)
    plain = GradientBoostingRegressor(n_estimators=5).fit(array, y.numpy())
    assert_same_arrays(model, plain)
    assert (model.predict(frame) == plain.predict(array)).all()
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["f1", "f0", "f2", "f3", "f4", "f5", "f6"]])
    with pytest.raises(ValueError, match="column 'f6' holds strings such as 'word'"):
        GradientBoostingRegressor().fit(frame.assign(f6="word"), y)
    model.fit(x, y)
    assert not hasattr(model, "feature_names_in_")
