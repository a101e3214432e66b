"""What all generative models of binary images share: their loss, how they are judged and drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from tilewright.data import LabelledImages
from tilewright.models import BernoulliMixture, FactorisedBernoulli

from .pictures import draw_images
from .recipe import Recipe, Result

_CHUNK = 256  # images whose likelihood is computed at a time
_SHOWN = 12  # images of a row of a picture


def factorised_bernoulli(train: Tensor, test: Tensor) -> float:
    """Mean log likelihood, in nats, of `test` (M, D) under independent pixels, fitted to `train`
    (N, D)."""
    return _fitted(FactorisedBernoulli(train.shape[1]), train, test)


def bernoulli_mixture(train: Tensor, test: Tensor) -> float:
    """The same under a mixture of them, of 10, 30 or 100 components: as many as suit a fifth of the
    training images best, after a fit to the others."""
    held_out = torch.arange(len(train)) % 5 == 0
    found = {
        k: _fitted(BernoulliMixture(train.shape[1], k), train[~held_out], train[held_out])
        for k in (10, 30, 100)
    }
    return _fitted(BernoulliMixture(train.shape[1], max(found, key=found.get)), train, test)


def _fitted(model: BernoulliMixture, train: Tensor, test: Tensor) -> float:
    model.double().fit(train)
    return float(model.log_prob(test).mean())


@dataclass(frozen=True)
class DensityRecipe(Recipe):
    """A generative model of pixels that are 0 or 1, in the order of reading.

    Its model has ``log_prob(x (N, D)) -> (N,)``, in nats, exact, and ``sample(n, given=None) ->
    (n, D)``, where `given` (n, d) are the first d pixels; torch's random numbers serve it.
    """

    binary: ClassVar[bool] = True
    pictures: ClassVar[tuple[str, ...]] = ("samples.png", "completions.png")

    baselines: ClassVar[dict[str, Callable[[Tensor, Tensor], float]]] = {
        "mixture of Bernoullis": bernoulli_mixture,
        "factorised Bernoulli": factorised_bernoulli,
    }
    """What the model is compared with: functions of training and test pixels, (N, D) and (M, D), to
    the mean log likelihood of the latter."""

    def losses(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """The mean negative log likelihood, in nats."""
        return {"loss": -model.log_prob(images.flatten(1)).mean()}

    def evaluate(
        self, model: nn.Module, untrained: nn.Module, train: LabelledImages, test: LabelledImages
    ) -> Result:
        pixels = [self.prepare(data.floats()).flatten(1) for data in (train, test)]
        values = {"trained": self.log_likelihood(model, pixels[1])}
        values |= {name: fitted(*pixels) for name, fitted in self.baselines.items()}
        values["untrained"] = self.log_likelihood(untrained, pixels[1])
        lines = tuple((name, f"{value:.2f}") for name, value in values.items())
        head = (f"log likelihood of {len(test)} test images", "nats")
        return Result(
            {"log_likelihood": values, "images": {"train": len(train), "test": len(test)}},
            head,
            lines,
        )

    @torch.no_grad()
    def log_likelihood(self, model: nn.Module, pixels: Tensor) -> float:
        """The mean over images (N, D), in nats."""
        model.eval()
        return float(torch.cat([model.log_prob(x).double() for x in pixels.split(_CHUNK)]).mean())

    @torch.no_grad()
    def draw(
        self, folder: Path, model: nn.Module, untrained: nn.Module, test: LabelledImages
    ) -> None:
        """Samples beside test images; and test images whose lower half the model makes up."""
        model.eval()
        torch.manual_seed(self.seed)
        images = self.prepare(test.floats(torch.arange(min(_SHOWN, len(test)))))
        shape, count = images.shape, len(images)
        rows = {"test images": images}
        rows |= {f"samples {i + 1}": model.sample(count).reshape(shape) for i in range(3)}
        draw_images(folder / "samples.png", rows)
        upper = shape[2] // 2  # of one channel: the first rows are the first pixels
        given = images[:, :, :upper].flatten(1)
        unknown = torch.full_like(images[:, :, upper:], 0.5)
        rows = {"test images": images, "given": torch.cat([images[:, :, :upper], unknown], 2)}
        rows |= {f"completed {i + 1}": model.sample(count, given).reshape(shape) for i in range(3)}
        draw_images(folder / "completions.png", rows)
