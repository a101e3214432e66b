"""A fitted ensemble as a module whose arrays are buffers, for export and serving."""

import torch
from torch import Tensor, nn

ARRAYS = ("feature", "threshold", "left", "right", "default_left", "value", "tree_ptr")


def linked(scores: Tensor, link: str) -> Tensor:
    """Scores (N, K) to predictions."""
    if link == "sigmoid":
        return scores.sigmoid()
    if link == "softmax":
        return scores.softmax(1)
    if link == "exp":
        return scores.exp()
    return scores


class EnsembleModule(nn.Module):
    """Raw scores (N, K), or predictions, of trees in arrays: scriptable and exportable.

    Args:
        arrays: the tensors of ``predict_trees`` by name, not copied; without categories where no
            node has any.
        base_score: (K,) float32, what every row scores before the first tree.
        link: how scores become predictions: ``"identity"``, ``"sigmoid"`` (K = 1), ``"softmax"``
            or ``"exp"``.
        num_features: F, which x must have; 0: any that the trees can use.
    """

    def __init__(
        self,
        arrays: dict[str, Tensor],
        base_score: Tensor,
        link: str = "identity",
        num_features: int = 0,
    ):
        super().__init__()
        self.num_features = num_features
        for name in (*ARRAYS, "tree_output"):
            self.register_buffer(name, arrays[name])
        for name in ("category_ptr", "categories"):
            if arrays.get(name) is None:
                setattr(self, name, None)  # torch.export takes no buffers that are None
            else:
                self.register_buffer(name, arrays[name])
        self.register_buffer("base_score", base_score)
        self.num_outputs = base_score.numel()
        self.link = link

    @torch.jit.unused
    def to_ensemble(self, num_features: int):
        """The same as a ``torch.classes.tilewright.TreeEnsemble``, which packs the trees once."""
        arrays = [getattr(self, name) for name in (*ARRAYS, "tree_output", "base_score")]
        if self.categories is not None:
            arrays += [self.category_ptr, self.categories]
        return torch.classes.tilewright.TreeEnsemble(arrays, self.link, num_features)

    def scores(self, x: Tensor) -> Tensor:
        """(N, F) floating, NaN missing, to (N, K) float32."""
        if self.num_features > 0 and (x.dim() != 2 or x.size(1) != self.num_features):
            raise ValueError(f"x must have shape (N, {self.num_features}), got {x.shape}")
        raw = torch.ops.tilewright.predict_trees(
            x,
            self.feature,
            self.threshold,
            self.left,
            self.right,
            self.default_left,
            self.value,
            self.tree_ptr,
            self.tree_output,
            self.num_outputs,
            self.category_ptr,
            self.categories,
        )
        return raw + self.base_score

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) to predictions (N, K): means, or probabilities (that of class 1 where K = 1)."""
        return linked(self.scores(x), self.link)
