"""The demo's training: a detector's losses of scenes, and tilewright.train around them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import Dataset

from tilewright.data import collate
from tilewright.train import trainer
from tilewright.train.checkpoint import CheckpointError, write_whole
from tilewright.train.interruption import Interrupted

from .recipe import Recipe

__all__ = ["CheckpointError", "Interrupted", "Trainer", "write_whole"]


class Trainer(trainer.Trainer):
    """The state of one training run, and the loop over it.

    Args:
        model: a detector whose call returns (losses, detections), such as
            `tilewright.models.FasterRCNNCpp`; its convolutions become channels-last.
        recipe: what to do.
        checkpoint: file that holds the state, written whole or not at all.
    """

    short_names: ClassVar[Mapping[str, str]] = {
        "loss_classifier": "class",
        "loss_box_reg": "box",
        "loss_objectness": "rpn",
        "loss_rpn_box_reg": "rpn box",
    }

    def __init__(self, model: Any, recipe: Recipe, checkpoint: Path) -> None:
        for _, parameter in model.named_parameters():
            if parameter.ndim == 4:  # convolutions are faster so, on the CPU and on GPUs
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        # AdamW moves every weight by as much: layers that predict offsets, sums over hundreds of
        # channels, would soon read beyond the map.
        super().__init__(model, recipe, checkpoint, slower={"offset": recipe.offset_rate})

    @functools.cached_property
    def _scenes(self) -> Dataset:
        return self.recipe.training_scenes()

    def step_losses(self, step: int) -> dict[str, torch.Tensor]:
        first = step * self.recipe.batch
        images, targets = collate([self._scenes[first + i] for i in range(self.recipe.batch)])
        return self.model(images, targets)[0]
