"""Losses over large vocabularies that look at samples of it: argument sugar over
``torch.ops.tilewright``, and the distribution that the samples come from.

    noise = tilewright.NoiseDistribution(counts)          # of each word, say to the power 0.75
    words = noise.sample(1024)                            # shared by the rows of a batch
    loss = tilewright.sampled_softmax_loss(hidden, weight, target, words, noise.log_prob, bias)
"""

from typing import Optional

import torch
from torch import Tensor, nn

from tilewright._arguments import check_fixed, check_tensor

__all__ = ["NoiseDistribution", "nce_loss", "sampled_softmax_loss"]


class NoiseDistribution(nn.Module):
    """A distribution over V words that draws in constant time, from Walker's alias table (Vose
    1991). Scriptable; its tables are buffers, and move with the module.

    Args:
        weights: (V,) float32, float64 or integers (counts), not negative: in proportion to the
            probabilities.

    Attributes:
        log_prob: (V,) float32, the logarithm of each word's probability; -inf where it is 0.

    Raises:
        ValueError: where weights are no tensor.
        RuntimeError: where weights are negative, not finite, or all 0.
    """

    log_prob: Tensor
    threshold: Tensor
    alias: Tensor

    def __init__(self, weights: Tensor):
        super().__init__()
        check_tensor("tilewright::NoiseDistribution: weights", weights, "(V,)")
        weights = weights.detach()
        if not weights.is_floating_point() and not weights.is_complex():
            weights = weights.to(torch.float64)
        threshold, alias = torch.ops.tilewright.alias_table(weights)
        self.register_buffer("threshold", threshold)
        self.register_buffer("alias", alias)
        wide = weights.to(torch.float64)
        self.register_buffer("log_prob", (wide / wide.sum()).log().to(torch.float32))

    def _apply(self, fn, recurse=True):
        """Tables move with a model but are not cast, which would change the distribution."""
        kept = {name: getattr(self, name) for name in ("threshold", "log_prob")}
        super()._apply(fn, recurse)
        for name, table in kept.items():
            setattr(self, name, table.to(self.alias.device))
        return self

    def forward(self, count: int) -> Tensor:
        """As ``sample``."""
        return torch.ops.tilewright.alias_sample(self.threshold, self.alias, count)

    @torch.jit.export
    def sample(self, count: int, generator: Optional[torch.Generator] = None) -> Tensor:  # noqa: UP045
        """(count,) int64, drawn with replacement."""
        return torch.ops.tilewright.alias_sample(self.threshold, self.alias, count, generator)


def nce_loss(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    noise: Tensor,
    log_noise: Tensor,
    bias: Optional[Tensor] = None,  # noqa: UP045
    log_partition: float = 0.0,
    sparse: bool = False,
) -> Tensor:
    """Noise contrastive estimation (Gutmann and Hyvaerinen 2012; of words, Mnih and Teh 2012,
    arXiv:1206.6426): a language model's loss as binary classification of words against noise.

    With ``s(w) = input . weight[w] + bias[w] - log_partition - log(K q(w))``:
    ``mean over rows of softplus(-s(target)) + sum over noise w of softplus(s(w))``

    Args:
        input: (N, D); float64, float32, float16 or bfloat16.
        weight: (V, D), of input's dtype, a row for each word.
        target: (N,) int64, each row's word.
        noise: (K,) int64, words drawn from q with replacement, the same for all rows.
        log_noise: (V,) float32 or float64, log q of every word, at most 0.
        bias: (V,), of input's dtype.
        log_partition: the logarithm of the normaliser that unnormalised probabilities are taken to
            have: the model learns to have it. 0 unless given.
        sparse: weight's gradient is a sparse tensor, of the words that were looked at alone (for
            ``torch.optim.SparseAdam``, SGD); weight must be float64 or float32.

    Returns:
        One number, float64 of float64 and else float32. It holds (N, K) scores.

    Raises:
        RuntimeError: on shapes, dtypes or devices that do not fit; on the CPU on words that are no
            row of weight, on noise whose log q is not finite or above 0, and here on targets whose
            log q is not finite.
    """
    check_fixed("tilewright::nce_loss: log_partition", log_partition, "take it off the bias")
    return torch.ops.tilewright.nce_loss(
        input, weight, target, noise, log_noise, bias, log_partition, sparse
    )


def sampled_softmax_loss(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    noise: Tensor,
    log_noise: Tensor,
    bias: Optional[Tensor] = None,  # noqa: UP045
    sparse: bool = False,
) -> Tensor:
    """Cross-entropy over V words whose sum over the other words is estimated from samples of them
    (Bengio and Senecal 2008; Jean et al. 2015, arXiv:1412.2007).

    With ``s(w) = input . weight[w] + bias[w]``: ``mean over rows of log(exp(s(target)) + sum over
    noise w != target of exp(s(w)) / (K q(w))) - s(target)``. The sum is right on average; with more
    samples the loss becomes the whole softmax's. No (N, K) scores are stored.

    Args, Returns, Raises:
        as of :func:`nce_loss`.
    """
    return torch.ops.tilewright.sampled_softmax_loss(
        input, weight, target, noise, log_noise, bias, sparse
    )
