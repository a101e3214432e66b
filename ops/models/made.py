"""MADE: an autoencoder whose masks make it a density, and ensembles over masks and orders."""

import math
from collections.abc import Sequence
from typing import List, Optional  # noqa: UP035

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright.density import MaskedLinear
from tilewright.models.binary_rows import begin_rows, check_rows, draw


def made_masks(rank: Tensor, degrees: List[Tensor]) -> List[Tensor]:  # noqa: UP006
    """Which weights count: of each hidden layer, of the outputs, and from the inputs straight to
    them.

    Args:
        rank: (D,) int64, 1 for the pixel that comes first.
        degrees: (H,) int64 for each hidden layer: up to which rank of pixels a unit sees.
    """
    masks: List[Tensor] = []  # noqa: UP006
    before = rank
    for degree in degrees:
        masks.append(degree[:, None] >= before[None, :])
        before = degree
    masks.append(rank[:, None] > before[None, :])
    masks.append(rank[:, None] > rank[None, :])
    return masks


class MADE(nn.Module):
    """The masked autoencoder for distribution estimation (Germain et al. 2015, arXiv:1502.03509).

    Masks over the weights of an autoencoder leave each output the pixels that come before it in
    an order. ``num_masks`` of them over the same weights are an ensemble, whose density is the mean
    of its members' probabilities (a mean of logits would not add up to 1). Train them in turns:
    ``-model.log_prob_of(x, step % model.num_masks).mean()``.

    Args:
        pixels: D, of a row.
        hidden: units of each hidden layer.
        num_masks: members; their connectivity is drawn from ``seed``.
        random_order: each member has an order of its own, drawn too; else pixels come as they are.
        direct: weights from the inputs straight to the outputs too.
        seed: of masks and orders.

    Parameters: those of ``layers.0`` ..., ``output`` and ``direct``, all
    :class:`tilewright.MaskedLinear`. Buffers: ``rank`` (M, D), each member's order, and ``degrees``
    (M, all hidden units), which masks are made from, when a state dict is loaded as well.
    """

    rank: Tensor
    degrees: Tensor

    def __init__(
        self,
        pixels: int,
        hidden: int | Sequence[int] = (500,),
        *,
        num_masks: int = 1,
        random_order: bool = False,
        direct: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if isinstance(hidden, int):
            hidden = (hidden,)
        if any(not isinstance(units, int) for units in hidden):
            raise ValueError(f"tilewright::MADE: hidden must be whole numbers, got {hidden}")
        if pixels < 1 or num_masks < 1 or not hidden or min(hidden) < 1:
            raise ValueError(
                "tilewright::MADE: pixels, num_masks and each of hidden must be positive, got "
                f"{pixels}, {num_masks} and {tuple(hidden)}"
            )
        self.pixels, self.num_masks = pixels, num_masks
        self.hidden = [int(h) for h in hidden]
        generator = torch.Generator().manual_seed(seed)
        drawn = [self._draw_member(random_order, generator) for _ in range(num_masks)]
        self.register_buffer("rank", torch.stack([rank for rank, _ in drawn]))  # (M, D)
        self.register_buffer("degrees", torch.stack([units for _, units in drawn]))  # (M, all)
        *inner, output, straight = self._masks()
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in inner)
        self.output = MaskedLinear(output)
        self.direct = MaskedLinear(straight, bias=False) if direct else None
        self.register_load_state_dict_post_hook(_renew_masks)

    def _masks(self):
        """Of every layer those of all members, (M, out, in), made_masks' order."""
        members = [
            made_masks(rank, list(degrees.split(self.hidden)))
            for rank, degrees in zip(self.rank, self.degrees, strict=True)
        ]
        return [torch.stack(masks) for masks in zip(*members, strict=True)]

    def _draw_member(self, random_order, generator):
        rank = torch.arange(1, self.pixels + 1)
        if random_order:
            rank = rank[torch.randperm(self.pixels, generator=generator)]
        degrees, least, most = [], 1, self.pixels - 1  # nobody may see the last pixel
        for units in self.hidden:
            least = min(least, most)
            degrees.append(torch.randint(least, most + 1, (units,), generator=generator))
            least = int(degrees[-1].min())
        return rank, torch.cat(degrees)

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`log_prob`."""
        return self.log_prob(x)

    @torch.jit.export
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), of rows (N, D) of zeros and ones of any dtype: of the ensemble,
        ``log mean over members of exp(log_prob_of(x, member))``."""
        if self.num_masks == 1:
            return self.log_prob_of(x, 0)
        found: List[Tensor] = []  # noqa: UP006
        for index in range(self.num_masks):
            found.append(self.log_prob_of(x, index))
        return torch.logsumexp(torch.stack(found), 0) - math.log(self.num_masks)

    @torch.jit.export
    def log_prob_of(self, x: Tensor, index: int) -> Tensor:
        """The same of one member, 0 <= index < num_masks."""
        check_rows("MADE", x, self.pixels)
        x = x.to(self.output.weight.dtype)
        below = x
        for layer in self.layers:
            below = F.relu(layer(below, index))
        logits = self.output(below, index)
        if self.direct is not None:
            logits = logits + self.direct(x, index)
        return torch.ops.tilewright.binary_log_prob(logits, x)

    @torch.jit.export
    def sample(self, n: int, given: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Rows (n, D) drawn from the ensemble; ``given`` (n, d): their first d pixels.

        Where pixels come in their own order these are draws from the model's conditional. Members
        of other orders cannot condition on first pixels: their orders are changed so that these
        come first, which uses weights together that were not trained so, and is near the
        conditional only after training with many orders.
        A row's member is drawn by how well the members explain what is given of it.
        """
        with torch.no_grad():
            rows = begin_rows("MADE", n, given, self.output.weight, self.pixels)
            known = 0 if given is None else given.size(1)
            ranks: List[Tensor] = []  # noqa: UP006
            weights: List[List[Tensor]] = []  # noqa: UP006
            evidence: List[Tensor] = []  # noqa: UP006
            for index in range(self.num_masks):
                ranks.append(self._rank_after(index, known))
                weights.append(self._weights(index, ranks[index]))
                if self.num_masks > 1:
                    logits = self._logits(rows, weights[index])
                    seen = rows[:, :known]
                    if known > 0:
                        seen = torch.ops.tilewright.binary_log_prob(logits[:, :known], seen)
                        evidence.append(seen)
                    else:
                        evidence.append(torch.zeros_like(rows[:, 0]))
            if self.num_masks == 1:
                return self._complete(rows, known, ranks[0], weights[0])
            if n == 0:
                return rows
            chances = torch.softmax(torch.stack(evidence, 1).float(), 1)
            member = torch.multinomial(chances, 1).squeeze(1)
            for index in range(self.num_masks):
                mine = torch.nonzero(member == index).squeeze(1)
                if mine.numel() > 0:
                    rows[mine] = self._complete(rows[mine], known, ranks[index], weights[index])
            return rows

    def _rank_after(self, index: int, known: int) -> Tensor:
        """A member's order with the first ``known`` pixels before all others."""
        rank = self.rank[index]
        first = torch.argsort(torch.argsort(rank[:known]))
        rest = torch.argsort(torch.argsort(rank[known:])) + known
        return torch.cat([first, rest]) + 1

    def _weights(self, index: int, rank: Tensor) -> List[Tensor]:  # noqa: UP006
        """Masked weights of the layers, of the output, and straight to it where there are any."""
        degrees = torch.split(self.degrees[index], self.hidden)
        masks = made_masks(rank, list(degrees))
        masked: List[Tensor] = []  # noqa: UP006
        for i, layer in enumerate(self.layers):
            masked.append(layer.weight * masks[i])
        masked.append(self.output.weight * masks[-2])
        if self.direct is not None:
            masked.append(self.direct.weight * masks[-1])
        return masked

    def _hidden(self, x: Tensor, weights: List[Tensor]) -> Tensor:  # noqa: UP006
        below = x
        for i, layer in enumerate(self.layers):
            below = F.relu(F.linear(below, weights[i], layer.bias))
        return below

    def _logits(self, x: Tensor, weights: List[Tensor]) -> Tensor:  # noqa: UP006
        output = weights[len(self.hidden)]
        logits = F.linear(self._hidden(x, weights), output, self.output.bias)
        if self.direct is not None:
            logits = logits + F.linear(x, weights[-1])
        return logits

    def _complete(self, rows: Tensor, known: int, rank: Tensor, weights: List[Tensor]) -> Tensor:  # noqa: UP006
        """Draws the pixels of rank above ``known``, one after the other."""
        bias, output = self.output.bias, weights[len(self.hidden)]
        assert bias is not None
        pixels = torch.argsort(rank)
        for i in range(known, self.pixels):
            pixel = int(pixels[i])
            row = output[pixel : pixel + 1]
            logit = F.linear(self._hidden(rows, weights), row, bias[pixel : pixel + 1])
            if self.direct is not None:
                logit = logit + F.linear(rows, weights[-1][pixel : pixel + 1])
            rows[:, pixel] = draw(logit.squeeze(1)).to(rows.dtype)
        return rows


def _renew_masks(model: MADE, _) -> None:
    """After a state dict was loaded: the masks of its orders and degrees."""
    *inner, output, straight = model._masks()
    for layer, mask in zip(model.layers, inner, strict=True):
        layer.mask.copy_(mask)
    model.output.mask.copy_(output)
    if model.direct is not None:
        model.direct.mask.copy_(straight)
