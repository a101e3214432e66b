"""Problems for deform_aggregate that its tests share."""

import torch

# channels, height, width, kernel, stride, padding, dilation, groups, offset scale
SHAPES = [
    (6, 5, 7, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1.0),
    (32, 4, 5, (3, 3), (1, 1), (1, 1), (1, 1), 2, 1.0),  # channels in packs of 16 bytes
    (12, 7, 8, (3, 2), (2, 1), (1, 2), (1, 2), 3, 0.75),
    (8, 5, 6, (2, 3), (1, 2), (0, 1), (2, 1), 8, 2.0),  # a channel a group
    (19, 4, 6, (1, 1), (1, 1), (0, 0), (1, 1), 1, -1.5),  # multiples of no register
    (70, 3, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1.0),  # a group in several blocks
]


def problem(shape, batch=2, dtype=torch.float64, seed=0):
    """(input, offset, mask) and the numbers behind them. No sample lies near a whole coordinate,
    where derivatives jump."""
    channels, height, width, kernel, stride, padding, dilation, groups, scale = shape
    g = torch.Generator().manual_seed(seed)

    def uniform(*sizes):
        return torch.rand(*sizes, generator=g, dtype=torch.float64)

    oh, ow = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    )
    half = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    grid = [
        (kx * dilation[1] - half[1], ky * dilation[0] - half[0])
        for kx in range(kernel[1])
        for ky in range(kernel[0])
    ]
    grid = torch.tensor(grid, dtype=torch.float64)
    away = torch.randint(-2, 3, (batch, oh, ow, groups, len(grid), 2), generator=g)
    at = (grid * scale).floor() + away + 0.2 + 0.6 * uniform(*away.shape)
    offset = (at / scale - grid).flatten(3)
    image = torch.randn(batch, height, width, channels, generator=g, dtype=torch.float64)
    mask = torch.randn(batch, oh, ow, groups * len(grid), generator=g, dtype=torch.float64)
    numbers = (kernel, stride, padding, dilation, groups, scale)
    return [image.to(dtype), offset.to(dtype), mask.to(dtype)], numbers


def call(tensors, numbers):
    return torch.ops.tilewright.deform_aggregate(*tensors, *numbers)
