"""DCNv3's and DCNv4's aggregation from the papers' formula (arXiv:2211.05778, 2401.06197), and the
composition around grid_sample that one writes in plain PyTorch."""

import torch
from reference_deform import bilinear
from torch.nn.functional import grid_sample, pad


def deform_aggregate(
    input, offset, mask, kernel, stride, padding, dilation, groups, offset_scale=1.0
):
    """Place by place, in the dtypes given. kernel, stride, padding, dilation: pairs (y, x)."""
    n, oh, ow, _ = offset.shape
    taps = kernel[0] * kernel[1]
    run = input.shape[3] // groups
    move = offset.reshape(n, oh, ow, groups, taps, 2)
    share = mask.reshape(n, oh, ow, groups, taps)
    half = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    grid = [(kx, ky) for kx in range(kernel[1]) for ky in range(kernel[0])]
    images = []
    for b in range(n):
        rows = []
        for i in range(oh):
            for j in range(ow):
                place = []
                for g in range(groups):
                    plane = input[b, :, :, g * run : (g + 1) * run].permute(2, 0, 1)
                    total = 0
                    for t, (kx, ky) in enumerate(grid):
                        to_right, down = move[b, i, j, g, t]
                        y = i * stride[0] - padding[0] + half[0]
                        x = j * stride[1] - padding[1] + half[1]
                        y = y + (ky * dilation[0] - half[0] + down) * offset_scale
                        x = x + (kx * dilation[1] - half[1] + to_right) * offset_scale
                        total = total + share[b, i, j, g, t] * bilinear(plane, y, x)
                    place.append(total)
                rows.append(torch.cat(place))
        images.append(torch.stack(rows).reshape(oh, ow, -1))
    return torch.stack(images) if images else input.new_zeros(0, oh, ow, input.shape[3])


def composed(input, offset, mask, kernel, stride, padding, dilation, groups, offset_scale=1.0):
    """In the dtypes given: the padded map, normalised places, one grid_sample for all taps, a sum.
    Places are computed in float32 beside 16-bit maps, since grid_sample takes its map's dtype."""
    n, oh, ow, _ = offset.shape
    taps, run = kernel[0] * kernel[1], input.shape[3] // groups
    padded = pad(input, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    height, width = padded.shape[1:3]
    planes = padded.reshape(n, height, width, groups, run).permute(0, 3, 4, 1, 2)
    wide = torch.promote_types(offset.dtype, torch.float32)

    def axis(index, count, size):
        half = dilation[index] * (kernel[index] - 1) // 2
        centre = torch.arange(count, dtype=wide) * stride[index] + half
        grid = torch.arange(kernel[index], dtype=wide) * dilation[index] - half
        shape = (-1, 1) if index == 0 else (1, -1)
        grid = grid.repeat(kernel[1]) if index == 0 else grid.repeat_interleave(kernel[0])
        move = offset.reshape(n, oh, ow, groups, taps, 2)[..., 1 - index].to(wide)
        at = centre.reshape(*shape, 1, 1) + (grid + move) * offset_scale
        return (2 * at + 1) / size - 1  # pixel centres lie at halves

    where = torch.stack([axis(1, ow, width), axis(0, oh, height)], -1)
    where = where.permute(0, 3, 1, 2, 4, 5).reshape(n * groups, oh * ow, taps, 2)
    read = grid_sample(
        planes.reshape(n * groups, run, height, width).to(wide),
        where,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).to(input.dtype)
    share = mask.reshape(n, oh * ow, groups, taps).transpose(1, 2)
    out = (read * share.reshape(n * groups, 1, oh * ow, taps).to(input.dtype)).sum(-1)
    return out.reshape(n, groups * run, oh, ow).permute(0, 2, 3, 1)
