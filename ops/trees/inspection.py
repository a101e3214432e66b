"""What a fitted model uses and how its answers depend on features, as tensors."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.stats.mstats import mquantiles
from sklearn.base import is_classifier
from sklearn.inspection import permutation_importance
from torch import Tensor

from tilewright.trees.inputs import dense_of, tensor_of
from tilewright.trees.tensors import as_array

__all__ = ["PartialDependence", "importance", "partial_dependence", "permutation_importance"]

KINDS = ("gain", "cover", "split")
BATCH_ROWS = 65536  # the most rows that one call of the model gets


def importance(model, kind="gain", *, normalize=True):
    """How much the trees of a fitted model use each feature: (n_features,) float64.

    Args:
        model: a fitted estimator with ``arrays_``, such as :class:`GradientBoostingRegressor`.
            :func:`permutation_importance`, which is scikit-learn's, takes any estimator.
        kind: "gain": what the feature's splits gained; "cover": the sum of hessians of the rows
            that they sent on; "split": how many they are.
        normalize: shares of the sum over all features, in place of the numbers themselves.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")
    if not hasattr(model, "arrays_"):
        raise ValueError(
            f"importance needs a fitted model with trees in arrays_, got {model!r}; "
            "permutation_importance takes any fitted estimator"
        )
    arrays = model.arrays_
    split = arrays["left"] >= 0
    features = arrays["feature"][split].long().cpu()
    worth = torch.ones(len(features)) if kind == "split" else arrays[kind][split].cpu()
    sums = torch.zeros(model.n_features_in_, dtype=torch.float64)
    sums.index_add_(0, features, worth.double())
    total = sums.sum()
    return sums / total if normalize and total > 0 else sums


class PartialDependence(NamedTuple):
    """What :func:`partial_dependence` answers, in float64."""

    average: Tensor
    """(outputs, G) for one feature, (outputs, G1, G2) for two: the mean over rows."""
    grid: list[Tensor]
    """The values of each feature: (G,)."""
    individual: Tensor | None
    """(outputs, n_samples, G...): the answers for each row, where they were asked for."""


def partial_dependence(
    model,
    X,
    features,
    *,
    response="prediction",
    individual=False,
    sample_weight=None,
    grid=None,
    grid_resolution=100,
    percentiles=(0.05, 0.95),
):
    """The mean answer of a model with some features set to each value of a grid (Friedman 2001).

    All rows with all values are answered in batches of up to 65,536 rows, so that trees go
    through ``predict_trees`` a few times in all and not once for each value. The numbers are
    those of ``sklearn.inspection.partial_dependence`` with ``method="brute"``.

    Args:
        model: any fitted estimator that takes X.
        X: (n_samples, n_features), a tensor, an array, a sparse table or a data frame of numbers
            and of the categories that the model knows, with NaN for missing where it takes it.
        features: the column, by its position or name, or several whose values are crossed.
        response: "prediction": what ``predict`` answers, of a classifier probabilities (of two
            classes that of the second); "score": raw scores, of a model of trees.
        individual: whether the answers for each row are kept too.
        sample_weight: (n_samples,) for the mean.
        grid: the values of each feature, (G,) each; None: all values that occur if they are fewer
            than ``grid_resolution`` or categories, else so many at equal distances between
            ``percentiles``.
    """
    names = column_names(model, X)
    coded = bool(getattr(model, "categories_", {})) and hasattr(X, "iloc")
    if coded:  # places of categories, which the model takes as a tensor
        X = torch.from_numpy(model._encoded(X, reset=False).to_numpy(dtype=np.float64))
    elif sparse.issparse(X):
        X = X.toarray()
    tensors = isinstance(X, Tensor)
    x = dense_of(X.detach()) if tensors else tensor_of(np.asarray(X))
    if x.dim() != 2 or x.numel() == 0:
        raise ValueError(
            f"X must have shape (n_samples, n_features) and not be empty, got {tuple(x.shape)}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    features = [position_of(f, names) for f in np.atleast_1d(features)]
    if not features:
        raise ValueError("features must name at least one column, got none")
    for f in features:
        if not 0 <= f < x.shape[1]:
            raise ValueError(f"features must lie in [0, {x.shape[1]}), got {f}")
    if grid is None:
        kinds = getattr(model, "category_counts_", {})
        grid = [_grid(x[:, f], f, grid_resolution, percentiles, f in kinds) for f in features]
    elif len(grid) != len(features):
        raise ValueError(f"grid must have values for {len(features)} features, got {len(grid)}")
    grid = [torch.as_tensor(values).to(x) for values in grid]
    answer = _response(model, response)
    if hasattr(X, "iloc"):  # the model may know its columns by name
        asked = answer

        def answer(x):
            return asked(type(X)(x, columns=X.columns))

    points = torch.cartesian_prod(*grid).reshape(-1, len(features))  # (G, features)
    weight = torch.ones(len(x)) if sample_weight is None else torch.as_tensor(sample_weight)
    if weight.shape != (len(x),):
        raise ValueError(f"sample_weight must have shape ({len(x)},), got {tuple(weight.shape)}")
    weight = weight.to(x.device, torch.float64)
    weight = weight / weight.sum()
    sums, kept = 0, []
    for part, share in zip(x.split(BATCH_ROWS), weight.split(BATCH_ROWS), strict=True):
        out = [  # (g, rows, outputs)
            _answers(answer, part, features, some, tensors)
            for some in points.split(max(1, BATCH_ROWS // len(part)))
        ]
        sums = sums + torch.cat([torch.einsum("gro,r->og", o.to(share), share) for o in out], 1)
        if individual:
            kept.append(torch.cat(out).permute(2, 1, 0).double())
    sizes = [len(values) for values in grid]
    rows = torch.cat(kept, 1).unflatten(2, sizes) if individual else None
    return PartialDependence(sums.unflatten(1, sizes), [g.double() for g in grid], rows)


def column_names(model, X):
    return [str(name) for name in getattr(X, "columns", getattr(model, "feature_names_in_", []))]


def position_of(feature, names):
    """Of a column by its position or name."""
    if not isinstance(feature, str):
        return int(feature)
    if feature not in names:
        raise ValueError(
            f"features must be positions or names of columns {names}, got {str(feature)!r}"
        )
    return names.index(feature)


def _answers(answer, rows, features, points, tensors):
    block = rows.expand(len(points), -1, -1).clone()  # (g, rows, F)
    block[:, :, features] = points[:, None, :]
    flat = block.flatten(0, 1)
    out = torch.as_tensor(answer(flat if tensors else as_array(flat)))
    return out.reshape(len(points), len(rows), -1)


def _response(model, response):
    """Features to answers, (n,) or (n, outputs)."""
    if response == "score":
        if not hasattr(model, "to_module"):
            raise ValueError(f"response='score' needs a model of trees, got {model!r}")
        module = model.to_module()
        return lambda x: module.scores(x if isinstance(x, Tensor) else tensor_of(np.asarray(x)))
    if response != "prediction":
        raise ValueError(f"response must be 'prediction' or 'score', got {response!r}")
    if not is_classifier(model):
        return model.predict

    def probabilities(x):
        out = model.predict_proba(x)
        return out[:, 1] if out.shape[1] == 2 else out

    return probabilities


def _grid(column, feature, resolution, percentiles, categories):
    if resolution < 2:
        raise ValueError(f"grid_resolution must be at least 2, got {resolution}")
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 1:
        raise ValueError(f"percentiles must be two increasing shares, got {percentiles}")
    present = column[~column.isnan()]
    if len(present) == 0:
        raise ValueError(f"all values of feature {feature} are missing: give its grid")
    values = present.unique()
    if len(values) < resolution or categories:  # between categories there is nothing
        return values
    low, high = mquantiles(present.double().cpu().numpy(), prob=percentiles)
    if np.isclose(low, high):
        raise ValueError(
            f"percentiles {percentiles} of feature {feature} are the same, {low}: they must be "
            "further apart"
        )
    return torch.from_numpy(np.linspace(low, high, resolution))
