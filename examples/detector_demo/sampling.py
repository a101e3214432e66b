"""A picture of where a deformable layer samples."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: a display is neither needed nor looked for
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tilewright import DeformConv2d

_SCENES = 6
_COLOURS = plt.get_cmap("tab10").colors


def last_deformable(model: nn.Module) -> DeformConv2d:
    """The deformable convolution nearest to the end of the backbone."""
    layers = [layer for layer in model.backbone.modules() if isinstance(layer, DeformConv2d)]
    if not layers:
        raise ValueError("the model has no deformable convolution: give it deformable_stages")
    return layers[-1]


@torch.no_grad()
def sampling_places(model: nn.Module, image: Tensor) -> Tensor:
    """Where the last deformable layer's nine taps read: (H, W, 9, 2), x and y in pixels of the
    square image (3, S, S), for each place of the layer's output."""
    layer = last_deformable(model)
    seen: list[Tensor] = []
    # The layer's own call may be left out: batch norm goes through its weight.
    hook = layer.conv_offset.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model([image])
    finally:
        hook.remove()
    offset, _ = layer.predict(seen[0])
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    height, width = offset.shape[2:]
    moved = offset[0].view(-1, taps, 2, height, width)[0]  # of the first offset group: y, x
    steps = [torch.arange(k) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    grid = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).view(taps, 2)
    out = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)
    first = out * torch.tensor(layer.stride) - torch.tensor(layer.padding)
    place = first[:, :, None] + grid + moved.permute(2, 3, 0, 1)  # in pixels of the layer's input
    pixels = image.shape[-1] / seen[0].shape[-1]
    return (place.flip(-1) + 0.5) * pixels - 0.5


def draw_sampling_places(path: Path, model: nn.Module, scenes: Dataset) -> None:
    """Writes a PNG: for the middle of each digit of some scenes a cross, and the nine places that
    the last deformable layer reads for it."""
    figure, axes = plt.subplots(2, _SCENES // 2, figsize=(4 * _SCENES // 2, 8))
    for i, axis in zip(range(min(_SCENES, len(scenes))), axes.flat, strict=False):
        image, target = scenes[i]
        places = sampling_places(model, image)
        height, width = places.shape[:2]
        axis.imshow(image.permute(1, 2, 0).numpy())
        for n, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            row = min(int(y / image.shape[1] * height), height - 1)
            column = min(int(x / image.shape[2] * width), width - 1)
            colour = _COLOURS[n % len(_COLOURS)]
            read = places[row, column]
            axis.plot(x, y, "+", color=colour, markersize=12, markeredgewidth=2)
            axis.plot(read[:, 0], read[:, 1], "o", color=colour, markersize=5, markeredgecolor="w")
        axis.set_xlim(-0.5, image.shape[2] - 0.5)
        axis.set_ylim(image.shape[1] - 0.5, -0.5)
        axis.axis("off")
    figure.suptitle("What the last deformable layer reads for the middle (+) of each digit")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
