"""The loss terms of two-stage detectors: the twin of ``csrc/models/detection_losses.cpp``.

Each is divided by the sampled count, and 0 where nothing was sampled.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sampling_noise(labels: Tensor) -> Tensor:
    """Uniform keys for sample_balanced, one per label."""
    return torch.rand(labels.shape, dtype=torch.float32, device=labels.device)


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def objectness_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of logits (N,) against labels (N,) of 0 and 1, mean."""
    wide = _at_least_float(logits)
    total = F.binary_cross_entropy_with_logits(wide, labels.to(wide.dtype), reduction="sum")
    return total / max(labels.size(0), 1)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits (N, C) against labels (N,), mean."""
    total = F.cross_entropy(_at_least_float(logits), labels, reduction="sum")
    return total / max(labels.size(0), 1)


def box_regression_loss(deltas: Tensor, targets: Tensor, sampled_count: int) -> Tensor:
    """Smooth L1 (beta 1/9) of deltas (P, 4) against targets (P, 4), sum over ``sampled_count``."""
    total = F.smooth_l1_loss(_at_least_float(deltas), targets, reduction="sum", beta=1 / 9)
    return total / max(sampled_count, 1)
