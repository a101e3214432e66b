"""Packages that training needs and the operators do not: imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def required(module: str, purpose: str) -> ModuleType:
    """The module of that name.

    Raises:
        ImportError: where it is missing, with its `purpose` and what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"tilewright.train: {purpose}, and {module} cannot be imported ({error}); run "
            "`pip install matplotlib pillow scikit-learn tqdm`"
        ) from error
