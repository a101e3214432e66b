"""Contrastive log-sum-exps and losses by their formulas: every score is stored."""

import torch
import torch.nn.functional as F

NONE = -float("inf")


def scores(query, key, scale=1.0, exclude=None, count=1, diagonal=False):
    """(N, M); -inf where a query and a key are no pair."""
    found = query @ key.t() * scale
    index = torch.arange(key.shape[0], device=key.device)[None]
    if diagonal:
        group = torch.arange(query.shape[0], device=key.device)[:, None] // count
        found = found.masked_fill(group == index // count, NONE)
    if exclude is not None:
        first = exclude[:, None]
        found = found.masked_fill((first >= 0) & (index >= first) & (index < first + count), NONE)
    return found


def log_sums(found, dim):
    """-inf, without a gradient, where no pair is left."""
    none = (found == NONE).all(dim, keepdim=True)
    return found.masked_fill(none, 0).logsumexp(dim).masked_fill(none.squeeze(dim), NONE)


def nt_xent(first, second, temperature):
    z = F.normalize(torch.cat([first, second]), dim=1)
    n = len(first)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(scores(z, z, 1 / temperature, diagonal=True), partner)


def info_nce(query, key, positive, temperature, normalize):
    if normalize:
        query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    if positive is None:
        positive = torch.arange(len(query), device=query.device)
    return F.cross_entropy(scores(query, key, 1 / temperature), positive)


def clip_loss(first, second, temperature, normalize):
    pairs = ((first, second), (second, first))
    both = (info_nce(*pair, None, temperature, normalize) for pair in pairs)
    return sum(both) / 2


def supervised_contrastive(features, labels, temperature):
    """One example at a time."""
    z = F.normalize(features, dim=1)
    found = scores(z, z, 1 / temperature, diagonal=True)
    losses = []
    for i in range(len(z)):
        own = [j for j in range(len(z)) if j != i and labels[j] == labels[i]]
        if own:
            losses.append(found[i].logsumexp(0) - found[i, own].mean())
    return torch.stack(losses).mean()


def local_global_infomax(whole, local, temperature):
    """One place at a time."""
    losses = []
    for n in range(len(whole)):
        others = torch.cat([local[m] for m in range(len(whole)) if m != n])
        negatives = others @ whole[n] / temperature
        for place in local[n]:
            own = place @ whole[n] / temperature
            losses.append(torch.cat([own[None], negatives]).logsumexp(0) - own)
    return torch.stack(losses).mean()
