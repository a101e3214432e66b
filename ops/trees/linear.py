"""Boosted linear models: what ``booster="gblinear"`` makes of the estimators."""

import torch
from torch import Tensor, nn

from tilewright.trees.ensemble import linked


class LinearModule(nn.Module):
    """Scores (N, K), or predictions, of a linear model; missing values count 0. Scriptable and
    exportable.

    Args:
        weight: (K, F) float32.
        bias: (K,) float32.
        link: as of :class:`EnsembleModule`.
    """

    def __init__(self, weight: Tensor, bias: Tensor, link: str = "identity"):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.link = link

    def scores(self, x: Tensor) -> Tensor:
        """(N, F) floating, NaN missing, to (N, K) float32."""
        if x.dim() != 2 or x.size(1) != self.weight.size(1):
            raise ValueError(f"x must have shape (N, {self.weight.size(1)}), got {x.shape}")
        x = x.float()
        known = torch.where(x.isnan(), torch.zeros_like(x), x)
        return nn.functional.linear(known, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) to predictions (N, K): means, or probabilities (that of class 1 where K = 1)."""
        return linked(self.scores(x), self.link)
