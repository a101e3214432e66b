"""What one writes in plain PyTorch for an operator, in the dtypes of its inputs: the measure of
the error rule (an operator may err twice as much)."""

import torch


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
