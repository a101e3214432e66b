"""What a density of binary vectors has to beat: independent pixels, and mixtures of such."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_integers
from tilewright.models.binary_rows import begin_rows, check_rows, checked_binary_rows, draw


class BernoulliMixture(nn.Module):
    """``p(x) = sum over k of weight_k product over d of p_kd^x_d (1 - p_kd)^(1 - x_d)``.

    Args:
        pixels: D, of a row.
        components: K; with one, pixels are independent.

    Buffers: ``log_weight`` (K,) and ``logits`` (K, D), which :meth:`fit` sets.
    """

    log_weight: Tensor
    logits: Tensor

    def __init__(self, pixels: int, components: int):
        super().__init__()
        check_integers("BernoulliMixture", pixels=pixels, components=components)
        if pixels < 1 or components < 1:
            raise ValueError(
                "tilewright::BernoulliMixture: pixels and components must be positive, got "
                f"{pixels} and {components}"
            )
        self.pixels = int(pixels)
        weight = torch.full((components,), 1 / components)
        self.register_buffer("log_weight", weight.log())
        self.register_buffer("logits", torch.zeros(components, pixels))

    @torch.jit.unused
    def fit(
        self, x: Tensor, steps: int = 100, smoothing: float = 1.0, seed: int = 0
    ) -> list[float]:
        """Expectation maximisation over rows (N, D); returns the mean log likelihood before each
        step.

        Args:
            x: zeros and ones of any dtype.
            steps: at most so many, 1 or more; fewer where the likelihood gains less than 1e-6.
            smoothing: ones and zeros that each pixel of a component has seen before, as many of
                both. They keep probabilities off 0 and 1.
            seed: of the rows from which components begin, unlike each other while there are such,
                and of the noise that tells apart those that begin alike.
        """
        check_rows("BernoulliMixture", x, self.pixels)
        x = checked_binary_rows("BernoulliMixture", "x", x)
        if len(x) == 0 or not 0 < smoothing < float("inf"):
            raise ValueError(
                "tilewright::BernoulliMixture: fit needs rows and a positive smoothing, got "
                f"{len(x)} rows and {smoothing}"
            )
        check_integers("BernoulliMixture", steps=steps, seed=seed)
        if steps < 1:
            raise ValueError(f"tilewright::BernoulliMixture: steps must be positive, got {steps}")
        x = x.to(self.logits.device, torch.float64)
        components = len(self.log_weight)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.unique(x, dim=0)  # components that begin alike stay alike
        order = torch.randperm(max(len(rows), components), generator=generator)[:components]
        noise = torch.rand(components, self.pixels, generator=generator, dtype=x.dtype)
        start = 0.4 * rows[order.to(x.device) % len(rows)] + 0.1 * noise.to(x.device)
        p = 0.5 * x.mean(0) + 0.5 * (0.25 + start)  # between the mean and a row
        weight = torch.full((components,), 1 / components, dtype=x.dtype, device=x.device)
        history: list[float] = []
        for _ in range(steps if components > 1 else 1):
            found = x @ (p.log() - (1 - p).log()).t() + (1 - p).log().sum(1) + weight.log()
            history.append(float(found.logsumexp(1).mean()))
            share = found.softmax(1)
            count = share.sum(0)
            p = (share.t() @ x + smoothing) / (count[:, None] + 2 * smoothing)
            weight = (count + 1e-9) / (count + 1e-9).sum()
            if len(history) > 1 and history[-1] - history[-2] < 1e-6:
                break
        self.log_weight.copy_(weight.log())
        self.logits.copy_(p.logit())
        return history

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`log_prob`."""
        return self.log_prob(x)

    @torch.jit.export
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), of rows (N, D) of zeros and ones of any dtype."""
        check_rows("BernoulliMixture", x, self.pixels)
        x = checked_binary_rows("BernoulliMixture", "x", x)
        return torch.logsumexp(self._log_joint(x, self.pixels), 1)

    @torch.jit.export
    def sample(self, n: int, given: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Rows (n, D); ``given`` (n, d): their first d pixels, by which components are drawn."""
        rows = begin_rows("BernoulliMixture", n, given, self.logits, self.pixels)
        if n == 0:
            return rows
        known = 0 if given is None else given.size(1)
        chances = torch.softmax(self._log_joint(rows, known), 1)
        component = torch.multinomial(chances, 1).squeeze(1)
        rows[:, known:] = draw(self.logits[component, known:])
        return rows

    def _log_joint(self, x: Tensor, known: int) -> Tensor:
        """(N, K) of the first ``known`` pixels and a component, in float32 at least."""
        wide = torch.promote_types(self.logits.dtype, torch.float32)
        logits = self.logits[:, :known].to(wide)
        weight = F.log_softmax(self.log_weight.to(wide), 0)  # exactly so in the dtype at hand
        return x[:, :known].to(wide) @ logits.t() - F.softplus(logits).sum(1) + weight


class FactorisedBernoulli(BernoulliMixture):
    """Independent pixels: a mixture of one component. ``fit(x)`` counts."""

    def __init__(self, pixels: int):
        super().__init__(pixels, 1)
