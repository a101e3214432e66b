"""Training that survives an interruption: schedule, checkpoints, resuming, the progress bar."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from tilewright.data import collate

from .recipe import Recipe

_FORMAT = 1  # of the checkpoint; raised when its keys change
_RECENT = 20  # steps whose mean the bar shows


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, unreadable or of another recipe."""


class Interrupted(RuntimeError):
    """Ctrl-C came; the checkpoint holds everything up to `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


class Trainer:
    """The state of one training run, and the loop over it.

    Args:
        model: a detector whose call returns (losses, detections), such as
            `tilewright.models.FasterRCNNCpp`; its convolutions become channels-last.
        recipe: what to do.
        checkpoint: file that holds the state, written whole or not at all.

    Attributes:
        step: optimizer steps done.
        losses: for each step, its losses by name.
        seconds: time spent in training, earlier runs included.
    """

    def __init__(self, model: Any, recipe: Recipe, checkpoint: Path) -> None:
        self.model = model
        self.recipe = recipe
        self.checkpoint = checkpoint
        named = dict(model.named_parameters())
        self.parameters = list(named.values())
        for parameter in self.parameters:
            if parameter.ndim == 4:  # convolutions are faster so, on the CPU and on GPUs
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        # AdamW moves every weight by as much: layers that predict offsets, sums over hundreds of
        # channels, would soon read beyond the map.
        offsets = [p for name, p in named.items() if "offset" in name]
        others = [p for name, p in named.items() if "offset" not in name]
        groups = [
            {"params": [p for p in others if p.ndim > 1]},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if offsets:
            groups.append({"params": offsets})
        self.factors = [1.0, 1.0, recipe.offset_rate]  # of the learning rate, by group
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.step = 0
        self.losses: list[dict[str, float]] = []
        self.seconds = 0.0

    def learning_rate(self, step: int) -> float:
        """The rate of `step`, a function of it alone, so that resuming continues the schedule."""
        warm = min(1.0, (step + 1) / max(self.recipe.warmup, 1))
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.recipe.steps))
        return self.recipe.learning_rate * warm * cosine

    def run(self, until: int | None = None) -> None:
        """Trains up to step `until` (default: the recipe's last) and writes the checkpoint.

        Raises:
            Interrupted: on Ctrl-C, after the running step and the checkpoint. A second Ctrl-C
                ends at once and leaves the checkpoint before.
            FloatingPointError: when a loss is not finite.
        """
        until = self.recipe.steps if until is None else min(until, self.recipe.steps)
        scenes = self.recipe.training_scenes()
        batch = self.recipe.batch
        elapsed: deque[float] = deque(maxlen=_RECENT)
        self.model.train()
        with _CtrlC() as ctrl_c, _progress(self.step, self.recipe.steps) as bar:
            while self.step < until and not ctrl_c.seen:
                began = time.perf_counter()
                first = self.step * batch
                images, targets = collate([scenes[first + i] for i in range(batch)])
                self.losses.append(self._update(images, targets))
                self.step += 1
                elapsed.append(time.perf_counter() - began)
                self.seconds += elapsed[-1]
                rate = batch * len(elapsed) / sum(elapsed)
                bar.set_postfix(_brief(self.losses[-_RECENT:], rate), refresh=False)
                bar.update()
                if self.step % self.recipe.checkpoint_every == 0:
                    self.save()
        self.save()
        if ctrl_c.seen:
            raise Interrupted(self.step)

    def _update(
        self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]
    ) -> dict[str, float]:
        """One step of the optimizer; returns the losses before it."""
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=False):
            group["lr"] = self.learning_rate(self.step) * factor
        losses, _ = self.model(images, targets)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"the loss is {total.item()} at step {self.step}; the last checkpoint is "
                f"{self.checkpoint}"
            )
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.max_norm)
        self.optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    def save(self) -> None:
        """Writes the checkpoint: to a file beside it, which then takes its name."""
        state = {
            "format": _FORMAT,
            "recipe": self.recipe.as_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        write_whole(self.checkpoint, lambda path: torch.save(state, path))

    def resume(self) -> None:
        """Goes back to the state that the checkpoint holds, random numbers included.

        Raises:
            CheckpointError: where it is missing, unreadable, or of another recipe.
        """
        state = _load(self.checkpoint)
        wanted = self.recipe.as_dict()
        try:
            differ = _differences(state["recipe"], wanted)
            if differ:
                raise CheckpointError(
                    f"{self.checkpoint} was trained with other settings ({'; '.join(differ)}): "
                    "give those again beside --resume, or start without it"
                )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            self.seconds = state["seconds"]
            self.losses = state["losses"]
            torch.set_rng_state(state["rng"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{self.checkpoint} is damaged ({type(error).__name__}: {str(error)[:200]}); start "
                "without --resume"
            ) from error


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary name and renames: `path` is never seen half written."""
    temporary = path.with_name(path.name + ".partial")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _load(path: Path) -> dict[str, Any]:
    """The checkpoint as written by `Trainer.save`; CheckpointError where it cannot be had."""
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}; start without --resume")
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises what its reader happens to meet
        reason = type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason}); start without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this program; start without --resume")
    return state


def _differences(was: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings that are not the same, each as it was and as it is."""
    found = []
    for name in {**now, **was}:
        old, new = was.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {_told(old)}, and is {_told(new)} now")
    return found


def _told(value: Any) -> str:
    return "not set" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


class _CtrlC:
    """While entered, the first Ctrl-C is noted in `seen`; the second works as usual."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> _CtrlC:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _progress(done: int, steps: int) -> tqdm:
    """The bar; in a log file, where lines pile up, a line every half minute."""
    pause = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=steps,
        initial=done,
        desc="training",
        unit="step",
        mininterval=pause,
        maxinterval=max(pause, 10.0),
        dynamic_ncols=True,
    )


def _brief(recent: list[dict[str, float]], rate: float) -> dict[str, str]:
    """What the bar shows beside the steps: means of the `recent` losses, images per second."""
    short = {
        "loss_classifier": "class",
        "loss_box_reg": "box",
        "loss_objectness": "rpn",
        "loss_rpn_box_reg": "rpn box",
    }
    means = {name: sum(step[name] for step in recent) / len(recent) for name in recent[0]}
    shown = {short.get(name, name): f"{value:.3f}" for name, value in means.items()}
    return {"loss": f"{sum(means.values()):.3f}", **shown, "img/s": f"{rate:.1f}"}
