"""The fully visible sigmoid belief network: one masked linear layer."""

from typing import Optional

import torch
from torch import Tensor, nn

from tilewright._arguments import check_integers
from tilewright.density import MaskedLinear
from tilewright.models.binary_rows import begin_rows, check_rows, draw


class FVSBN(nn.Module):
    """A logistic regression of each pixel on those before it (Frey, Hinton and Dayan 1996).

    ``p(x_d = 1 | x_<d) = sigmoid(bias_d + sum over i < d of weight[d, i] x_i)``

    Args:
        pixels: D, of a row.

    Parameters: those of ``linear``, a :class:`tilewright.MaskedLinear` from D to D.
    """

    def __init__(self, pixels: int):
        super().__init__()
        check_integers("FVSBN", pixels=pixels)
        if pixels < 1:
            raise ValueError(f"tilewright::FVSBN: pixels must be positive, got {pixels}")
        self.pixels = int(pixels)
        self.linear = MaskedLinear(torch.ones(pixels, pixels).tril(-1))
        with torch.no_grad():  # a convex problem, from the least that can be said
            self.linear.weight.zero_()
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`log_prob`."""
        return self.log_prob(x)

    @torch.jit.export
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), of rows (N, D) of zeros and ones of any dtype."""
        check_rows("FVSBN", x, self.pixels)
        x = x.to(self.linear.weight.dtype)
        return torch.ops.tilewright.binary_log_prob(self.linear(x), x)

    @torch.jit.export
    def sample(self, n: int, given: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Rows (n, D) drawn from the model; ``given`` (n, d): their first d pixels."""
        with torch.no_grad():
            rows = begin_rows("FVSBN", n, given, self.linear.weight, self.pixels)
            weight = self.linear.weight * self.linear.mask[0]
            bias = self.linear.bias
            assert bias is not None
            known = 0 if given is None else given.size(1)
            for d in range(known, self.pixels):
                rows[:, d] = draw(torch.mv(rows[:, :d], weight[d, :d]) + bias[d])
            return rows
