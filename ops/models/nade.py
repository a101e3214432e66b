"""NADE as a module that can be scripted and exported: the parameters of ``tilewright::nade``."""

from typing import Optional

import torch
from torch import Tensor, nn

from tilewright._arguments import check_integers, check_tensor
from tilewright.models.binary_rows import check_count


class NADE(nn.Module):
    """The neural autoregressive distribution estimator (Larochelle and Murray, AISTATS 2011).

    Each pixel's probability comes from a hidden layer that saw the pixels before it; the layers of
    all pixels share their weights, so that one row costs O(pixels * hidden).

    Args:
        pixels: D, of a row.
        hidden: H, hidden units.

    Parameters: ``weight_in`` (H, D), ``bias_in`` (H,), ``weight_out`` (D, H), ``bias_out`` (D,).
    """

    def __init__(self, pixels: int, hidden: int = 500):
        super().__init__()
        check_integers("NADE", pixels=pixels, hidden=hidden)
        if pixels < 1 or hidden < 1:
            raise ValueError(
                f"tilewright::NADE: pixels and hidden must be positive, got {pixels} and {hidden}"
            )
        self.pixels = int(pixels)
        self.weight_in = nn.Parameter(torch.empty(hidden, pixels))
        self.bias_in = nn.Parameter(torch.zeros(hidden))
        self.weight_out = nn.Parameter(torch.empty(pixels, hidden))
        self.bias_out = nn.Parameter(torch.zeros(pixels))
        nn.init.xavier_uniform_(self.weight_in)
        nn.init.xavier_uniform_(self.weight_out)

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`log_prob`."""
        return self.log_prob(x)

    @torch.jit.export
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), of rows (N, D) of zeros and ones of any dtype."""
        check_tensor("tilewright::NADE: x", x, f"(N, {self.pixels})")
        x = x.to(self.weight_in.dtype)
        return torch.ops.tilewright.nade(
            x, self.weight_in, self.bias_in, self.weight_out, self.bias_out
        )

    @torch.jit.export
    def sample(self, n: int, given: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Rows (n, D) drawn from the model; ``given`` (n, d): their first d pixels."""
        check_count("NADE", n)
        if given is not None:
            check_tensor("tilewright::NADE: given", given, "(n, d)")
            given = given.to(self.weight_in.dtype)
        return torch.ops.tilewright.nade_sample(
            n, self.weight_in, self.bias_in, self.weight_out, self.bias_out, given
        )
