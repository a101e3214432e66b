"""Deformable RoI pooling from its formula (arXiv:1703.06211; R-FCN's form as MXNet has it), a
sample at a time, in fp64."""

import math

import torch


def _half_away(value):
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _bilinear(plane, y, x):
    """A (C, H, W) map at a point (tensors of no dimensions), which is clamped to it."""
    height, width = plane.shape[1:]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = math.floor(y.item()), math.floor(x.item())
    below, after = min(top + 1, height - 1), min(left + 1, width - 1)
    down, right = y - top, x - left
    above = (1 - right) * plane[:, top, left] + right * plane[:, top, after]
    under = (1 - right) * plane[:, below, left] + right * plane[:, below, after]
    return (1 - down) * above + down * under


def _finite(*values):
    return all(math.isfinite(v) for v in values)


def deform_roi_pool(input, rois, offset, spatial_scale, height, width, sampling_ratio, gamma):
    """offset (K, 2, height, width): x, then y."""
    results = []
    size = input.shape[2:]
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        out = [torch.zeros(input.shape[1], dtype=input.dtype)] * (height * width)
        left, top = x1 * spatial_scale - 0.5, y1 * spatial_scale - 0.5
        across, down = (x2 - x1) * spatial_scale, (y2 - y1) * spatial_scale
        for b in range(height * width if _finite(x1, y1, x2, y2) else 0):
            p, q = divmod(b, width)
            grid_y = sampling_ratio if sampling_ratio > 0 else max(math.ceil(down / height), 0)
            grid_x = sampling_ratio if sampling_ratio > 0 else max(math.ceil(across / width), 0)
            move_x, move_y = gamma * across * offset[k, 0, p, q], gamma * down * offset[k, 1, p, q]
            for i in range(grid_y):
                for j in range(grid_x):
                    y = top + (p + (i + 0.5) / grid_y) * down / height + move_y
                    x = left + (q + (j + 0.5) / grid_x) * across / width + move_x
                    if -1 <= y <= size[0] and -1 <= x <= size[1]:
                        sample = _bilinear(input[int(image)], y, x)
                        out[b] = out[b] + sample / (grid_y * grid_x)
        results.append(torch.stack(out, 1).reshape(-1, height, width))
    return torch.stack(results)


def deform_ps_roi_pool(
    input, rois, offset, spatial_scale, outs, group, pooled, part, samples, trans_std
):
    """offset (K, 2 * classes, part, part): x, then y, of each class."""
    classes, size = offset.shape[1] // 2, input.shape[2:]
    maps = input.reshape(input.shape[0], outs, group, group, *size)
    results = []
    for k, (image, *corners) in enumerate(rois.tolist()):
        out = torch.zeros(outs, pooled, pooled, dtype=input.dtype).unbind(0)
        if not _finite(*corners):
            results.append(torch.stack(out))
            continue
        x1, y1, x2, y2 = (_half_away(c) for c in corners)
        left, top = x1 * spatial_scale - 0.5, y1 * spatial_scale - 0.5
        across = max((x2 + 1) * spatial_scale - 0.5 - left, 0.1)
        down = max((y2 + 1) * spatial_scale - 0.5 - top, 0.1)
        channels = []
        for c in range(outs):
            kind = c // (outs // classes)
            bins = []
            for b in range(pooled * pooled):
                p, q = divmod(b, pooled)
                where = p * part // pooled, q * part // pooled
                move_x = offset[k, 2 * kind][where] * trans_std * across
                move_y = offset[k, 2 * kind + 1][where] * trans_std * down
                plane = maps[int(image), c, p * group // pooled, q * group // pooled][None]
                total, count = torch.zeros((), dtype=input.dtype), 0
                for i in range(samples):
                    for j in range(samples):
                        y = top + (p + i / samples) * down / pooled + move_y
                        x = left + (q + j / samples) * across / pooled + move_x
                        if -0.5 <= y <= size[0] - 0.5 and -0.5 <= x <= size[1] - 0.5:
                            total = total + _bilinear(plane, y, x)[0]
                            count += 1
                bins.append(total / max(count, 1))
            channels.append(torch.stack(bins).reshape(pooled, pooled))
        results.append(torch.stack(channels))
    return torch.stack(results)
