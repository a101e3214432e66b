"""Constructors that add parameters to those of a base class, and options of drawing rows and trees
under the names that the C++ booster gives them."""

import inspect
import numbers
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


class ParameterError(ValueError, RuntimeError):
    """A parameter that the native library refuses: a ValueError, as scikit-learn's are, and what
    torch raises."""


@contextmanager
def checked_parameters():
    """Around the construction of a native model from options."""
    try:
        yield
    except RuntimeError as error:
        raise ParameterError(str(error)) from None


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
