"""What recipes are made of: images as a method wants them, generative models, augmentation."""

import dataclasses
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data_labelled import folder
from test_data_mnist import mnist
from torch import nn

from tilewright.data import DataError, LabelledImages, load_digits_images
from tilewright.train import recipe_of
from tilewright.train.command import ImageTrainer, train_and_judge
from tilewright.train.density import DensityRecipe, factorised_bernoulli
from tilewright.train.sources import open_images

pytestmark = pytest.mark.usefixtures("one_thread")
for name in ("tqdm", "matplotlib", "sklearn"):
    pytest.importorskip(name, reason="pip install 'tilewright[train]'")


def test_binary_images(tmp_path):
    mnist(tmp_path, 12, 5)
    train, test, told = open_images("mnist", tmp_path, 0, True)
    assert set(train.images.unique().tolist()) == {0.0, 1.0}
    assert train.labels.tolist() == [*range(10), 0, 1]
    assert told.endswith("1 x 28 x 28, binary: 12 to train, 5 to test")
    for name, rows in (("train", 4), ("test", 2)):
        lines = "".join(" ".join("01" * 392) + "\n" for _ in range(rows))
        (tmp_path / f"binarized_mnist_{name}.amat").write_text(lines)
    train, test, _ = open_images("mnist", tmp_path, 0, True)
    assert train.images.shape == (4, 1, 28, 28) and len(test) == 2, "the fixed binarisation"
    assert train.images[0].flatten().tolist() == [0.0, 1.0] * 392
    with pytest.raises(DataError, match=r"needs grey ones .* and cifar10 has three colours"):
        open_images("cifar10", tmp_path, 0, True)
    folder(tmp_path / "f", {"a": 8, "b": 4})
    assert open_images("folder", tmp_path / "f", 6, True)[0].images.shape == (9, 1, 6, 6)


class Independent(nn.Module):
    """A generative model as simple as they come: each pixel by itself."""

    def __init__(self, pixels: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(pixels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.log_prob(x)

    @torch.jit.export
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        signed = (2.0 * x - 1.0) * self.logits
        return nn.functional.logsigmoid(signed).sum(dim=1)

    @torch.jit.export
    def sample(self, n: int, given: torch.Tensor | None = None) -> torch.Tensor:
        drawn = (torch.rand(n, len(self.logits)) < torch.sigmoid(self.logits)).float()
        if given is not None:
            drawn[:, : given.size(1)] = given
        return drawn


@dataclasses.dataclass(frozen=True)
class IndependentRecipe(DensityRecipe):
    steps: int = 400
    learning_rate: float = 0.1

    def build(self, images):
        return Independent(images[0].numel())


def test_generative_models_fit_in(tmp_path):
    """The likelihood of independent pixels is known: the trained model must come to it."""
    train, test = (load_digits_images(split, binarised=True) for split in ("train", "test"))
    report = train_and_judge(IndependentRecipe(), "independent", train, test, tmp_path)
    found = report["result"]["log_likelihood"]
    assert found["untrained"] == pytest.approx(64 * np.log(0.5))
    assert found["trained"] == pytest.approx(found["factorised Bernoulli"], abs=0.3)
    assert found["trained"] > found["untrained"] + 5
    for name in ("samples.png", "completions.png", "losses.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    model = torch.jit.load(tmp_path / "model.pt")
    assert model.sample(3, torch.ones(3, 5))[:, :5].min() == 1


def test_fvsbn_weighs_its_prior_by_the_number_of_images():
    """Summed over a round, what is minimised is the negative log likelihood and the prior's."""
    x = torch.randint(2, (7, 1, 2, 2)).float()
    recipe = recipe_of("fvsbn")
    model = recipe.initial(x)
    torch.nn.init.normal_(model.linear.weight)
    losses = dataclasses.replace(recipe, images=7).losses(model, x)
    weights = torch.distributions.Normal(0.0, 1.6**-0.5)
    of_zeros = weights.log_prob(torch.zeros(()))
    prior = (of_zeros - weights.log_prob(model.linear.weight)).sum()
    torch.testing.assert_close(losses["prior"] * 7, prior)
    torch.testing.assert_close(losses["loss"] * 7, -model.log_prob(x.flatten(1)).sum())
    with pytest.raises(ValueError, match="prior needs `images`"):
        recipe.losses(model, x)


def test_factorised_bernoulli():
    train = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    shares = torch.tensor([3 / 5, 1 / 5])
    expected = torch.distributions.Bernoulli(shares).log_prob(train).sum(1).mean()
    assert factorised_bernoulli(train, train) == pytest.approx(expected.item())


def test_batch_norm_settles_on_images_as_they_are_represented():
    recipe = dataclasses.replace(recipe_of("rotation"), width=4)
    data = load_digits_images("test")
    data = LabelledImages(data.images[:200], data.labels[:200], data.class_names)
    model = recipe.initial(data.images[:2])
    norm = model.encoder.blocks[0].bn
    norm.running_mean.fill_(7.0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):  # what was there before does not matter
        recipe.settle(model, data)
        maps = model.encoder.blocks[0].conv(data.images)
        torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)))
    assert norm.momentum == 0.1 and not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_representations_are_learnt(tmp_path):
    """A short training gives Deep InfoMax what random convolutions have not."""
    recipe = dataclasses.replace(recipe_of("dim"), steps=120, warmup=10, width=16)
    train, test = (load_digits_images(split) for split in ("train", "test"))
    few = train.images[:2]
    trainer = ImageTrainer(recipe.initial(few), recipe, tmp_path / "checkpoint.pt", train)
    trainer.run()
    untrained = recipe.initial(few)
    for model in (trainer.model, untrained):
        recipe.settle(model, train)
    found = recipe.evaluate(trainer.model, untrained, train, test).values
    for measure in ("few", "all"):
        assert found["trained"][measure] > found["untrained"][measure] + 0.02, found


def test_the_recipe_of_the_page_runs_as_written(tmp_path):
    page = Path(__file__).parent.parent.parent / "docs" / "pretraining.md"
    written = re.search(r"## Adding a method.*?```python\n(.*?)```", page.read_text(), re.S).group(
        1
    )
    (tmp_path / "recipe_own.py").write_text(written)
    recipe = runpy.run_path(str(tmp_path / "recipe_own.py"))["RECIPE"]
    x = torch.rand(4, 1, 8, 8)
    model = recipe.build(x)
    recipe.losses(model, x)["loss"].backward()
    assert model.represent(x).shape[0] == 4
