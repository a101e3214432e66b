"""Deformable convolution from the papers' formula (arXiv:1703.06211, 1811.11168), in fp64."""

import math

import torch


def bilinear(plane, y, x):
    """A (C, H, W) map that goes on as zeros, at a point (tensors of no dimensions)."""
    height, width = plane.shape[1:]
    total = torch.zeros(plane.shape[0], dtype=plane.dtype)
    at_y, at_x = y.item(), x.item()
    if not (-1 <= at_y < height and -1 <= at_x < width):  # NaN is not
        return total
    top, left = math.floor(at_y), math.floor(at_x)
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                total = total + weight_y * weight_x * plane[:, row, column]
    return total


def deform_conv2d(input, weight, offset, mask, bias, stride, padding, dilation, groups, og):
    """Differentiable in all tensors. stride, padding, dilation: pairs."""
    n, channels, height, width = input.shape
    outs, part, kh, kw = weight.shape
    oh = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    move = offset.reshape(n, og, kh * kw, 2, oh, ow)
    share = None if mask is None else mask.reshape(n, og, kh * kw, oh, ow)
    run = channels // og
    images = []
    for b in range(n):
        places = []
        for i in range(oh):
            for j in range(ow):
                taps = []
                for t in range(kh * kw):
                    y0 = i * stride[0] - padding[0] + t // kw * dilation[0]
                    x0 = j * stride[1] - padding[1] + t % kw * dilation[1]
                    groups_of_channels = []
                    for g in range(og):
                        plane = input[b, g * run : (g + 1) * run]
                        y, x = y0 + move[b, g, t, 0, i, j], x0 + move[b, g, t, 1, i, j]
                        value = bilinear(plane, y, x)
                        if share is not None:
                            value = value * share[b, g, t, i, j]
                        groups_of_channels.append(value)
                    taps.append(torch.cat(groups_of_channels))
                columns = torch.stack(taps, 1).reshape(groups, part, kh * kw)
                matrix = weight.reshape(groups, outs // groups, part, kh * kw)
                places.append(torch.einsum("gopt,gpt->go", matrix, columns).reshape(outs))
        images.append(torch.stack(places, 1).reshape(outs, oh, ow))
    out = torch.stack(images) if images else torch.zeros(0, outs, oh, ow, dtype=input.dtype)
    return out if bias is None else out + bias[:, None, None]


def composed(input, weight, offset, mask, bias, stride, padding, dilation, groups, og):
    """What one writes in plain PyTorch, in the dtypes given: columns by four gathers, a product."""
    n, channels, height, width = input.shape
    outs, part, kh, kw = weight.shape
    oh, ow = offset.shape[2:]
    move = offset.reshape(n, og, kh, kw, 2, oh, ow)
    rows = torch.arange(kh)[:, None, None, None] * dilation[0] - padding[0]
    rows = rows + torch.arange(oh)[:, None] * stride[0]
    columns = torch.arange(kw)[:, None, None] * dilation[1] - padding[1]
    columns = columns + torch.arange(ow) * stride[1]
    y, x = move[:, :, :, :, 0] + rows, move[:, :, :, :, 1] + columns
    top, left = y.detach().floor(), x.detach().floor()
    planes = input.reshape(n, og, channels // og, height * width)
    total = 0
    for down in (0, 1):
        for right in (0, 1):
            row, column = top + down, left + right
            there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = torch.where(there, row * width + column, 0).long().reshape(n, og, 1, -1)
            value = planes.gather(3, place.expand(-1, -1, channels // og, -1))
            weight_y = y - top if down else 1 - (y - top)
            weight_x = x - left if right else 1 - (x - left)
            share = (weight_y * weight_x * there).reshape(n, og, 1, -1)
            total = total + value * share.to(input.dtype)
    if mask is not None:
        total = total * mask.reshape(n, og, 1, -1).to(input.dtype)
    matrix = weight.reshape(groups, outs // groups, part * kh * kw)
    out = matrix @ total.reshape(n, groups, part * kh * kw, oh * ow)
    out = out.reshape(n, outs, oh, ow)
    return out if bias is None else out + bias[:, None, None]
