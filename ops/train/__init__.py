"""Learning without labels: ``python -m tilewright train METHOD``, and the parts it is made of.

`recipe` says what a method has to bring, `methods` lists them. `probe` judges representations,
whoever made them; `trainer`, `checkpoint` and `interruption` serve any training.
"""

from .checkpoint import CheckpointError, write_whole
from .interruption import Interrupted
from .methods import METHODS, recipe_of
from .probe import embedding_map, knn_accuracy, linear_probe
from .recipe import Recipe, Result
from .trainer import Trainer

__all__ = [
    "METHODS",
    "CheckpointError",
    "Interrupted",
    "Recipe",
    "Result",
    "Trainer",
    "embedding_map",
    "knn_accuracy",
    "linear_probe",
    "recipe_of",
    "write_whole",
]
