"""Jigsaw patches: representations that tell how the parts of an image belong together."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_integers, check_tensor
from tilewright.models.image_encoder import doubling_encoder
from tilewright.models.self_supervised import check_some

_MOST_PIECES = 9  # whose permutations are listed to choose from


class Jigsaw(nn.Module):
    """Noroozi & Favaro 2016 (arXiv:1603.09246): patches of an image come in one of a fixed set of
    orders, go through one encoder each, and are classified together by which order it is.

    Args:
        in_channels, width, depth: of the encoder, a ConvEncoder: channels of its first layer, each
            further one having twice as many, and the number of layers.
        grid: patches along a side, 2 or 3.
        patch: side of a patch in pixels; cells of the grid are that large at least, and what they
            have more lets patches be cut at random places, so that edges do not tell.
        permutations: how many orders there are, see :func:`permutation_set`.
        hidden: width of the layer before the classifier.
    """

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 32,
        depth: int = 3,
        grid: int = 2,
        patch: int = 6,
        permutations: int = 24,
        hidden: int = 256,
    ):
        super().__init__()
        check_integers("Jigsaw", grid=grid, patch=patch, permutations=permutations, hidden=hidden)
        if grid not in (2, 3):
            raise ValueError(f"tilewright::Jigsaw: grid must be 2 or 3, got {grid}")
        for name, value in (("patch", patch), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"tilewright::Jigsaw: {name} must be positive, got {value}")
        self.grid, self.patch = int(grid), int(patch)
        permutations, hidden, pieces = int(permutations), int(hidden), self.grid**2
        self.encoder = doubling_encoder("Jigsaw", in_channels, width, depth)
        self.register_buffer("permutations", permutation_set(permutations, pieces))
        self.classifier = nn.Sequential(
            nn.Linear(pieces * self.encoder.out_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, permutations),
        )

    def forward(self, images: Tensor, places: Tensor, orders: Tensor) -> Tensor:
        """Mean cross entropy of the orders.

        Args:
            images: (N, C, H, W), N > 0, of ``grid * patch`` pixels a side at least.
            places: (N, grid * grid, 2) in [0, 1): where in its cell each patch is cut, down and
                across: 0 at its beginning.
            orders: (N,) int64 in [0, permutations).

        Raises:
            RuntimeError: on no images, and on the CPU on places and orders out of range.
            ValueError: on shapes and dtypes that do not fit.
        """
        check_some("Jigsaw", images)
        return F.cross_entropy(self.scores(self.shuffled(images, places, orders)), orders)

    @torch.jit.export
    def shuffled(self, images: Tensor, places: Tensor, orders: Tensor) -> Tensor:
        """Patches (N, grid * grid, C, patch, patch), laid in the given orders."""
        patches = cut_patches(images, self.grid, self.patch, places)
        check_tensor("tilewright::Jigsaw: orders", orders, "(N,)")
        if orders.shape != images.shape[:1] or orders.dtype != torch.int64:
            raise ValueError(
                f"tilewright::Jigsaw: orders must have shape ({images.size(0)},) and be int64, got "
                f"{list(orders.shape)} {orders.dtype}"
            )
        count = float(self.permutations.size(0))
        orders = torch.ops.tilewright._checked_range(orders, "Jigsaw", "orders", 0.0, count)
        rows = torch.arange(images.size(0), device=images.device).unsqueeze(1)
        return patches[rows, self.permutations[orders]]

    @torch.jit.export
    def scores(self, patches: Tensor) -> Tensor:
        """(N, grid * grid, C, patch, patch) -> (N, permutations): logits of the orders."""
        features = self.encoder(patches.flatten(0, 1))
        return self.classifier(features.view(patches.size(0), -1))

    @torch.jit.export
    def represent(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2 * features): of whole images, the quarters of the last block but
        one."""
        return self.encoder.quarters(images)


def cut_patches(images: Tensor, grid: int, patch: int, places: Tensor) -> Tensor:
    """One patch from each cell of a grid, row by row.

    Args:
        images: (N, C, H, W); pixels that ``H // grid`` and ``W // grid`` leave over are not used.
        grid: cells along a side.
        patch: side of a patch, at most that of a cell.
        places: (N, grid * grid, 2) in [0, 1), down and across, as for Jigsaw.

    Returns:
        (N, grid * grid, C, patch, patch)
    """
    check_tensor("tilewright::cut_patches: images", images, "(N, C, H, W)")
    check_tensor("tilewright::cut_patches: places", places, "(N, grid * grid, 2)")
    if images.dim() != 4:
        raise ValueError(
            "tilewright::cut_patches: images must have shape (N, C, H, W), got "
            f"{list(images.shape)}"
        )
    height, width = images.size(2) // grid, images.size(3) // grid
    if height < patch or width < patch:
        raise ValueError(
            f"tilewright::cut_patches: images must have {grid * patch} pixels a side, got "
            f"{list(images.shape)}"
        )
    if list(places.shape) != [images.size(0), grid * grid, 2] or not places.is_floating_point():
        raise ValueError(
            f"tilewright::cut_patches: places must have shape ({images.size(0)}, {grid * grid}, 2) "
            f"and be floating, got {list(places.shape)} {places.dtype}"
        )
    places = torch.ops.tilewright._checked_range(places, "cut_patches", "places", 0.0, 1.0)
    cell = torch.arange(grid * grid, device=images.device)
    down = (places[:, :, 0] * (height - patch + 1)).long() + (cell // grid) * height  # (N, cells)
    across = (places[:, :, 1] * (width - patch + 1)).long() + (cell % grid) * width
    side = torch.arange(patch, device=images.device)
    rows = (down[:, :, None] + side)[:, :, :, None]
    columns = (across[:, :, None] + side)[:, :, None, :]
    image = torch.arange(images.size(0), device=images.device)[:, None, None, None]
    return images.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 1, 4, 2, 3)


def permutation_set(count: int, pieces: int) -> Tensor:
    """So many orders of the pieces that are as unlike each other as can be had one by one.

    The first is the order itself; each further one is that whose smallest Hamming distance to those
    before is largest, of equals the one with the largest sum of distances, the first in
    lexicographic order.

    Args:
        count: 2 to the factorial of pieces.
        pieces: 2 to 9.

    Returns:
        (count, pieces) int64
    """
    if not 2 <= pieces <= _MOST_PIECES:
        raise ValueError(
            f"tilewright::permutation_set: pieces must be in [2, {_MOST_PIECES}], got {pieces}"
        )
    if not 2 <= count <= math.factorial(pieces):
        raise ValueError(
            f"tilewright::permutation_set: count must be in [2, {math.factorial(pieces)}], the "
            f"orders of {pieces} pieces, got {count}"
        )
    every = torch.tensor(list(itertools.permutations(range(pieces))), dtype=torch.int8)
    columns = every.T.contiguous()  # summed over along the long side
    chosen = [0]
    least = (columns != columns[:, :1]).sum(dim=0)
    total = least.clone()
    for _ in range(count - 1):
        score = least * (count * pieces + 1) + total
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        distance = (columns != columns[:, chosen[-1:]]).sum(dim=0)
        least = torch.minimum(least, distance)
        total += distance
    return every[chosen].long()
