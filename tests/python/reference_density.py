"""Autoregressive densities of binary vectors, written from the papers' formulas, pixel by pixel."""

import itertools

import torch


def nade(x, weight_in, bias_in, weight_out, bias_out):
    """Larochelle and Murray 2011, in the dtype of what is given: (N,)."""
    activation = bias_in.expand(len(x), -1)
    total = x.new_zeros(len(x))
    for d in range(x.shape[1]):
        p = torch.sigmoid(bias_out[d] + torch.sigmoid(activation) @ weight_out[d])
        total = total + torch.log(torch.where(x[:, d] == 1, p, 1 - p))
        activation = activation + x[:, d : d + 1] * weight_in[:, d]
    return total


def nade_in_logits(x, weight_in, bias_in, weight_out, bias_out):
    """The same as users write it, with a loss of logits: (N,)."""
    activation = bias_in.expand(len(x), -1)
    logits = []
    for d in range(x.shape[1]):
        logits.append(torch.sigmoid(activation) @ weight_out[d] + bias_out[d])
        activation = activation + x[:, d : d + 1] * weight_in[:, d]
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    return -loss(torch.stack(logits, 1), x, reduction="none").sum(1)


def all_states(pixels, dtype=torch.float64):
    """(2^pixels, pixels)."""
    return torch.tensor(list(itertools.product((0, 1), repeat=pixels)), dtype=dtype)
