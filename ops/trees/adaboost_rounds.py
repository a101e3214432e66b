"""The rounds of AdaBoost over any scikit-learn estimator; trees have theirs in C++."""

from warnings import warn

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state


def _estimators(model):
    """Endless unfitted copies, each with a random state of its own where it takes one."""
    random = check_random_state(model.random_state)
    while True:
        estimator = clone(model.estimator)
        states = [k for k in estimator.get_params() if k.split("__")[-1] == "random_state"]
        estimator.set_params(**{k: random.randint(2**31 - 1) for k in sorted(states)})
        yield estimator, random


def _limited(weights, absent):
    """Weights that must not vanish for being small."""
    weights = np.maximum(weights, np.finfo(np.float64).eps)
    weights[absent] = 0
    return weights


def _normalised(weights):
    """The weights as shares, or None where there is nothing to go on with."""
    total = weights.sum()
    if not np.isfinite(total):
        warn(
            "Sample weights have reached infinite values, causing overflow. Iterations stopped. "
            "Try lowering the learning rate.",
            stacklevel=6,
        )
        return None
    return weights / total if total > 0 else None


def _rounds(model, rows, weight, after, step):
    """Calls step(estimator, random, weights, kept, last), which answers with the estimator's weight
    and error and the rows' next weights, or None where the estimator is dropped."""
    weights = np.ones(rows) if weight is None else weight.copy()
    absent = weights == 0
    weights = weights / weights.sum()
    kept, found_weights, errors = [], [], []
    for done, (estimator, random) in enumerate(_estimators(model), start=1):
        weights = _limited(weights, absent)
        last = done == model.n_estimators
        found = step(estimator, random, weights, kept, last)
        if found is None:
            break
        kept.append(estimator)
        found_weights.append(found[0])
        errors.append(found[1])
        if after is not None:
            after(done)
        weights = _normalised(found[2])
        if last or found[1] == 0 or weights is None:
            break
    return kept, found_weights, errors


def boost_classes(model, x, y, weight, rate, after):
    """SAMME; y: codes of classes, all of which each estimator may meet or miss."""
    k = model.n_classes_

    def step(estimator, random, weights, kept, last):
        if model.resample:
            drawn = random.choice(len(y), len(y), p=weights / weights.sum())
            estimator.fit(x[drawn], y[drawn])
        else:
            estimator.fit(x, y, sample_weight=weights)
        wrong = estimator.predict(x) != y
        error = np.average(wrong, weights=weights)
        if error <= 0:
            return 1.0, 0.0, weights
        if error >= 1 - 1 / k:
            if not kept:
                raise ValueError(
                    "the first estimator of AdaBoost is worse than random, ensemble can not be fit."
                )
            return None
        own = rate * (np.log((1 - error) / error) + np.log(k - 1))
        return own, error, weights if last else weights * np.exp(own * wrong)

    return _rounds(model, len(y), weight, after, step)


def boost_values(model, x, y, weight, rate, after, loss):
    """AdaBoost.R2."""

    def step(estimator, random, weights, kept, last):
        drawn = random.choice(len(y), len(y), p=weights / weights.sum())
        estimator.fit(x[drawn], y[drawn])
        losses = np.abs(estimator.predict(x) - y)
        greatest = losses[weights > 0].max()
        if greatest > 0:
            losses = losses / greatest
        if loss == "square":
            losses = losses**2
        elif loss == "exponential":
            losses = 1 - np.exp(-losses)
        error = weights @ np.where(weights > 0, losses, 0)
        if error <= 0:
            return 1.0, 0.0, weights
        if error >= 0.5:
            return None if kept else (0.0, 1.0, np.zeros_like(weights))
        beta = error / (1 - error)
        own = rate * np.log(1 / beta)
        return own, error, weights if last else weights * beta ** ((1 - losses) * rate)

    return _rounds(model, len(y), weight, after, step)
