"""Pictures of a model, with matplotlib, which is imported where one is drawn."""

import numpy as np

from tilewright.trees.inspection import (
    column_names,
    importance,
    partial_dependence,
    position_of,
)
from tilewright.trees.tensors import as_array

DRAWN_ROWS = 50  # the most lines of single rows in a picture


def pyplot(name):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{name} draws with matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return plt


def names_of(model, feature_names, count):
    """The caller's names, else those that the model was fitted with, else x0, x1, ..."""
    if feature_names is None:
        feature_names = getattr(model, "feature_names_in_", None)
    if feature_names is None:
        return [f"x{i}" for i in range(count)]
    if len(feature_names) != count:
        raise ValueError(f"feature_names must be {count} names, got {len(feature_names)}")
    return [str(name) for name in feature_names]


def _histories(found, prefix=""):
    """Lists of metrics by their names, from a list or from dicts of lists."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _histories(value, f"{prefix} {key}".strip())
    else:
        yield prefix, [float(v) for v in found]


def plot_history(model, *, ax=None):
    """The metric on the evaluation set after each round, and the round that the model keeps; of a
    torch estimator the loss of each epoch. Returns the axes."""
    found, what = getattr(model, "evals_result_", None), "round"
    if not found:
        found, what = getattr(model, "loss_curve_", None), "epoch"
    if not found:
        raise ValueError("plot_history needs a model that was fitted with an eval_set=(X, y)")
    ax = ax or pyplot("plot_history").subplots()[1]
    longest = 0
    for name, values in _histories(found):
        longest = max(longest, len(values))
        ax.plot(range(1, len(values) + 1), values, label=name or None)
    kept = getattr(model, "n_iter_", longest)
    if kept < longest:
        ax.axvline(kept, color="0.5", linestyle="--", label=f"kept: {what} {kept}")
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    ax.set_xlabel(what)
    ax.set_ylabel("loss" if what == "epoch" else "metric on the evaluation set")
    return ax


def plot_importance(model, kind="gain", *, top=20, feature_names=None, ax=None):
    """Bars of the ``top`` features. ``model`` is one with trees, of which ``kind`` names what
    :func:`importance` counts; or what :func:`permutation_importance` answered, whose deviations
    are drawn. Returns the axes."""
    spread = None
    if hasattr(model, "importances_mean"):
        sizes, spread = np.asarray(model.importances_mean), np.asarray(model.importances_std)
        label = "loss of score by permutation"
    else:
        sizes, label = importance(model, kind).numpy(), f"share of {kind}"
    names = names_of(model, feature_names, len(sizes))
    order = np.argsort(-sizes, kind="stable")[:top][::-1]
    ax = (
        ax
        or pyplot("plot_importance").subplots(
            figsize=(6, 1 + 0.28 * len(order)), layout="constrained"
        )[1]
    )
    ax.barh([names[i] for i in order], sizes[order], xerr=None if spread is None else spread[order])
    ax.set_xlabel(label)
    return ax


def plot_partial_dependence(
    model, X, features, *, kind="average", target=None, feature_names=None, axes=None, **options
):
    """A picture for each of ``features``: a line for a column, contours for a pair of columns.

    Args:
        model, X: as :func:`partial_dependence` takes them.
        features: a list of columns and pairs of columns.
        kind: "average", "individual": a line for each of up to 50 rows, or "both".
        target: which output of several is drawn, such as the place of a class; None: all, which
            contours cannot.
        axes: one for each of ``features``; None: a new figure.
        options: more of :func:`partial_dependence`.

    Returns:
        The list of axes.
    """
    if kind not in ("average", "individual", "both"):
        raise ValueError(f"kind must be 'average', 'individual' or 'both', got {kind!r}")
    if axes is None:
        _, axes = pyplot("plot_partial_dependence").subplots(
            1, len(features), figsize=(4 * len(features), 3.2), squeeze=False, layout="constrained"
        )
        axes = axes[0]
    axes = list(np.ravel(axes))
    if len(axes) != len(features):
        raise ValueError(f"axes must be {len(features)}, one for each of features, got {len(axes)}")
    names = names_of(model, feature_names, np.shape(X)[1])
    known = column_names(model, X)
    for ax, columns in zip(axes, features, strict=True):
        alone = isinstance(columns, (int, np.integer, str))
        columns = [position_of(c, known) for c in ([columns] if alone else columns)]
        found = partial_dependence(
            model, X, columns, individual=kind != "average" and len(columns) == 1, **options
        )
        if len(columns) == 1:
            _draw_line(ax, model, found, kind, target)
            _draw_deciles(ax, X, columns[0])
            ax.set_ylabel("partial dependence")
        elif len(columns) == 2:
            _draw_contours(ax, found, target)
            ax.set_ylabel(names[columns[1]])
        else:
            raise ValueError(f"a picture shows one or two features, got {columns}")
        ax.set_xlabel(names[columns[0]])
    return axes


def _draw_line(ax, model, found, kind, target):
    grid, outputs = found.grid[0].cpu(), len(found.average)
    labels = getattr(model, "classes_", range(outputs))
    for k in range(outputs) if target is None else (target,):
        color = f"C{k % 10}"
        if kind != "average":
            rows = found.individual[k].cpu()
            step = max(1, -(-len(rows) // DRAWN_ROWS))
            ax.plot(grid, rows[::step].T, color=color, linewidth=0.5, alpha=0.4)
        if kind != "individual":
            label = str(labels[k]) if outputs > 1 else None
            ax.plot(grid, found.average[k].cpu(), color=color, linewidth=2, label=label)
    if ax.get_legend_handles_labels()[1]:
        ax.legend()


def _draw_deciles(ax, X, column):
    values = np.asarray(as_array(X))[:, column].astype(np.float64)
    deciles = np.nanquantile(values, np.arange(0.1, 1, 0.1))
    ax.vlines(deciles, 0, 0.04, transform=ax.get_xaxis_transform(), color="0.3", linewidth=1)


def _draw_contours(ax, found, target):
    if target is None and len(found.average) > 1:
        raise ValueError(f"contours show one of {len(found.average)} outputs: give target=")
    first, second = (g.cpu() for g in found.grid)
    if min(len(first), len(second)) < 2:
        raise ValueError("contours need two values of each feature")
    surface = found.average[target or 0].T.cpu()  # (second, first)
    ax.figure.colorbar(ax.contourf(first, second, surface), ax=ax)
