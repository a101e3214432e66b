"""Classification by Bayes' rule over densities: one for each class, or one in which the label is
more variables."""

from collections.abc import Sequence
from typing import List, Optional  # noqa: UP035

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_integers, check_tensor
from tilewright.models.binary_rows import check_rows, checked_binary_rows


class GenerativeClassifier(nn.Module):
    """``p(y | x)`` from a density of each class: ``log p(x | y) + log p(y)``, normalised.

    Args:
        models: one for each class; modules with ``log_prob(x)``, such as :class:`NADE`.
        prior: (C,) class probabilities or counts; equal ones unless given.
    """

    log_prior: Tensor

    def __init__(self, models: Sequence[nn.Module], prior: Optional[Tensor] = None):  # noqa: UP045
        super().__init__()
        modules = isinstance(models, (Sequence, nn.ModuleList)) and len(models) > 0
        if not modules or not all(
            isinstance(m, nn.Module) and hasattr(m, "log_prob") for m in models
        ):
            raise ValueError(
                "tilewright::GenerativeClassifier: models must be a list of modules with log_prob, "
                f"one for each class, got {models!r}"
            )
        if prior is None:
            prior = torch.ones(len(models))
        check_tensor("tilewright::GenerativeClassifier: prior", prior, f"({len(models)},)")
        if prior.shape != (len(models),) or not bool(((prior > 0) & prior.isfinite()).all()):
            raise ValueError(
                "tilewright::GenerativeClassifier: prior must hold a positive number for each of "
                f"{len(models)} models, as torch.bincount(labels, minlength={len(models)}) does "
                f"where each class has rows, got {prior}"
            )
        self.models = nn.ModuleList(models)
        self.register_buffer("log_prior", torch.log(prior / prior.sum()))

    def forward(self, x: Tensor) -> Tensor:
        """log p(y | x), (N, C), of rows (N, D)."""
        return F.log_softmax(self.log_joint(x), 1)

    @torch.jit.export
    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y), (N, C)."""
        found: List[Tensor] = []  # noqa: UP006
        for model in self.models:
            found.append(model.log_prob(x))
        return torch.stack(found, 1) + F.log_softmax(self.log_prior, 0)

    @torch.jit.export
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (N,): the mixture of the classes."""
        return torch.logsumexp(self.log_joint(x), 1)


class LabelledDensity(nn.Module):
    """One density of label and pixels: ``num_classes`` variables of the label, one of which is 1,
    and then the pixels.

    Args:
        model: a density of ``num_classes + pixels`` variables, such as ``NADE(10 + 64)``.
        num_classes: C.

    Learn by ``-model.log_prob_of(x, y).mean()``. Samples are draws from the model's conditional
    where its variables come in their own order: see :meth:`MADE.sample` for other orders.
    """

    def __init__(self, model: nn.Module, num_classes: int):
        super().__init__()
        if not isinstance(model, nn.Module) or not hasattr(model, "pixels"):
            raise ValueError(
                "tilewright::LabelledDensity: model must be a module with pixels, such as NADE, "
                f"got {type(model).__name__}"
            )
        check_integers("LabelledDensity", num_classes=num_classes)
        if not 0 < num_classes < int(model.pixels):
            raise ValueError(
                "tilewright::LabelledDensity: num_classes must be positive and less than the "
                f"model's {model.pixels} variables, got {num_classes}"
            )
        self.model = model
        self.num_classes = int(num_classes)
        self.pixels = int(model.pixels) - self.num_classes

    def forward(self, x: Tensor) -> Tensor:
        """log p(y | x), (N, C), of rows (N, pixels)."""
        return F.log_softmax(self.log_joint(x), 1)

    @torch.jit.export
    def log_prob_of(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x, y), (N,), of labels y (N,) int64."""
        check_rows("LabelledDensity", x, self.pixels)
        x = checked_binary_rows("LabelledDensity", "x", x)
        label = self._label(y, x.dtype)
        if y.size(0) != x.size(0):
            raise RuntimeError(
                f"tilewright::LabelledDensity: y must have x's {x.size(0)} rows, got {y.size(0)}"
            )
        return self.model.log_prob(torch.cat([label, x], 1))

    @torch.jit.export
    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) of every y, (N, C)."""
        check_rows("LabelledDensity", x, self.pixels)
        found: List[Tensor] = []  # noqa: UP006
        for c in range(self.num_classes):
            found.append(self.log_prob_of(x, torch.full([x.size(0)], c, device=x.device)))
        return torch.stack(found, 1)

    @torch.jit.export
    def sample(self, y: Tensor) -> Tensor:
        """A row (pixels,) for each label: (N, pixels)."""
        given = self._label(y, torch.float32)
        return self.model.sample(y.size(0), given)[:, self.num_classes :]

    def _label(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        check_tensor("tilewright::LabelledDensity: y", y, "(N,)")
        if y.dim() != 1 or y.dtype != torch.int64:
            raise RuntimeError(
                f"tilewright::LabelledDensity: y must be (N,) int64, got {y.dtype} of {y.shape}"
            )
        end = float(self.num_classes)
        y = torch.ops.tilewright._checked_range(y, "LabelledDensity", "y", 0.0, end)
        return F.one_hot(y, self.num_classes).to(dtype)
