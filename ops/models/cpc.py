"""Contrastive predictive coding in Python, thin and scriptable: the twin of
``csrc/models/cpc.cpp``."""

from typing import Final

import torch
from torch import Tensor, nn

from tilewright import _C
from tilewright._arguments import check_tensor
from tilewright.models.causal_context import CausalContext
from tilewright.models.self_supervised import check_channels, tuple_of
from tilewright.models.weights_module import WeightsModule


def _encoder(options: dict) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = options["in_channels"]
    sizes = zip(options["kernel_sizes"], options["strides"], strict=False)
    for width, (kernel, stride) in zip(options["widths"], sizes, strict=False):
        layers.append(nn.Conv1d(channels, width, kernel, stride))
        layers.append(nn.ReLU())
        channels = width
    return nn.Sequential(*layers)


def _least_length(options: dict, steps: int) -> int:
    """The least length of a sequence, or height of an image, that has so many steps."""
    if options["input"] == "images":
        return (steps - 1) * options["patch_stride"] + options["patch_size"]
    length = steps
    for kernel, stride in zip(options["kernel_sizes"][::-1], options["strides"][::-1], strict=True):
        length = (length - 1) * stride + kernel
    return length


def _patch_encoder(options: dict) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = options["in_channels"]
    for width in options["widths"]:
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
        # Not batch norm, through which a patch would tell of others (arXiv:1905.09272).
        layers += [nn.GroupNorm(1, width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


class CPC(WeightsModule):
    """Van den Oord et al. 2018 (arXiv:1807.03748): the features of steps ahead are predicted, and
    are to be told apart from those of all steps of the batch.

    An encoder makes features z[t] of each step of a sequence, an autoregressive network sums up
    those so far in a context c[t], and for each of K steps ahead a matrix W[k] makes of c[t] what
    is to be most similar to z[t + k]. ``forward(x)`` is InfoNCE over all these predictions, one
    number. ``represent(x)`` is the summary of the contexts: (N, context_features), of images with
    summary "last" (N, columns * context_features).

    The steps of a sequence (N, C, T) are the places of strided convolutions. An image (N, C, H, W)
    is cut into a grid of overlapping patches, and each column of it is a sequence, from top to
    bottom. ``encode(x)`` gives the features (S, T, F) of S such sequences, ``contexts`` of them
    (S, T, context_features).

    Args:
        input: "images" or "sequences".
        in_channels: C; 1.
        patch_size: pixels of a square patch; 4.
        patch_stride: pixels from one to the next; 2.
        widths: channels of the encoder's convolutions, with ReLU; (64, 128). Of patches they are
            3x3, with a norm over each patch, and the mean over its places ends them.
        kernel_sizes: of those of sequences, one for each; (4, 4).
        strides: theirs; (2, 2).
        context: "gru", or "attention": causal transformer layers over flash_attention.
        context_features: 128.
        context_layers: 1.
        context_heads: of attention; 4.
        steps: the paper's K; 2.
        temperature: of InfoNCE; 0.1. The paper has 1, and does not normalise.
        normalize: features and predictions to length 1; True.
        summary: what represent makes of the contexts: "mean"; or "last", of images those of all
            columns side by side.
    """

    images: Final[bool]
    recurrent: Final[bool]

    def __init__(self, **options):
        super().__init__()
        options = _C.cpc_options(**options)
        self.images = options["input"] == "images"
        self.recurrent = options["context"] == "gru"
        self.in_channels: int = options["in_channels"]
        self.patch_size: int = options["patch_size"]
        self.patch_stride: int = options["patch_stride"]
        self.steps: int = options["steps"]
        self.temperature: float = options["temperature"]
        self.normalize: bool = options["normalize"]
        self.mean: bool = options["summary"] == "mean"
        # Lengths of sequences, heights of images: for one step, and for the loss.
        self.least = _least_length(options, 1)
        self.least_of_loss = _least_length(options, self.steps + 1)
        features, own = options["widths"][-1], options["context_features"]
        layers = options["context_layers"]
        self.encoder = _patch_encoder(options) if self.images else _encoder(options)
        if self.recurrent:
            self.context = nn.GRU(features, own, layers, batch_first=True)
        else:
            self.context = CausalContext(features, own, layers, options["context_heads"])
        self.prediction = nn.Linear(own, self.steps * features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)  # (S, T, F)
        length = z.shape[1]
        if length <= self.steps:
            what = "rows of patches" if self.images else "steps"
            side = "height" if self.images else "length"
            raise RuntimeError(
                f"tilewright::CPC: x must have more than {self.steps} {what}, for so many are "
                f"predicted, got {length} (the least {side} is {self.least_of_loss})"
            )
        predicted = self.prediction(self.contexts(z)).unflatten(-1, [self.steps, -1])
        row = torch.arange(z.shape[0] * length, device=z.device).view(-1, length)
        queries: list[Tensor] = []
        positives: list[Tensor] = []
        for k in range(1, self.steps + 1):
            queries.append(predicted.select(2, k - 1)[:, : length - k].flatten(0, 1))
            positives.append(row[:, k:].flatten())
        return torch.ops.tilewright.info_nce(
            torch.cat(queries),
            z.flatten(0, 1),
            torch.cat(positives),
            self.temperature,
            self.normalize,
        )

    @torch.jit.export
    def represent(self, x: Tensor) -> Tensor:
        flat = self.contexts(self.encode(x))
        columns = (x.shape[-1] - self.patch_size) // self.patch_stride + 1 if self.images else 1
        context = flat.view(x.shape[0], columns, flat.shape[1], flat.shape[2])
        return context.mean((1, 2)) if self.mean else context[:, :, -1].flatten(1)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        if not self.images:
            check_channels("CPC", "x", x, "(N, C, T)", 3, self.in_channels)
            if x.shape[2] < self.least:
                raise RuntimeError(
                    f"tilewright::CPC: x must have a length of at least {self.least}, for its "
                    f"encoder sees so much at a step, got {tuple_of(x.shape)}"
                )
            return self.encoder(x).transpose(1, 2)
        check_channels("CPC", "x", x, "(N, C, H, W)", 4, self.in_channels)
        size, stride = self.patch_size, self.patch_stride
        if x.shape[2] < size or x.shape[3] < size:
            raise RuntimeError(
                f"tilewright::CPC: x must not be smaller than a patch, {size} x {size}, got "
                f"{tuple_of(x.shape)}"
            )
        # (N, C, rows, columns, size, size) to (N, columns, rows, C, size, size).
        patches = x.unfold(2, size, stride).unfold(3, size, stride).permute(0, 3, 2, 1, 4, 5)
        features = self.encoder(patches.flatten(0, 2)).mean((2, 3))
        return features.view(x.shape[0] * patches.shape[1], patches.shape[2], features.shape[1])

    @torch.jit.export
    def contexts(self, features: Tensor) -> Tensor:
        check_tensor("tilewright::CPC: features", features, "(S, T, F)")
        if self.recurrent:
            return self.context(features)[0]
        return self.context(features)
