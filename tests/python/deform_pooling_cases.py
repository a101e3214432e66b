"""Inputs of deformable RoI pooling that its tests share."""

import pytest
import reference_deform_pooling as reference
import torch
from samples import random_rois

ops = torch.ops.tilewright

# channels, bins, spatial scale, sampling ratio, gamma
ROI = {
    "sampled": (5, (3, 2), 0.5, 2, 0.1),
    "a sample a pixel": (19, (2, 3), 1.0, 0, 0.3),
    "registers of channels": (70, (2, 2), 0.25, 3, 0.1),
}
# outs, group, pooled, part, samples, trans_std, classes
PS = {
    "as in the paper": (3, 3, 3, 3, 4, 0.1, 1),
    "of classes": (4, 2, 4, 2, 3, 0.2, 2),
    "few maps, few parts": (20, 1, 3, 2, 2, 0.1, 4),
}


def roi_problem(case, dtype=torch.float64, boxes=6):
    channels, bins, scale, ratio, gamma = ROI[case]
    x = torch.randn(2, channels, 9, 8, dtype=torch.float64).to(dtype)
    rois = random_rois(boxes, 9, 8, scale, batch=2, dtype=torch.float64).float()
    offset = torch.randn(boxes, 2, *bins, dtype=torch.float64).to(dtype)
    return x, rois, offset, (scale, *bins, ratio, gamma)


def ps_problem(case, dtype=torch.float64, boxes=6):
    outs, group, pooled, part, samples, std, classes = PS[case]
    x = torch.randn(2, outs * group * group, 9, 8, dtype=torch.float64).to(dtype)
    rois = random_rois(boxes, 9, 8, 0.5, batch=2, dtype=torch.float64).float()
    offset = torch.randn(boxes, 2 * classes, part, part, dtype=torch.float64).to(dtype)
    return x, rois, offset, (0.5, outs, group, pooled, part, samples, std)


PROBLEMS = {
    **{name: (roi_problem, "deform_roi_pool") for name in ROI},
    **{name: (ps_problem, "deform_ps_roi_pool") for name in PS},
}
pooled = pytest.mark.parametrize("name", PROBLEMS)


def problem(name, dtype=torch.float64, **options):
    """The operator, its reference, and what they take."""
    make, operator = PROBLEMS[name]
    return getattr(ops, operator), getattr(reference, operator), make(name, dtype, **options)
