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


def made_logits(model, x, rank, index):
    """Germain et al. 2015, the whole network of a member in an order of pixels: (N, D)."""
    linear = torch.nn.functional.linear
    below, seen = x, rank
    for layer, degree in zip(model.layers, model.degrees[index].split(model.hidden), strict=True):
        below = torch.relu(linear(below, layer.weight * (degree[:, None] >= seen), layer.bias))
        seen = degree
    logits = linear(below, model.output.weight * (rank[:, None] > seen), model.output.bias)
    if model.direct is None:
        return logits
    return logits + linear(x, model.direct.weight * (rank[:, None] > rank))


def made_sample(model, given):
    """Rows that begin with what is given, (N, d): for every pixel the whole network is run, and a
    number drawn from torch's default generator."""
    pixels, known = model.pixels, given.shape[1]
    rows = torch.cat([given, given.new_zeros(len(given), pixels - known)], 1)
    orders, evidence = [], []
    for index, rank in enumerate(model.rank.tolist()):
        orders.append(sorted(range(pixels), key=lambda d, rank=rank: (d >= known, rank[d])))
        ranks = torch.tensor(orders[-1], device=rows.device).argsort() + 1
        p = torch.sigmoid(made_logits(model, rows, ranks, index))[:, :known]
        evidence.append(torch.where(given == 1, p, 1 - p).log().sum(1))
    member = torch.zeros_like(rows[:, 0], dtype=torch.int64)
    if model.num_masks > 1:
        chances = torch.stack(evidence, 1).float().softmax(1)
        member = torch.multinomial(chances, 1).squeeze(1)
    for index, order in enumerate(orders):
        mine = member == index
        ranks = torch.tensor(order, device=rows.device).argsort() + 1
        part = rows[mine]
        for d in order[known:]:
            p = torch.sigmoid(made_logits(model, part, ranks, index)[:, d])
            part[:, d] = (torch.rand_like(p) < p).to(part)
        rows[mine] = part
    return rows


def all_states(pixels, dtype=torch.float64):
    """(2^pixels, pixels)."""
    return torch.tensor(list(itertools.product((0, 1), repeat=pixels)), dtype=dtype)
