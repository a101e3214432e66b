"""The methods of ``python -m tilewright train``.

To add one: a line here, and a file `recipe_NAME.py` with a `RECIPE` (see `recipe.py`).
"""

import importlib

from .recipe import Recipe

METHODS = {
    "simclr": "SimCLR: two views of an image among the views of all",
    "cpc": "contrastive predictive coding: patches further down, from those above",
    "dim": "Deep InfoMax: an image's vector against the places of all images",
    "rotation": "by how many quarter turns an image was turned",
    "jigsaw": "in which order the patches of an image were laid",
    "nade": "NADE: binary images, pixel by pixel, by shared hidden layers",
    "made": "MADE: binary images, pixel by pixel, by a masked autoencoder",
    "fvsbn": "FVSBN: binary images, pixel by pixel, by logistic regressions",
}
"""Names, and what each method learns to tell."""


def recipe_of(method: str) -> Recipe:
    """The recipe of a method as its file has it; ValueError for another name."""
    if method not in METHODS:
        raise ValueError(
            f"tilewright.train: method must be one of {', '.join(METHODS)}, got {method!r}"
        )
    return importlib.import_module(f"tilewright.train.recipe_{method}").RECIPE
