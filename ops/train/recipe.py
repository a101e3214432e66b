"""What a method brings to be trained, judged and drawn by ``python -m tilewright train``.

A method NAME is a line in `methods.METHODS` and a file `recipe_NAME.py`, which is imported when it
is asked for. The file holds `RECIPE`, an instance of a frozen dataclass derived from

- `representation.RepresentationRecipe` for a method that learns representations. It writes

      def build(self, images: Tensor) -> nn.Module
      def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]

  and its model has ``represent(images) -> (N, F)``. The base makes the report (linear probe and
  nearest neighbours, trained beside untrained) and the map of representations.

- `density.DensityRecipe` for a generative model of binary images. It writes `build`, and its model
  has ``log_prob(x (N, D)) -> (N,)`` in nats and ``sample(n, given=None) -> (n, D)``, where
  `given` (n, d) fixes the first d values. The base has the loss, the report (log likelihood
  of the test images beside that of `DensityRecipe.baselines`) and the pictures.

Models are scriptable, and those methods exported (``torch.jit.export``), as the trained model is
written as TorchScript.

Numbers are the dataclass's fields, defaults overridden in the subclass; the command replaces
`steps`, `batch`, `seed` and `data`. `build` is called with torch's seed set and gets a batch of
prepared images, to read their sizes from. `losses` gets a batch of prepared images, never the
labels; their sum is minimised, and what it draws by torch's global generator is resumed
with the rest. `prepare` changes images before the model sees them, in training and after
(enlarging, say); augmentation belongs into `losses`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tilewright.data import LabelledImages

from .checkpoint import write_whole


@dataclass(frozen=True)
class Result:
    """What a trained model is worth.

    Attributes:
        values: for the report, plain values by name.
        columns: heads of the printed table.
        lines: its lines, as many texts each.
    """

    values: dict[str, Any]
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def table(self) -> str:
        """The lines under their heads, columns aligned."""
        rows = (self.columns, *self.lines)
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


@dataclass(frozen=True)
class Recipe(ABC):
    """Settings of one run, and what the method does with them.

    Attributes:
        steps: optimizer steps; the learning rate ends at 0 there.
        batch: images per step.
        learning_rate: peak of the schedule (linear warm-up, then half a cosine), for AdamW.
        warmup: steps of the warm-up.
        weight_decay: of every weight that is no bias and no batch norm's.
        max_norm: gradients with a larger 2-norm are scaled down to it.
        checkpoint_every: steps between two checkpoints.
        seed: of weights, order of images and augmentation.
        data: which images, in words, for checkpoints.
        images: how many there are to train on, which the command fills in; 0: not known yet.
    """

    binary: ClassVar[bool] = False
    """Whether images must be grey, and are made of zeros and ones."""

    pictures: ClassVar[tuple[str, ...]] = ()
    """The files that `draw` writes."""

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 1e-4
    max_norm: float = 10.0
    checkpoint_every: int = 200
    seed: int = 0
    data: str = ""
    images: int = 0

    def prepare(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [0, 1] as the reader has them, to what the model takes."""
        return images

    @abstractmethod
    def build(self, images: Tensor) -> nn.Module:
        """The model before training, for images like these few prepared ones."""

    @abstractmethod
    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """The losses of a batch of prepared images, whose sum is minimised; {"loss": one number}
        where there is but one."""

    @torch.no_grad()
    def settle(self, model: nn.Module, train: LabelledImages) -> None:
        """Makes a model, trained or not, ready to be judged: evaluation mode; a subclass measures
        on training images what it keeps of images besides its weights."""
        model.eval()

    @abstractmethod
    def evaluate(
        self, model: nn.Module, untrained: nn.Module, train: LabelledImages, test: LabelledImages
    ) -> Result:
        """Judges the model, in evaluation mode, beside itself before training."""

    @abstractmethod
    def draw(
        self, folder: Path, model: nn.Module, untrained: nn.Module, test: LabelledImages
    ) -> None:
        """Writes the method's `pictures` into `folder`."""

    def export(self, path: Path, model: nn.Module) -> None:
        """Writes the trained model as TorchScript, for C++ and for later."""
        scripted = torch.jit.script(model)
        write_whole(path, lambda temporary: scripted.save(str(temporary)))

    def initial(self, images: Tensor) -> nn.Module:
        """The model of this seed before training, the same whenever it is asked for; torch's random
        numbers then follow from the seed."""
        torch.manual_seed(self.seed)
        return self.build(images)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and reports."""
        return {
            "method": type(self).__name__.removesuffix("Recipe").lower(),
            **dataclasses.asdict(self),
        }
