"""What one writes in plain PyTorch for an operator, in the dtypes of its inputs: the measure of
the error rule (an operator may err twice as much)."""

import numpy
import torch
from reference_pooling import pool_axis


def axis_weights(start, bin_size, bins, size, grid):
    """(bins, size): how much each pixel weighs in each bin on one axis, in the dtype of `start`."""
    dtype = start.dtype
    steps = (torch.arange(grid, dtype=dtype) + 0.5) / grid
    at = start + bin_size * (torch.arange(bins, dtype=dtype)[:, None] + steps)  # (bins, grid)
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor()
    high = (low + 1).clamp(max=size - 1)
    pixels = torch.arange(size, dtype=dtype)
    weights = (low[..., None] == pixels) * (1 - (at - low))[..., None]
    weights = weights + (high[..., None] == pixels) * (at - low)[..., None]
    return (weights * inside[..., None]).sum(1) / max(grid, 1)


def roi_align(input, rois, spatial_scale, height, width, sampling_ratio=-1, aligned=False):
    """RoIAlign as two small matrix products per box."""
    offset = 0.5 if aligned else 0.0
    pooled = []
    for roi in rois:
        x1, y1, x2, y2 = (roi[1:] * spatial_scale - offset).unbind()
        box_w, box_h = x2 - x1, y2 - y1
        if not aligned:
            box_w, box_h = box_w.clamp(min=1), box_h.clamp(min=1)
        bin_h, bin_w = box_h / height, box_w / width
        grid_h = sampling_ratio if sampling_ratio > 0 else max(int(bin_h.ceil()), 0)
        grid_w = sampling_ratio if sampling_ratio > 0 else max(int(bin_w.ceil()), 0)
        y = axis_weights(y1, bin_h, height, input.shape[2], grid_h).to(input.dtype)
        x = axis_weights(x1, bin_w, width, input.shape[3], grid_w).to(input.dtype)
        pooled.append(y @ input[int(roi[0])] @ x.T)
    return torch.stack(pooled)


def roi_align_rotated(input, rois, spatial_scale, height, width, sampling_ratio=-1, aligned=True):
    """Four gathers per sample."""
    offset = 0.5 if aligned else 0.0
    size_y, size_x = input.shape[2:]
    pooled = []
    for roi in rois:
        cx, cy = (roi[1:3] * spatial_scale - offset).unbind()
        w, h = (roi[3:5] * spatial_scale).unbind()
        if not aligned:
            w, h = w.clamp(min=1), h.clamp(min=1)
        grid_h = sampling_ratio if sampling_ratio > 0 else max(int((h / height).ceil()), 0)
        grid_w = sampling_ratio if sampling_ratio > 0 else max(int((w / width).ceil()), 0)
        steps = [
            (torch.arange(bins * grid, dtype=roi.dtype) + 0.5) / max(bins * grid, 1) - 0.5
            for bins, grid in ((height, grid_h), (width, grid_w))
        ]
        v, u = (steps[0] * h)[:, None], (steps[1] * w)[None]
        y = cy - u * roi[5].sin() + v * roi[5].cos()
        x = cx + u * roi[5].cos() + v * roi[5].sin()
        inside = (y >= -1) & (y <= size_y) & (x >= -1) & (x <= size_x)
        y, x = y.clamp(0, size_y - 1), x.clamp(0, size_x - 1)
        y0, x0 = y.floor().long(), x.floor().long()
        y1, x1 = (y0 + 1).clamp(max=size_y - 1), (x0 + 1).clamp(max=size_x - 1)
        wy, wx = y - y0, x - x0
        image = input[int(roi[0])]
        samples = sum(
            image[:, a, b] * (wa * wb * inside).to(input.dtype)
            for a, wa in ((y0, 1 - wy), (y1, wy))
            for b, wb in ((x0, 1 - wx), (x1, wx))
        )
        samples = samples.view(-1, height, grid_h, width, grid_w)
        pooled.append(samples.sum((2, 4)) / max(grid_h * grid_w, 1))
    return torch.stack(pooled)


def _differentiate(pool, input, grad):
    """(output, gradient) of a composition."""
    leaf = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = pool(leaf)
    output.backward(grad)
    return output.detach(), leaf.grad


def roi_pool(input, rois, spatial_scale, height, width, grad):
    """RoIPool as a maximum over slices."""
    edges = _edges(rois, spatial_scale, (height, width), input.shape[2:], 1)

    def pool(input):
        return torch.stack(
            [
                torch.stack(
                    [
                        input[image, :, y[0] : y[1], x[0] : x[1]].flatten(1).max(1).values
                        if y[0] < y[1] and x[0] < x[1]
                        else input.new_zeros(input.shape[1])
                        for y in ys
                        for x in xs
                    ],
                    1,
                ).view(-1, height, width)
                for image, ys, xs in edges
            ]
        )

    return _differentiate(pool, input, grad)


def ps_roi_pool(input, rois, spatial_scale, height, width, grad):
    """Position-sensitive RoIPool as means over slices."""
    limits = [max(size - 1, 0) for size in input.shape[2:]]
    edges = _edges(rois, spatial_scale, (height, width), limits, 0)
    bins = [(p, q) for p in range(height) for q in range(width)]

    def pool(input):
        planes = input.view(input.shape[0], -1, height, width, *input.shape[2:])
        return torch.stack(
            [
                torch.stack(
                    [
                        planes[image, :, p, q, slice(*ys[p]), slice(*xs[q])].mean((1, 2))
                        if ys[p][0] < ys[p][1] and xs[q][0] < xs[q][1]
                        else input.new_zeros(planes.shape[1])
                        for p, q in bins
                    ],
                    1,
                ).view(-1, height, width)
                for image, ys, xs in edges
            ]
        )

    return _differentiate(pool, input, grad)


def ps_roi_align(input, rois, spatial_scale, height, width, sampling_ratio, grad):
    """RoIAlign of all channels, of which every bin keeps its own."""

    def pool(input):
        all_channels = roi_align(input, rois, spatial_scale, height, width, sampling_ratio, True)
        grid = all_channels.view(len(rois), -1, height, width, height, width)
        return torch.einsum("kcpqpq->kcpq", grid)

    return _differentiate(pool, input, grad)


def _edges(rois, spatial_scale, size, limits, inclusive):
    number = numpy.float64 if rois.dtype == torch.float64 else numpy.float32
    edges = []
    for image, x1, y1, x2, y2 in rois.tolist():
        ys = pool_axis(y1, y2, spatial_scale, size[0], limits[0], inclusive, number)
        xs = pool_axis(x1, x2, spatial_scale, size[1], limits[1], inclusive, number)
        edges.append((int(image), ys, xs))
    return edges
