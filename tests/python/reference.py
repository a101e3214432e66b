"""One slow, obvious reference per operator, in fp64, from the papers' formulas and the field's
rules."""

import math

import torch


def bilinear(plane, y, x):
    """Value of a (C, H, W) map at a point; 0 farther than a pixel outside, the border's value
    nearer."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width) or height == 0 or width == 0:
        return torch.zeros(plane.shape[0], dtype=plane.dtype)
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    return (
        plane[:, y0, x0] * (1 - fy) * (1 - fx)
        + plane[:, y0, x1] * (1 - fy) * fx
        + plane[:, y1, x0] * fy * (1 - fx)
        + plane[:, y1, x1] * fy * fx
    )


def roi_align(input, rois, spatial_scale, height, width, sampling_ratio=-1, aligned=False):
    """Differentiable in input; rois may be of any float dtype, the arithmetic is fp64."""
    input, rows = input.double(), rois.double().tolist()
    boxes = []
    for image, x1, y1, x2, y2 in rows:
        offset = 0.5 if aligned else 0.0
        start_x, start_y = x1 * spatial_scale - offset, y1 * spatial_scale - offset
        box_w, box_h = x2 * spatial_scale - offset - start_x, y2 * spatial_scale - offset - start_y
        if not all(map(math.isfinite, (start_x, start_y, box_w, box_h))):
            boxes.append(torch.zeros(input.shape[1], height, width, dtype=torch.float64))
            continue
        if not aligned:
            box_w, box_h = max(box_w, 1.0), max(box_h, 1.0)
        bin_h, bin_w = box_h / height, box_w / width
        grid_h = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_h), 0)
        grid_w = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_w), 0)
        bins = []
        for p in range(height):
            for q in range(width):
                total = torch.zeros(input.shape[1], dtype=torch.float64)
                for i in range(grid_h):
                    y = start_y + p * bin_h + (i + 0.5) * bin_h / grid_h
                    for j in range(grid_w):
                        x = start_x + q * bin_w + (j + 0.5) * bin_w / grid_w
                        total = total + bilinear(input[int(image)], y, x)
                bins.append(total / max(grid_h * grid_w, 1))
        boxes.append(torch.stack(bins, 1).view(-1, height, width))
    if not boxes:
        return torch.zeros(0, input.shape[1], height, width, dtype=torch.float64)
    return torch.stack(boxes)


def roi_align_rotated(input, rois, spatial_scale, height, width, sampling_ratio=-1, aligned=True):
    """rois: (image, centre x, centre y, width, height, angle in radians), the angle positive
    counter-clockwise as seen in the image."""
    input, pooled = input.double(), []
    for image, cx, cy, w, h, angle in rois.double().tolist():
        bins = torch.zeros(input.shape[1], height, width, dtype=torch.float64)
        pooled.append(bins)
        if not all(map(math.isfinite, (cx, cy, w, h, angle))):
            continue
        offset = 0.5 if aligned else 0.0
        cx, cy = cx * spatial_scale - offset, cy * spatial_scale - offset
        w, h = w * spatial_scale, h * spatial_scale
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        grid_h = sampling_ratio if sampling_ratio > 0 else max(math.ceil(h / height), 0)
        grid_w = sampling_ratio if sampling_ratio > 0 else max(math.ceil(w / width), 0)
        rows = []
        for p in range(height):
            for q in range(width):
                total = torch.zeros(input.shape[1], dtype=torch.float64)
                for i in range(grid_h):
                    v = -h / 2 + (p + (i + 0.5) / grid_h) * h / height
                    for j in range(grid_w):
                        u = -w / 2 + (q + (j + 0.5) / grid_w) * w / width
                        y = cy - u * math.sin(angle) + v * math.cos(angle)
                        x = cx + u * math.cos(angle) + v * math.sin(angle)
                        total = total + bilinear(input[int(image)], y, x)
                rows.append(total / max(grid_h * grid_w, 1))
        pooled[-1] = torch.stack(rows, 1).view(-1, height, width)
    if not pooled:
        return torch.zeros(0, input.shape[1], height, width, dtype=torch.float64)
    return torch.stack(pooled)


def pyramid_level(box, scales, canonical_scale=224, canonical_level=4):
    """Equation 1 of Feature Pyramid Networks, as an index into `scales`."""
    x1, y1, x2, y2 = box
    area = (x2 - x1) * (y2 - y1)
    first = round(-math.log2(scales[0]))
    if not area > 0:
        return 0
    level = math.floor(canonical_level + math.log2(math.sqrt(area) / canonical_scale) + 1e-6)
    return min(max(level - first, 0), len(scales) - 1)


def multiscale_roi_align(
    features, rois, scales, height, width, sampling_ratio=2, aligned=False, **canonical
):
    pooled = []
    for row in rois:
        level = pyramid_level(row[1:].double().tolist(), scales, **canonical)
        pooled.append(
            roi_align(
                features[level], row[None], scales[level], height, width, sampling_ratio, aligned
            )
        )
    if not pooled:
        return torch.zeros(0, features[0].shape[1], height, width, dtype=torch.float64)
    return torch.cat(pooled)


def box_overlap(a, b):
    """Intersection over union of two boxes; 0 where the union has no area."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union != 0 else 0.0


def nms(boxes, scores, iou_threshold, max_output=-1, idxs=None):
    """Greedy, one pair at a time."""
    rows, values = boxes.double().tolist(), scores.double().tolist()
    groups = [0] * len(rows) if idxs is None else idxs.tolist()
    usable = [
        i
        for i in range(len(rows))
        if all(map(math.isfinite, rows[i])) and not math.isnan(values[i])
    ]
    kept = []
    for i in sorted(usable, key=lambda i: -values[i]):
        if all(
            groups[i] != groups[k] or box_overlap(rows[i], rows[k]) <= iou_threshold for k in kept
        ):
            kept.append(i)
    if max_output >= 0:
        kept = kept[:max_output]
    return torch.tensor(kept, dtype=torch.int64)
