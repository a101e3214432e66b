"""MADE: an autoencoder whose masks make it a density, and ensembles over masks and orders."""

import math
from collections.abc import Iterable, Sequence
from typing import List, Optional  # noqa: UP035

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_integer, check_integers
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
        hidden = tuple(hidden) if isinstance(hidden, Iterable) else (hidden,)
        check_integers("MADE", pixels=pixels, num_masks=num_masks, seed=seed)
        for units in hidden:
            check_integer("tilewright::MADE: each of hidden", units)
        if pixels < 1 or num_masks < 1 or not hidden or min(hidden) < 1:
            raise ValueError(
                "tilewright::MADE: pixels, num_masks and each of hidden must be positive, got "
                f"{pixels}, {num_masks} and {hidden}"
            )
        self.pixels, self.num_masks = int(pixels), int(num_masks)
        self.hidden = [int(h) for h in hidden]
        generator = torch.Generator().manual_seed(int(seed))
        drawn = [self._draw_member(random_order, generator) for _ in range(num_masks)]
        self.register_buffer("rank", torch.stack([rank for rank, _ in drawn]))  # (M, D)
        self.register_buffer("degrees", torch.stack([units for _, units in drawn]))  # (M, all)
        *inner, output, straight = self._masks()
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in inner)
        self.output = MaskedLinear(output)
        self.direct = MaskedLinear(straight, bias=False) if direct else None
        self.register_load_state_dict_pre_hook(_check_rank)
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
        if not 0 <= index < self.num_masks:
            raise RuntimeError(
                f"tilewright::MADE: a member must lie in [0, {self.num_masks}), got {index}"
            )
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
            if self.num_masks == 1:
                return self._complete(rows, known, 0)
            if n == 0:
                return rows
            evidence: List[Tensor] = []  # noqa: UP006
            for index in range(self.num_masks):
                evidence.append(self._evidence(rows, known, index))
            chances = torch.softmax(torch.stack(evidence, 1).float(), 1)
            member = torch.multinomial(chances, 1).squeeze(1)
            for index in range(self.num_masks):
                mine = torch.nonzero(member == index).squeeze(1)
                if mine.numel() > 0:
                    rows[mine] = self._complete(rows[mine], known, index)
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

    def _evidence(self, rows: Tensor, known: int, index: int) -> Tensor:
        """log p of the first ``known`` pixels, (N,), by a member whose order begins with them."""
        if known == 0:
            return torch.zeros_like(rows[:, 0])
        weights = self._weights(index, self._rank_after(index, known))
        below = rows
        for i, layer in enumerate(self.layers):
            below = F.relu(F.linear(below, weights[i], layer.bias))
        logits = F.linear(below, weights[len(self.hidden)], self.output.bias)
        if self.direct is not None:
            logits = logits + F.linear(rows, weights[-1])
        return torch.ops.tilewright.binary_log_prob(logits[:, :known], rows[:, :known])

    def _complete(self, rows: Tensor, known: int, index: int) -> Tensor:
        """Draws the pixels that come after the first ``known``, in a member's order.

        Units are sorted by degree, and pixels by rank, so that what a unit sees are the first of
        those below it: after each pixel come the units that wait for it alone, each once. Masks
        count among units that all come at once, after the pixels that are known.
        """
        rank = self._rank_after(index, known)
        weights = self._weights(index, rank)
        pixels = torch.argsort(rank)
        steps = torch.arange(self.pixels, device=rank.device)
        values = [rows.index_select(1, pixels).t().contiguous()]  # of each layer, (units, N)
        biases: List[Tensor] = []  # noqa: UP006
        ready: List[List[int]] = []  # noqa: UP006  # units of a layer that see d pixels or fewer
        columns = pixels
        degrees = torch.split(self.degrees[index], self.hidden)
        for i, layer in enumerate(self.layers):
            degree, units = torch.sort(degrees[i])
            weights[i] = weights[i][units][:, columns]
            biases.append(_column(layer.bias, units))
            counts = torch.searchsorted(degree, steps, right=True).cpu()
            after: List[int] = counts.tolist()  # noqa: UP006
            ready.append(after)
            values.append(rows.new_zeros(degree.size(0), rows.size(0)))
            columns = units
        output = weights[len(self.hidden)][pixels][:, columns]
        if self.direct is not None:
            straight = weights[-1][pixels][:, pixels]
        output_bias = _column(self.output.bias, pixels)
        for d in range(known, self.pixels):
            seen = d
            for i in range(len(self.hidden)):
                first, last = ready[i][d - 1] if d > known else 0, ready[i][d]
                if first < last:
                    weight, bias = weights[i][first:last, :seen], biases[i][first:last]
                    values[i + 1][first:last] = F.relu(torch.addmm(bias, weight, values[i][:seen]))
                seen = last
            weight, bias = output[d : d + 1, :seen], output_bias[d : d + 1]
            logit = torch.addmm(bias, weight, values[-1][:seen])
            if self.direct is not None:
                logit = torch.addmm(logit, straight[d : d + 1, :d], values[0][:d])
            values[0][d] = draw(logit[0])
        return values[0].index_select(0, rank - 1).t().contiguous()


def _column(bias: Optional[Tensor], order: Tensor) -> Tensor:  # noqa: UP045
    assert bias is not None  # MADE's layers have one
    return bias[order][:, None]


def _check_rank(model: MADE, state: dict, prefix: str, *_) -> None:
    """Before a state dict is loaded: each member's order holds every pixel once. Of other orders
    probabilities would not add up to 1."""
    rank = state.get(prefix + "rank")
    if not isinstance(rank, Tensor) or rank.shape != model.rank.shape:
        return  # torch says so
    every = torch.arange(1, model.pixels + 1, device=rank.device)
    wrong = torch.nonzero((rank.sort(1).values != every).any(1)).flatten()
    if wrong.numel() > 0:
        member = int(wrong[0])
        raise RuntimeError(
            f"tilewright::MADE: {prefix}rank must be a permutation of 1 to {model.pixels} for each "
            f"member, got {rank[member].tolist()} for member {member}"
        )


def _renew_masks(model: MADE, _) -> None:
    """After a state dict was loaded: the masks of its orders and degrees."""
    *inner, output, straight = model._masks()
    for layer, mask in zip(model.layers, inner, strict=True):
        layer.mask.copy_(mask)
    model.output.mask.copy_(output)
    if model.direct is not None:
        model.direct.mask.copy_(straight)
