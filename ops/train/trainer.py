"""Training that survives an interruption: schedule, checkpoints, resuming, the progress bar."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .checkpoint import (
    CheckpointError,
    check_no_folder,
    differences,
    load_checkpoint,
    write_whole,
)
from .interruption import CtrlC, Interrupted
from .optional import required

_FORMAT = 2  # of the checkpoint; raised when its keys change
_RECENT = 20  # steps whose mean the bar shows


class Trainer:
    """The state of one training run, and the loop over it; a subclass gives a step's losses.

    Args:
        model: what is trained; has `named_parameters`, `train`, `state_dict`, `load_state_dict`.
        recipe: an object with the numbers `steps`, `batch`, `learning_rate`, `warmup`,
            `weight_decay`, `max_norm` and `checkpoint_every`, and `as_dict()`: plain values, which
            a checkpoint must share to be resumed from.
        checkpoint: file that holds the state, written whole or not at all.
        slower: parts of names of parameters that learn at a share of the rate, as another layer's
            do not: {"offset": 0.1}.

    Attributes:
        step: optimizer steps done.
        losses: for each step, its losses by name.
        seconds: time spent in training, earlier runs included.
    """

    short_names: ClassVar[Mapping[str, str]] = {}
    """Losses whose name the progress bar shortens."""

    def __init__(
        self, model: Any, recipe: Any, checkpoint: Path, slower: Mapping[str, float] | None = None
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.checkpoint = checkpoint
        check_no_folder(checkpoint)
        slower = slower or {}
        named = dict(model.named_parameters())
        self.parameters = list(named.values())
        special = {part: [p for name, p in named.items() if part in name] for part in slower}
        taken = {id(p) for group in special.values() for p in group}
        others = [p for p in self.parameters if id(p) not in taken]
        groups = [
            {"params": [p for p in others if p.ndim > 1]},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.factors = [1.0, 1.0]  # of the learning rate, by group
        for part, group in special.items():
            if group:
                groups.append({"params": group})
                self.factors.append(slower[part])
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.step = 0
        self.saved = False  # whether the checkpoint is of this run
        self.losses: list[dict[str, float]] = []
        self.seconds = 0.0

    def step_losses(self, step: int) -> dict[str, Tensor]:
        """The losses of step `step`, whose sum is minimised; with torch's random numbers they must
        depend on the step and the model alone."""
        raise NotImplementedError

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
        elapsed: deque[float] = deque(maxlen=_RECENT)
        self.model.train()
        with CtrlC() as ctrl_c, progress_bar(self.step, self.recipe.steps) as bar:
            while self.step < until and not ctrl_c.seen:
                began = time.perf_counter()
                self.losses.append(self._update())
                self.step += 1
                elapsed.append(time.perf_counter() - began)
                self.seconds += elapsed[-1]
                rate = self.recipe.batch * len(elapsed) / sum(elapsed)
                bar.set_postfix(self._brief(rate), refresh=False)
                bar.update()
                if self.step % self.recipe.checkpoint_every == 0:
                    self.save()
        self.save()
        if ctrl_c.seen:
            raise Interrupted(self.step, self.recipe.steps)

    def _update(self) -> dict[str, float]:
        """One step of the optimizer; returns the losses before it."""
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = self.learning_rate(self.step) * factor
        losses = self.step_losses(self.step)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            kept = (
                f"the last checkpoint is {self.checkpoint}" if self.saved else "nothing was saved"
            )
            raise FloatingPointError(f"the loss is {total.item()} at step {self.step}; {kept}")
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.max_norm)
        self.optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    def _brief(self, rate: float) -> dict[str, str]:
        """What the bar shows beside the steps: means of recent losses, images per second."""
        recent = self.losses[-_RECENT:]
        means = {name: sum(step[name] for step in recent) / len(recent) for name in recent[0]}
        shown = {self.short_names.get(name, name): f"{value:.3f}" for name, value in means.items()}
        if len(means) > 1 or "loss" not in means:
            shown = {"loss": f"{sum(means.values()):.3f}", **shown}
        return {**shown, "img/s": f"{rate:.1f}"}

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
        self.saved = True

    def resume(self) -> None:
        """Goes back to the state that the checkpoint holds, random numbers included.

        Raises:
            CheckpointError: where it is missing, unreadable, or of another recipe.
        """
        state = load_checkpoint(self.checkpoint, _FORMAT)
        wanted = self.recipe.as_dict()
        try:
            before = state["recipe"].get("method")
            if before != wanted.get("method"):
                raise CheckpointError(
                    f"{self.checkpoint} was trained by {before}: choose another folder"
                )
            differ = differences(state["recipe"], wanted)
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
            self.saved = True
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{self.checkpoint} is damaged ({type(error).__name__}: {str(error)[:200]}); start "
                "without --resume"
            ) from error


def round_generator(seed: int, turn: int) -> np.random.Generator:
    """Random numbers of round `turn` through a data set: they depend on (seed, turn) alone."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, turn]))


def progress_bar(done: int, steps: int) -> Any:
    """tqdm's bar; in a log file, where lines pile up, a line every half minute."""
    tqdm = required("tqdm", "the progress bar is tqdm's").tqdm
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
