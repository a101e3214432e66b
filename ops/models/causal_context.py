"""A causal transformer over steps, scriptable: the twin of ``csrc/models/causal_context.cpp``."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Layer(nn.Module):
    """Attention, then two linear layers with GELU, each with a norm before it and a shortcut."""

    def __init__(self, features: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * features)
        self.merge = nn.Linear(features, features)
        self.mlp_norm = nn.LayerNorm(features)
        self.up = nn.Linear(features, 4 * features)
        self.down = nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        # Views of one projection: (S, T, 3, H, D) to three of (S, H, T, D), and nothing is copied.
        parts = self.qkv(self.attention_norm(x)).unflatten(-1, [3, self.heads, -1])
        query, key, value = parts.transpose(1, 3).unbind(2)
        # Slopes 2^(-8/H), 2^(-16/H), ..., 2^-8.
        heads = torch.arange(1, self.heads + 1, device=x.device, dtype=query.dtype)
        slopes = torch.pow(2.0, heads * (-8.0 / self.heads)).float()
        out, _ = torch.ops.tilewright.flash_attention(
            query, key, value, None, slopes, None, causal=True
        )
        x = x + self.merge(out.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class CausalContext(nn.Module):
    """Transformer layers in which a step sees itself and those before; scores fall with distance,
    so that no step needs a number (ALiBi, arXiv:2108.12409).

    ``forward``: (S, T, in_features) to (S, T, features).
    """

    def __init__(self, in_features: int, features: int, layers: int, heads: int):
        super().__init__()
        self.input = nn.Linear(in_features, features)
        self.layers = nn.ModuleList([_Layer(features, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
