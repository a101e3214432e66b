"""Pictures show what the model holds: texts, lines and bars are read back from the axes."""

import builtins
import itertools

import numpy as np
import pytest
import torch
from reference_trees import table

from tilewright.trees import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    TorchRegressor,
    importance,
    partial_dependence,
    permutation_importance,
    plot_history,
    plot_importance,
    plot_partial_dependence,
    plot_tree,
)
from tilewright.trees.tree_plot import below, layout

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(ax):
    return [t.get_text() for t in ax.texts]


def hand_made(**changes):
    """x0 < 1.5 sends missing values left; below it on the right x1 splits."""
    model = GradientBoostingRegressor(n_estimators=1).fit(torch.randn(9, 2), torch.randn(9))
    model.arrays_ = {
        "feature": torch.tensor([0, 0, 1, 0, 0], dtype=torch.int32),
        "threshold": torch.tensor([1.5, 0.0, -0.25, 0.0, 0.0]),
        "left": torch.tensor([1, -1, 3, -1, -1], dtype=torch.int32),
        "right": torch.tensor([2, -1, 4, -1, -1], dtype=torch.int32),
        "default_left": torch.tensor([True, False, False, False, False]),
        "value": torch.tensor([0.0, 0.5, 0.0, -1.0, 0.125]),
        "gain": torch.tensor([8.25, 0.0, 2.5, 0.0, 0.0]),
        "cover": torch.tensor([9.0, 4.0, 5.0, 3.0, 2.0]),
        "tree_ptr": torch.tensor([0, 5]),
        "tree_output": torch.zeros(1, dtype=torch.int32),
        **changes,
    }
    return model


def test_a_tree_says_all_that_it_holds():
    ax = plot_tree(hand_made())
    assert sorted(texts(ax)) == sorted(
        [
            "x0 < 1.5\ngain 8.25\ncover 9",
            "yes, missing",
            "no",
            "0.5\ncover 4",
            "x1 < -0.25\ngain 2.5\ncover 5",
            "yes",
            "no, missing",
            "-1\ncover 3",
            "0.125\ncover 2",
        ]
    )
    assert ax.get_title() == "tree 0"
    assert len(ax.lines) == 4
    named = plot_tree(hand_made(), feature_names=["age", "height"], max_depth=1)
    shown = texts(named)
    assert "age < 1.5\ngain 8.25\ncover 9" in shown and "... 2 leaves" in shown
    assert len(named.lines) == 2
    # Drawn on axes of the caller's, which are given back.
    ax = plt.figure().add_subplot()
    assert plot_tree(hand_made(), ax=ax) is ax
    # An ensemble that xgboost wrote may have no gains.
    bare = hand_made()
    del bare.arrays_["gain"], bare.arrays_["cover"]
    assert "x0 < 1.5" in texts(plot_tree(bare))


def test_nodes_stand_in_order_and_apart():
    model = hand_made()
    ax = plot_tree(model)
    places = {t.get_text().split("\n")[0]: t.get_position() for t in ax.texts}
    assert places["0.5"] == (0, -1) and places["-1"] == (1, -2) and places["0.125"] == (2, -2)
    assert places["x1 < -0.25"] == (1.5, -1) and places["x0 < 1.5"] == (0.75, 0)
    x, y = table(2000)
    grown = GradientBoostingRegressor(n_estimators=2, max_depth=6).fit(x, y)
    begin, end = grown.arrays_["tree_ptr"][1:].tolist()
    sides = [grown.arrays_[side][begin:end].tolist() for side in ("left", "right")]
    found = layout(*sides)
    assert len(found) == end - begin
    assert len(set(found.values())) == len(found)
    assert below(*sides, 0) == sum(child < 0 for child in sides[0])
    for depth in range(7):
        xs = sorted(place[0] for place in found.values() if place[1] == depth)
        assert all(b - a >= 0.99 for a, b in itertools.pairwise(xs))
    for node, (place, _) in found.items():
        if sides[0][node] >= 0:
            assert found[sides[0][node]][0] < place < found[sides[1][node]][0]


def test_boxes_do_not_overlap_in_the_figure_of_its_size():
    x, y = table(2000)
    model = GradientBoostingRegressor(n_estimators=1, max_depth=4).fit(x, y)
    ax = plot_tree(model)
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if "cover" in t.get_text()]
    assert len(boxes) == len(model.arrays_["left"]) > 25
    for i, first in enumerate(boxes):
        assert not any(first.overlaps(other) for other in boxes[i + 1 :])


def test_kinds_of_questions_and_leaves():
    model = hand_made(
        threshold=torch.tensor([-torch.inf, 0.0, 0.0, 0.0, 0.0]),
        category_ptr=torch.tensor([0, 0, 0, 8, 8, 8]),
        categories=torch.arange(8, dtype=torch.int32),
        value=torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 0.0], [4.0, 5.0], [6.0, 7.0]]),
    )
    shown = texts(plot_tree(model))
    assert "x0 is missing\ngain 8.25\ncover 9" in shown
    # Categories go right; missing values of this node do too.
    assert "x1 in {0, 1, 2, 3, 4, 5, ...}\ngain 2.5\ncover 5" in shown
    assert shown.count("yes, missing") == 2 and shown.count("no") == 2
    assert "[2, 3]\ncover 4" in shown
    x, y = table(100)
    names = np.array(["a", "b", "c"])[np.digitize(y.numpy(), [-1.0, 1.0])]
    many = GradientBoostingClassifier(n_estimators=2).fit(x, names)
    assert plot_tree(many, 4).get_title() == "tree 4, class b"
    stump = GradientBoostingRegressor(n_estimators=1).fit(torch.zeros(9, 2), torch.zeros(9))
    assert texts(plot_tree(stump)) == ["0\ncover 9"]


def test_history_of_rounds_and_epochs():
    x, y = table(600)
    model = GradientBoostingRegressor(n_estimators=100, early_stopping_rounds=3, learning_rate=0.5)
    model.fit(x[:300], y[:300], eval_set=(x[300:], y[300:]))
    ax = plot_history(model)
    rounds = len(model.evals_result_)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), model.evals_result_)
    assert ax.lines[0].get_xdata().tolist() == list(range(1, rounds + 1))
    assert list(ax.lines[1].get_xdata()) == [model.n_iter_] * 2 and model.n_iter_ < rounds
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [f"kept: round {model.n_iter_}"]
    net = TorchRegressor(epochs=4).fit(x, y)
    ax = plot_history(net)
    assert ax.get_xlabel() == "epoch" and len(ax.lines) == 1
    np.testing.assert_allclose(ax.lines[0].get_ydata(), net.loss_curve_)
    model.evals_result_ = {"validation": {"rmse": [2.0, 1.0], "mae": [1.0, 0.5]}}
    labels = [line.get_label() for line in plot_history(model).lines[:2]]
    assert labels == ["validation rmse", "validation mae"]
    with pytest.raises(ValueError, match="needs a model that was fitted with an eval_set"):
        plot_history(GradientBoostingRegressor(n_estimators=1).fit(x, y))


def test_bars_are_importances():
    x, y = table(500, 5)
    model = GradientBoostingRegressor(n_estimators=5).fit(x, y)
    for kind in ("gain", "cover", "split"):
        ax = plot_importance(model, kind, feature_names=list("abcde"), top=3)
        shares, order = importance(model, kind).sort(descending=True)
        widths = [bar.get_width() for bar in ax.patches]
        np.testing.assert_allclose(widths, shares[:3].flip(0))
        labels = [t.get_text() for t in ax.get_yticklabels()]
        assert labels == ["abcde"[i] for i in order[:3].flip(0)]
    found = permutation_importance(model, x, y, n_repeats=2, random_state=0)
    ax = plot_importance(found)
    np.testing.assert_allclose(
        [bar.get_width() for bar in ax.patches], np.sort(found.importances_mean)
    )
    assert len(ax.collections) == 1  # the deviations
    with pytest.raises(ValueError, match="feature_names must be 5 names, got 2"):
        plot_importance(model, feature_names=["a", "b"])


def test_partial_dependence_is_drawn():
    x, y = table(120, 4)
    model = GradientBoostingRegressor(n_estimators=5).fit(x, y)
    line, surface = plot_partial_dependence(model, x, [0, (1, 2)], grid_resolution=9)
    found = partial_dependence(model, x, 0, grid_resolution=9)
    np.testing.assert_allclose(line.lines[0].get_xdata(), found.grid[0])
    np.testing.assert_allclose(line.lines[0].get_ydata(), found.average[0])
    assert (line.get_xlabel(), surface.get_xlabel(), surface.get_ylabel()) == ("x0", "x1", "x2")
    assert surface.collections
    (rows,) = plot_partial_dependence(model, x.numpy(), [3], kind="both")
    assert len(rows.lines) == 40 + 1  # every third of 120 rows, and the mean
    classifier = GradientBoostingClassifier(n_estimators=3)
    classifier.fit(x, np.digitize(y.numpy(), [-1.0, 1.0]))
    (ax,) = plot_partial_dependence(classifier, x, [0])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["0", "1", "2"]
    (ax,) = plot_partial_dependence(classifier, x, [0], target=1)
    assert len(ax.lines) == 1
    with pytest.raises(ValueError, match="one of 3 outputs: give target="):
        plot_partial_dependence(classifier, x, [(0, 1)])
    plot_partial_dependence(classifier, x, [(0, 1)], target=2, grid_resolution=5)


def test_what_is_refused():
    x, y = table(50, 4)
    model = GradientBoostingRegressor(n_estimators=2).fit(x, y)
    with pytest.raises(ValueError, match=r"index must lie in \[0, 2\), got 2"):
        plot_tree(model, 2)
    with pytest.raises(ValueError, match="needs a fitted model with trees"):
        plot_tree(GradientBoostingRegressor())
    with pytest.raises(ValueError, match="kind must be 'average'"):
        plot_partial_dependence(model, x, [0], kind="all")
    with pytest.raises(ValueError, match="one or two features, got"):
        plot_partial_dependence(model, x, [(0, 1, 2)])
    with pytest.raises(ValueError, match="axes must be 2, one for each of features, got 1"):
        plot_partial_dependence(model, x, [0, 1], axes=[plt.figure().add_subplot()])


def test_without_matplotlib_the_error_says_what_helps(monkeypatch):
    x, y = table(50, 4)
    model = GradientBoostingRegressor(n_estimators=2).fit(x, y, eval_set=(x, y))
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    for draw in (plot_tree, plot_history, plot_importance):
        with pytest.raises(ImportError, match=f"{draw.__name__} draws with matplotlib, .* pip"):
            draw(model)
    with pytest.raises(ImportError, match="plot_partial_dependence draws with matplotlib"):
        plot_partial_dependence(model, x, [0])
