"""Columns by name, categories and sparse rows where models go on, are explained, or are others'."""

import matplotlib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone

from tilewright.trees import (
    AdaBoostRegressor,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestRegressor,
    StackingRegressor,
    TorchRegressor,
    partial_dependence,
    permutation_importance,
    plot_partial_dependence,
)

matplotlib.use("Agg")
pandas = pytest.importorskip("pandas")
BY_DTYPE = {"categorical_features": "from_dtype", "learning_rate": 0.3, "max_depth": 4}


def numbers(rows=300):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    return pandas.DataFrame(x, columns=["age", "bmi", "sex"]), x[:, 0] * 2 + x[:, 1] ** 2


def kinds(letters, seed, rows=400):
    """A column of categories, each with a level of its own."""
    values = np.random.default_rng(seed).choice(list(letters), rows)
    level = {c: (i * 7 % 8) * 1.5 for i, c in enumerate("pqrstuvw")}
    return pandas.DataFrame({"k": pandas.Categorical(values)}), np.array([level[v] for v in values])


def test_a_model_goes_on_with_its_own_categories(tmp_path):
    (all_kinds, y), (few, y_few) = kinds("pqrstuvw", 1), kinds("stuvw", 2)
    model = GradientBoostingRegressor(n_estimators=40, **BY_DTYPE).fit(all_kinds, y)
    more = GradientBoostingRegressor(n_estimators=1, **BY_DTYPE)
    with pytest.raises(ValueError, match=r"init_model must know X's categories, .*'s'.*'p'"):
        more.fit(few, y_few, init_model=model)
    assert not hasattr(more, "arrays_")
    same = few.astype(all_kinds.dtypes.iloc[0])
    assert more.fit(same, y_few, init_model=model).score(same, y_few) > 0.999
    assert more.score(all_kinds, y) > 0.99  # the categories that it did not see are known
    path = tmp_path / "kinds.json"
    model.save_model(path)
    with pytest.raises(ValueError, match="knows numbers alone"):
        more.fit(same, y_few, init_model=path)


def test_categories_as_numbers_stay_known():
    x = torch.arange(400.0)[:, None] % 20
    options = {"categorical_features": [0], "n_estimators": 3}
    model = GradientBoostingRegressor(**options).fit(x, x[:, 0])
    more = GradientBoostingRegressor(**options).fit(x % 7, x[:, 0] % 7, init_model=model)
    assert torch.isfinite(more.predict(x)).all()
    with pytest.raises(ValueError, match="whole numbers from 0 to 19"):
        more.predict(x + 1)


def test_models_go_on_with_columns_in_their_order():
    x, y = numbers()
    turned = x[["sex", "bmi", "age"]]
    model = GradientBoostingRegressor(n_estimators=3).fit(x, y)
    with pytest.raises(ValueError, match=r"columns of init_model, \['age', 'bmi', 'sex'\]"):
        GradientBoostingRegressor(n_estimators=1).fit(turned, y, init_model=model)
    forest = RandomForestRegressor(n_estimators=2, warm_start=True).fit(x, y)
    with pytest.raises(ValueError, match="columns of the trees there"):
        forest.set_params(n_estimators=3).fit(turned, y)
    forest.fit(x, y)
    assert forest.arrays_["tree_output"].numel() == 3


def test_pictures_by_names():
    x, y = numbers()
    model = GradientBoostingRegressor(n_estimators=3).fit(x, y)
    axes = plot_partial_dependence(model, x, ["bmi", ("age", "sex"), 0], grid_resolution=5)
    assert [ax.get_xlabel() for ax in axes] == ["bmi", "age", "age"]
    by_place = plot_partial_dependence(model, x, [1], grid_resolution=5)[0].lines[0]
    assert np.array_equal(axes[0].lines[0].get_ydata(), by_place.get_ydata())


def test_dependence_on_categories():
    x, y = numbers(400)
    x["k"], level = kinds("pqrs", 3)[0]["k"], kinds("pqrs", 3)[1]
    model = GradientBoostingRegressor(n_estimators=60, **BY_DTYPE).fit(x, y + level)
    found = partial_dependence(model, x, ["k"], grid_resolution=2)
    assert found.grid[0].tolist() == [0, 1, 2, 3]  # places in categories_
    # p, q, r and s have the levels 0, 10.5, 9 and 7.5.
    assert np.allclose(found.average[0].diff(), [10.5, -1.5, -1.5], atol=0.75)
    of_numbers = partial_dependence(model, x, ["age"], grid_resolution=5)
    assert of_numbers.average[0, -1] > of_numbers.average[0, 0]
    with pytest.raises(ValueError, match="at least one column"):
        partial_dependence(model, x, [])


@pytest.mark.parametrize("form", [sparse.csr_array, lambda x: torch.tensor(x).to_sparse_csr()])
def test_sparse_rows_everywhere(form):
    x, y = numbers()
    values = np.where(x.to_numpy() > 0, x.to_numpy(), 0).astype(np.float32)
    rows = form(values)
    model = GradientBoostingRegressor(n_estimators=5, max_depth=3).fit(rows, y)
    dense = partial_dependence(model, values, [0], grid_resolution=5)
    found = partial_dependence(model, rows, [0], grid_resolution=5)
    torch.testing.assert_close(found.average, dense.average)
    for many in (BaggingRegressor(model, 2), StackingRegressor([("a", model)], cv=2)):
        fitted = clone(many).fit(rows, y)
        assert np.allclose(np.asarray(fitted.predict(rows)), fitted.predict(values))
    assert permutation_importance(model, values, y, n_repeats=1).importances.shape == (3, 1)


def test_places_of_columns_that_are_none():
    bad = torch.sparse_csr_tensor([0, 1, 1], [77], [1.0], size=(2, 3), check_invariants=False)
    x, y = numbers()
    model = AdaBoostRegressor(n_estimators=2).fit(x.to_numpy(), y)
    with pytest.raises((ValueError, RuntimeError), match=r"column indices must lie in \[0, 3\)"):
        model.predict(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.assign(city="a"), y), "column 'city' holds strings such as 'a'"),
        (lambda x, y: (x, np.array(["a"] * len(y))), "y must hold numbers, got strings such as"),
        (lambda x, y: (x, y, np.full(len(y), 1e39)), r"sample_weight must fit float32.*1e\+39"),
        (lambda x, y: (x, y, np.full(len(y), 1e-46)), "sample_weight must fit float32.*1e-46"),
    ],
)
def test_tables_that_are_none(change, message):
    with pytest.raises(ValueError, match=message):
        GradientBoostingRegressor(n_estimators=1).fit(*change(*numbers()))


def test_labels_of_several_kinds():
    x, y = numbers()
    for labels in (np.where(y > 0, None, "a"), np.array([1, "a"] * 150, object)):
        with pytest.raises(ValueError, match="Unknown label type"):
            GradientBoostingClassifier(n_estimators=1).fit(x, labels)


def test_whole_labels_beyond_float32_warn():
    x, _ = numbers()
    with pytest.warns(UserWarning, match="subtract a constant"):
        GradientBoostingRegressor(n_estimators=1).fit(x, 10**12 + np.arange(300))


def test_a_loaded_model_keeps_alpha(tmp_path):
    x, y = numbers()
    path = tmp_path / "model.json"
    GradientBoostingRegressor(n_estimators=1).fit(x, y).save_model(path)
    loaded = GradientBoostingRegressor().load_model(path)
    assert loaded.alpha == 0.9
    clone(loaded).set_params(loss="huber").fit(x, y)
    with pytest.raises(FileNotFoundError, match=r"no folder for .*none"):
        loaded.save_model(tmp_path / "none" / "model.json")
    path.write_text("1" * 10000)
    with pytest.raises(ValueError, match=r"not a model of XGBoost: .*model.json"):
        loaded.load_model(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "tweedie"}, ValueError, r"power \(alpha\) must lie in \(1, 2\), got 0.9"),
        ({"loss": lambda s, y: (s - y - 99).sqrt()}, ValueError, "the loss is NaN for some row"),
    ],
)
def test_losses_that_are_none(options, error, message):
    with pytest.raises(error, match=message):
        GradientBoostingRegressor(n_estimators=1, **options).fit(*numbers())


def test_metrics_that_are_none():
    x, y = numbers()

    def hello(_truth, _found):
        return "hi"

    model = GradientBoostingRegressor(n_estimators=1, eval_metric=hello)
    with pytest.raises(TypeError, match="eval_metric hello must return a number, got 'hi'"):
        model.fit(x, y, eval_set=[(x, y)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"module": torch.nn.Linear(3, 1)}, "module must be a function .* got a Linear"),
        ({"module": lambda _f, _o: 7}, "it made a int"),
        ({"optimizer": "adam"}, "optimizer must be a class such as torch.optim.Adam, got 'adam'"),
    ],
)
def test_modules_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        TorchRegressor(epochs=1, **options).fit(*numbers())
