"""What all methods that learn representations share: how they are judged and drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from tilewright.augmentations import random_affine
from tilewright.data import LabelledImages

from .pictures import draw_map
from .probe import embedding_map, knn_accuracy, linear_probe
from .recipe import Recipe, Result

_CHUNK = 256  # images that are represented at a time
_SETTLING = 4096  # that batch norm's statistics are measured on, at most


@dataclass(frozen=True)
class RepresentationRecipe(Recipe):
    """A method whose model has ``represent(images) -> (N, F)``.

    Attributes:
        few: labels per class of the probe with few labels; the mean of five choices of them.
        neighbours: that vote.
        probed: at most so many images of each split are represented for probes; a choice of them
            that is always the same where there are more.
        mapped: at most so many of the test images are in the picture.
        map_method: "tsne" or "pca".
    """

    pictures: ClassVar[tuple[str, ...]] = ("representations.png",)

    few: int = 10
    neighbours: int = 5
    probed: int = 10_000
    mapped: int = 1000
    map_method: str = "tsne"

    @torch.no_grad()
    def settle(self, model: nn.Module, train: LabelledImages) -> None:
        """Measures the statistics of batch norm anew, on images as they are represented.

        Those of the training are of what a task shows, turned images or patches; and those that an
        untrained model begins with are of nothing, which would make it look worse than it is.
        """
        model.eval()
        norms = [m for m in model.modules() if hasattr(m, "running_mean")]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
        rows = some_rows(len(train), _SETTLING)
        for i, some in enumerate(rows.split(_CHUNK)):
            for norm in norms:
                norm.momentum = 1.0 / (i + 1)  # the plain mean of all batches
            model.represent(self.prepare(train.floats(some)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()

    def evaluate(
        self, model: nn.Module, untrained: nn.Module, train: LabelledImages, test: LabelledImages
    ) -> Result:
        train_rows, test_rows = (some_rows(len(data), self.probed) for data in (train, test))
        labels = train.labels[train_rows], test.labels[test_rows]
        sizes = {"train": len(train_rows), "test": len(test_rows)}
        if len(labels[0].unique()) < 2:
            reason = "not judged: the training images are of one class"
            return Result({"images": sizes, "reason": reason}, (reason,), ())
        found: dict[str, dict[str, float]] = {}
        for name, judged in (("trained", model), ("untrained", untrained)):
            x = self.represented(judged, train, train_rows)
            y = self.represented(judged, test, test_rows)
            data = (x, labels[0], y, labels[1])
            found[name] = {
                "few": linear_probe(*data, per_class=self.few),
                "all": linear_probe(*data),
                "neighbours": knn_accuracy(*data, k=min(self.neighbours, len(x))),
            }
        kinds = {
            "few": f"linear probe, {self.few} labels per class",
            "all": f"linear probe, {len(train_rows)} labels",
            "neighbours": f"{self.neighbours} nearest neighbours",
        }
        lines = tuple(
            (text, *(f"{one[key]:.3f}" for one in found.values())) for key, text in kinds.items()
        )
        columns = (f"accuracy on {len(test_rows)} test images", *found)
        return Result({**found, "images": sizes}, columns, lines)

    def draw(
        self, folder: Path, model: nn.Module, untrained: nn.Module, test: LabelledImages
    ) -> None:
        rows = some_rows(len(test), self.mapped)
        if len(rows) < 3:
            return  # too few for a map
        maps = {
            name: embedding_map(self.represented(one, test, rows), self.map_method)
            for name, one in (("untrained", untrained), ("trained", model))
        }
        draw_map(folder / "representations.png", maps, test.labels[rows], test.class_names)

    @torch.no_grad()
    def represented(self, model: nn.Module, data: LabelledImages, rows: Tensor) -> Tensor:
        """Representations (len(rows), F) of some of the images, in evaluation mode."""
        model.eval()
        found = []
        for some in rows.tensor_split(math.ceil(len(rows) / _CHUNK)):  # of equal sizes
            found.append(model.represent(self.prepare(data.floats(some))))
        return torch.cat(found)


def some_rows(count: int, most: int) -> Tensor:
    """All of `count` rows in order, or a choice of `most` that is always the same."""
    if count <= most:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(count, generator=generator)[:most].sort().values


def depth_for(images: Tensor) -> int:
    """Layers of a ConvEncoder for images of that size: its last map has 2 to 4 places a side."""
    side = min(images.shape[2:])
    return 3 if side <= 16 else 4


def moved_a_little(images: Tensor, degrees: float) -> Tensor:
    """Each image turned by up to so many degrees, moved and scaled a little."""
    return random_affine(images, degrees, translate=0.05, zoom=[0.87, 1.15])
