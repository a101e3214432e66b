"""Constructors that add parameters to those of a base class, and options of drawing rows and trees
under the names that the C++ booster gives them."""

import functools
import inspect
import math
import numbers
import re
from contextlib import contextmanager

from sklearn.utils import check_random_state


def with_parameters_of(base):
    """Decorates ``__init__(self, *, own=..., **shared)`` so that its signature, which scikit-learn
    and help() read, lists the parameters of ``base`` too."""

    def decorate(init):
        own = inspect.signature(init).parameters
        listed = [p for p in own.values() if p.kind is not p.VAR_KEYWORD]
        shared = inspect.signature(base.__init__).parameters
        listed += [p for name, p in shared.items() if name not in own]
        init.__signature__ = inspect.Signature(listed)
        return init

    return decorate


def seed_of(random_state):
    """A number as it is; a generator's next one, or any for None."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def unchanged_on_failure(fit):
    """Decorates a fit: what it sets before it fails is as before, a model of an earlier fit too."""

    @functools.wraps(fit)
    def restoring(self, *args, **kwargs):
        before = dict(self.__dict__)
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return restoring


class ParameterError(ValueError, RuntimeError):
    """What the native library refuses, parameters or data: a ValueError, as scikit-learn's are, and
    what torch raises."""


# The native library's names of parameters: the estimators'.
NAMES = {"max_leaves": "max_leaf_nodes", "objective_param": "alpha", "seed": "random_state"}


@contextmanager
def checked_parameters():
    """Around a native model's construction and fit; the errors of functions that the user gave
    pass."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not str(error).startswith("tilewright::"):
            raise
        pattern = rf"\b({'|'.join(NAMES)})\b"
        message = re.sub(pattern, lambda found: NAMES[found.group()], str(error))
        raise ParameterError(message) from None


def check_number(name, value, low, what):
    """None, or a finite number of at least ``low``."""
    if value is None:
        return
    if not isinstance(value, numbers.Real) or not low <= value < math.inf:
        raise ValueError(f"{name} must be None or {what}, got {value!r}")


def one_of(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}")
    return value


def drawing_options(estimator):
    """Of GOSS and DART."""
    kind = one_of("booster", estimator.booster, ("gbtree", "dart", "gblinear"))
    method = one_of("sampling_method", estimator.sampling_method, ("uniform", "goss"))
    normalize = one_of("normalize_type", estimator.normalize_type, ("tree", "forest"))
    sample = one_of("sample_type", estimator.sample_type, ("uniform", "weighted"))
    return {
        "goss": method == "goss",
        "top_rate": estimator.top_rate,
        "other_rate": estimator.other_rate,
        "dart": kind == "dart",
        "rate_drop": estimator.rate_drop,
        "skip_drop": estimator.skip_drop,
        "one_drop": bool(estimator.one_drop),
        "drop_forest": normalize == "forest",
        "drop_weighted": sample == "weighted",
    }
