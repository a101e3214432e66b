"""examples/compare_detectors.py: where a deformable layer samples, without training."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from tilewright.data import DigitScenes
from tilewright.models import FasterRCNN

sys.path.append(str(Path(__file__).parent.parent.parent / "examples"))
for name in ("tqdm", "matplotlib", "pycocotools", "sklearn"):
    pytest.importorskip(name, reason="the demo's requirements: pip install 'tilewright[demo]'")
sampling, recipe, training = (
    importlib.import_module(f"detector_demo.{name}") for name in ("sampling", "recipe", "training")
)
FULL, SMOKE, Trainer = recipe.FULL, recipe.SMOKE, training.Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_sampling_places(tmp_path):
    model = FasterRCNN(**FULL.model, deformable_stages=1).eval()
    scenes = DigitScenes("test", 128, 4, rotation=45, shear=0.4)
    places = sampling.sampling_places(model, scenes[0][0])
    height, width = places.shape[:2]
    assert places.shape == (height, width, 9, 2) and height == width == 128 // 32
    # Without training nothing moves: a grid of pixels of the last stage around each place.
    step = 32.0
    middle = places[1, 2]
    assert torch.equal(middle[4], torch.tensor([2 * step + 15.5, step + 15.5]))
    assert torch.equal(middle[5] - middle[4], torch.tensor([step, 0]))
    assert torch.equal(middle[7] - middle[4], torch.tensor([0, step]))
    with torch.no_grad():  # y and x of the middle tap
        sampling.last_deformable(model).conv_offset.bias[8:10] = torch.tensor([0.5, -0.25])
    moved = sampling.sampling_places(model, scenes[0][0])[1, 2]
    torch.testing.assert_close(moved[4] - middle[4], torch.tensor([-0.25 * step, 0.5 * step]))
    sampling.draw_sampling_places(tmp_path / "places.png", model, scenes)
    assert (tmp_path / "places.png").stat().st_size > 10_000


def test_a_model_that_is_not_deformable():
    with pytest.raises(ValueError, match="deformable_stages"):
        sampling.last_deformable(FasterRCNN(**FULL.model))


def test_layers_that_predict_offsets_learn_slower(tmp_path):
    recipe = dataclasses.replace(SMOKE, warmup=0)
    model = FasterRCNN(**FULL.model, deformable_stages=1)
    trainer = Trainer(model, recipe, tmp_path / "checkpoint.pt")
    trainer.run(until=1)
    *others, offsets = trainer.optimizer.param_groups
    assert {group["lr"] for group in others} == {recipe.learning_rate}
    assert offsets["lr"] == recipe.offset_rate * recipe.learning_rate
    named = dict(model.named_parameters())
    assert {id(p) for p in offsets["params"]} == {
        id(p) for name, p in named.items() if "conv_offset" in name
    }
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(named)
