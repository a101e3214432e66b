"""Slow, obvious references of roi_pool, ps_roi_align and ps_roi_pool, in fp64.

Where a bin ends is decided by rounding, so bin edges are computed in the dtype of ``rois``, as
torchvision computes them (`numpy` rounds every operation); values and gradients are fp64.
"""

import math

import numpy
import torch
from reference import bilinear


def _half_away(value):
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def pool_axis(low, high, scale, pooled, size, inclusive, number):
    """(first, last) pixel of each bin of one axis, last exclusive."""
    start, end = (_half_away(float(number(v) * number(scale))) for v in (low, high))
    bin_size = number(max(end - start + inclusive, 1)) / number(pooled)
    edges = []
    for p in range(pooled):
        first = math.floor(number(p) * bin_size) + start
        last = math.ceil(number(p + 1) * bin_size) + start
        edges.append((min(max(first, 0), size), min(max(last, 0), size)))
    return edges


def _rows(rois):
    """(image, x1, y1, x2, y2, all finite) of each box, and the type that edges are computed in."""
    number = numpy.float64 if rois.dtype == torch.float64 else numpy.float32
    rows = rois.double().tolist()
    return [(int(r[0]), *r[1:], all(map(math.isfinite, r[1:]))) for r in rows], number


def beats_as_nan(value, best):
    return math.isnan(value) and not math.isnan(best)


def roi_pool(input, rois, spatial_scale, height, width):
    """(output, argmax). The first greatest pixel of a bin; the first NaN beats all numbers."""
    input = input.double()
    channels, rows, columns = input.shape[1:]
    output = torch.zeros(len(rois), channels, height, width, dtype=torch.float64)
    argmax = torch.full(output.shape, -1, dtype=torch.int32)
    boxes, number = _rows(rois)
    pixels = input.tolist()
    taken = []
    for k, (image, x1, y1, x2, y2, finite) in enumerate(boxes):
        if not finite:
            continue
        ys = pool_axis(y1, y2, spatial_scale, height, rows, 1, number)
        xs = pool_axis(x1, x2, spatial_scale, width, columns, 1, number)
        for ph, (y0, y_end) in enumerate(ys):
            for pw, (x0, x_end) in enumerate(xs):
                for c in range(channels):
                    best = None
                    for y in range(y0, y_end):
                        for x in range(x0, x_end):
                            value = pixels[image][c][y][x]
                            if best is None or value > best[0] or beats_as_nan(value, best[0]):
                                best = (value, y, x)
                    if best is not None:
                        argmax[k, c, ph, pw] = best[1] * columns + best[2]
                        taken.append((k, c, ph, pw, image, best[1], best[2]))
    if taken:
        k, c, ph, pw, image, y, x = torch.tensor(taken).T
        output = output.index_put((k, c, ph, pw), input[image, c, y, x])
    return output, argmax


def ps_roi_pool(input, rois, spatial_scale, height, width):
    """The average of a bin's pixels; the map's last row and column are left out."""
    input = input.double()
    outputs, rows, columns = input.shape[1] // (height * width), *input.shape[2:]
    boxes, number = _rows(rois)
    pooled = []
    for image, x1, y1, x2, y2, finite in boxes:
        if not finite:
            pooled.append(torch.zeros(outputs, height, width, dtype=torch.float64))
            continue
        ys = pool_axis(y1, y2, spatial_scale, height, max(rows - 1, 0), 0, number)
        xs = pool_axis(x1, x2, spatial_scale, width, max(columns - 1, 0), 0, number)
        planes = input[image].view(outputs, height, width, rows, columns)
        bins = []
        for ph, (y0, y_end) in enumerate(ys):
            for pw, (x0, x_end) in enumerate(xs):
                bin_pixels = planes[:, ph, pw, y0:y_end, x0:x_end]
                area = max(bin_pixels.shape[1] * bin_pixels.shape[2], 1)
                bins.append(bin_pixels.sum((1, 2)) / area)
        pooled.append(torch.stack(bins, 1).view(outputs, height, width))
    if not pooled:
        return torch.zeros(0, outputs, height, width, dtype=torch.float64)
    return torch.stack(pooled)


def ps_roi_align(input, rois, spatial_scale, height, width, sampling_ratio=-1):
    """The average of a bin's bilinear samples, boxes shifted by half a pixel; 0 without samples."""
    input = input.double()
    outputs = input.shape[1] // (height * width)
    pooled = []
    for image, x1, y1, x2, y2, finite in _rows(rois)[0]:
        if not finite:
            pooled.append(torch.zeros(outputs, height, width, dtype=torch.float64))
            continue
        start_x, start_y = x1 * spatial_scale - 0.5, y1 * spatial_scale - 0.5
        bin_w = (x2 - x1) * spatial_scale / width
        bin_h = (y2 - y1) * spatial_scale / height
        grid_h = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_h), 0)
        grid_w = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_w), 0)
        planes = input[image].view(outputs, height, width, *input.shape[2:])
        bins = []
        for ph in range(height):
            for pw in range(width):
                total = torch.zeros(outputs, dtype=torch.float64)
                for i in range(grid_h):
                    y = start_y + ph * bin_h + (i + 0.5) * bin_h / grid_h
                    for j in range(grid_w):
                        x = start_x + pw * bin_w + (j + 0.5) * bin_w / grid_w
                        total = total + bilinear(planes[:, ph, pw], y, x)
                bins.append(total / max(grid_h * grid_w, 1))
        pooled.append(torch.stack(bins, 1).view(outputs, height, width))
    if not pooled:
        return torch.zeros(0, outputs, height, width, dtype=torch.float64)
    return torch.stack(pooled)
