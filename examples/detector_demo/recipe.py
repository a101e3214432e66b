"""Every number that decides how the demo's detector is built and trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from tilewright.data import CLASS_NAMES, DigitScenes

# Sides and shapes of digits that are 12 to 64 pixels tall: narrow, so a ratio (height / width)
# above 1. The coarse levels see nothing of that size; one anchor size there covers whole scenes.
_MODEL = {
    "num_classes": len(CLASS_NAMES),
    "min_size": 128,
    "max_size": 128,
    "fpn_channels": 64,
    "representation_size": 256,
    "anchor_sizes": [[10, 16], [24, 36], [52, 72], [90, 110], [128, 160]],
    "aspect_ratios": [1.0, 1.6],
    "rpn_pre_nms_top_n_train": 400,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_train": 128,
    "rpn_post_nms_top_n_test": 100,
    "rpn_batch_size_per_image": 128,
    "box_batch_size_per_image": 64,
    "box_positive_fraction": 0.5,
    "box_detections_per_img": 50,
}


@dataclass(frozen=True)
class Recipe:
    """Settings of one run.

    Attributes:
        steps: optimizer steps; the learning rate ends at 0 there.
        batch: scenes per step.
        scene_size: side of the square scenes, in pixels.
        crowd: fewest and most digits of a training scene; held-out ones have 1 to 8. A fuller
            scene costs the same and teaches more.
        rotation, shear: how far the digits of scenes are turned and sheared (`DigitScenes`).
        learning_rate: peak of the schedule (linear warm-up, then half a cosine), for AdamW.
        offset_rate: that of layers which predict offsets, as a share of the others'.
        warmup: steps of the warm-up.
        weight_decay: of every weight that is no bias and no batch norm's.
        max_norm: gradients with a larger 2-norm are scaled down to it.
        seed: of the weights, the scenes and the sampling of anchors and boxes.
        held_out: scenes of the evaluation.
        checkpoint_every: steps between two checkpoints.
        required_map50: the demo fails where mAP@.5 on held-out scenes is lower.
        model: keyword arguments of `tilewright.models.FasterRCNNCpp` and of its twin.
    """

    steps: int = 1100
    batch: int = 4
    scene_size: int = 128
    crowd: tuple[int, int] = (4, 8)
    rotation: float = 0.0
    shear: float = 0.0
    learning_rate: float = 5e-4
    offset_rate: float = 0.1
    warmup: int = 100
    weight_decay: float = 0.05
    max_norm: float = 10.0
    seed: int = 0
    held_out: int = 300
    checkpoint_every: int = 200
    required_map50: float = 0.85
    model: dict[str, Any] = field(default_factory=lambda: dict(_MODEL))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every label; label 0 is the background."""
        return CLASS_NAMES

    def training_scenes(self) -> Dataset:
        """One scene for each place of each batch: none is seen twice."""
        length = self.steps * self.batch
        return self._scenes("train", length, self.seed, digits=self.crowd)

    def held_out_scenes(self) -> Dataset:
        """Scenes whose digits the training never shows; the same for every seed of the training."""
        return self._scenes("test", self.held_out, seed=0)

    def _scenes(self, split: str, length: int, seed: int, **options: Any) -> Dataset:
        warp = {"rotation": self.rotation, "shear": self.shear}
        return DigitScenes(split, self.scene_size, length, seed, **warp, **options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and reports."""
        return dataclasses.asdict(self)


FULL = Recipe()

SMOKE = Recipe(steps=24, batch=2, warmup=4, held_out=8, checkpoint_every=4, required_map50=0.0)
"""Goes through every stage in seconds, to show that it works; it learns nothing."""
