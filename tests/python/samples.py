"""Inputs that the tests of several operators share: maps, boxes, crowds of boxes."""

import math

import torch

ROIS = torch.tensor([[0.0, 1, 1, 6, 6]])
HEAD_WEIGHTS = [10.0, 10.0, 5.0, 5.0]  # of box coders, as in torchvision's heads
CLIP = math.log(1000 / 16)


def layout(tensor, channels_last):
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def leaf(tensor, device="cpu"):
    copy = tensor.detach().clone(memory_format=torch.preserve_format)
    return copy.to(device).requires_grad_()


def random_rois(count, height, width, scale=1.0, batch=1, dtype=torch.float32):
    """Boxes of all sizes, some over the border, in image coordinates."""
    centre = torch.rand(count, 2) * torch.tensor([width, height])
    size = torch.rand(count, 2) * torch.tensor([width, height]) * 0.8 + 0.3
    image = torch.randint(0, batch, (count, 1)).float()
    corners = torch.cat([centre - size / 2, centre + size / 2], 1) / scale
    return torch.cat([image, corners], 1).to(dtype)


def random_rotated_rois(count, height, width, scale=1.0, batch=1, dtype=torch.float32):
    """Boxes of all sizes and angles, some over the border, in image coordinates."""
    extent = torch.tensor([width, height])
    centre, size = torch.rand(count, 2) * extent, torch.rand(count, 2) * extent * 0.8 + 0.3
    image = torch.randint(0, batch, (count, 1)).float()
    angle = (torch.rand(count, 1) - 0.5) * 4 * math.pi
    return torch.cat([image, centre / scale, size / scale, angle], 1).to(dtype)


def random_boxes(count, device, dtype=torch.float32, size=100.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    side = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size * 0.5 + 1
    return torch.cat([corner, corner + side], 1).to(device=device, dtype=dtype)


def proposal_inputs(device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    level_sizes = [60, 24, 6]
    objectness = torch.randn(90, generator=generator, dtype=torch.float64) * 3
    deltas = torch.randn(90, 4, generator=generator, dtype=torch.float64) * 0.3
    anchors = random_boxes(90, "cpu", torch.float64, seed=seed)
    inputs = (objectness, deltas, anchors)
    return [x.to(device=device, dtype=dtype) for x in inputs], level_sizes


def detection_inputs(device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(40, 4, generator=generator, dtype=torch.float64) * 2).softmax(-1)
    boxes = random_boxes(160, "cpu", torch.float64, seed=seed).reshape(40, 16)
    return scores.to(device=device, dtype=dtype), boxes.to(device=device, dtype=dtype)


def crowd(count, dtype=torch.float32):
    """Overlapping boxes whose coordinates and scores every dtype holds exactly."""
    corner = torch.randint(0, 60, (count, 2))
    boxes = torch.cat([corner, corner + torch.randint(4, 60, (count, 2))], 1).to(dtype)
    scores = (torch.randperm(count).float() % 200 + 20) / 256
    return boxes, scores.to(dtype)


def scattered(count):
    """Boxes without equal coordinates, where overlaps have a derivative."""
    corner = torch.rand(count, 2, dtype=torch.float64) * 10
    side = torch.rand(count, 2, dtype=torch.float64) * 10 + 1
    return torch.cat([corner, corner + side], 1), torch.rand(count, dtype=torch.float64) + 0.5


def rotated_crowd(count, dtype=torch.float32, size=60.0):
    centre = torch.rand(count, 2, dtype=torch.float64) * size
    side = torch.rand(count, 2, dtype=torch.float64) * size / 2 + 1
    angle = (torch.rand(count, 1, dtype=torch.float64) - 0.5) * 4 * math.pi
    return torch.cat([centre, side, angle], 1).to(dtype), torch.rand(count).to(dtype)
