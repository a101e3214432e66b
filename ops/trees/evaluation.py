"""Evaluation sets and metrics of boosting, as the C++ booster takes them, and their history."""

import numpy as np
import torch


def evaluation_sets(eval_set):
    """``eval_set`` of fit as a list of (X, y, weights or None): a tuple is one set, a list some."""
    if eval_set is None:
        return []
    listed = [eval_set] if isinstance(eval_set, tuple) else list(eval_set)
    for i, one in enumerate(listed):
        if not isinstance(one, (tuple, list)) or len(one) not in (2, 3):
            raise ValueError(
                "eval_set must be a tuple (X, y) or (X, y, sample_weight), or a list of such; "
                f"its part {i} is a {type(one).__name__}"
            )
    return [(*one, None)[:3] for one in listed]


def metrics_of(eval_metric, greater_is_better, integer_labels):
    """``eval_metric`` as a list of names and (name, function of tensors, greater is better)."""
    if eval_metric is None:
        return []
    listed = eval_metric if isinstance(eval_metric, (list, tuple)) else [eval_metric]
    names = []
    for one in listed:
        name, again = _name(one), 1
        if isinstance(one, str) and name in names:
            raise ValueError(f"eval_metric must not name a metric twice, got {name!r} again")
        while name in names:  # functions may share a name, such as <lambda>
            again += 1
            name = f"{_name(one)}_{again}"
        names.append(name)
    return [
        one
        if isinstance(one, str)
        else (name, _on_arrays(one, integer_labels), bool(greater_is_better))
        for name, one in zip(names, listed, strict=True)
    ]


def _name(metric):
    if isinstance(metric, str):
        return metric
    if not callable(metric):
        raise ValueError(f"eval_metric must be names or functions, got {metric!r}")
    return getattr(metric, "__name__", type(metric).__name__)


def returning_tensors(loss):
    """A loss function that says so where ``loss`` answers with anything but a tensor."""

    def checked(scores, y):
        losses = loss(scores, y)
        if not isinstance(losses, torch.Tensor):
            raise TypeError(
                f"loss must return a tensor of each row's loss, {tuple(y.shape)}, got a "
                f"{type(losses).__name__}"
            )
        return losses

    return checked


def _on_arrays(function, integer_labels):
    def measure(labels: torch.Tensor, predictions: torch.Tensor) -> float:
        y = labels.cpu().numpy().astype(np.int64 if integer_labels else np.float64)
        found = function(y, predictions.cpu().numpy().astype(np.float64))
        try:
            return float(found)
        except (TypeError, ValueError):
            raise TypeError(
                f"eval_metric {_name(function)} must return a number, got {found!r}"
            ) from None

    return measure


def history_of(booster, before=None):
    """[{metric: values by round}] of each evaluation set; goes on with ``before`` where that has
    the same sets and metrics."""
    found = [dict(zip(booster.metric_names, values, strict=True)) for values in booster.history]
    if before is None or [list(s) for s in before] != [list(s) for s in found]:
        return found
    return [
        {name: old[name] + new[name] for name in new}
        for old, new in zip(before, found, strict=True)
    ]
