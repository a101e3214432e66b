"""What the benchmarks of this room share: the machine, boxes, a function with its gradient."""

import os

import torch

DEVICE = "cuda" if os.environ.get("TILEWRIGHT_DEVICE") == "cuda" else "cpu"


def boxes(count, height, width):
    """Boxes in image coordinates whose sides are uniform up to half the image."""
    centre = torch.rand(count, 2) * torch.tensor([width, height])
    side = torch.rand(count, 2) * torch.tensor([width, height]) / 2
    return torch.cat([centre - side / 2, centre + side / 2], 1).to(DEVICE)


def backward(function, x, grad):
    """The function with its gradient."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def run():
        leaf.grad = None
        function(leaf).backward(grad)

    return run


def agree(ours, theirs, tolerance=2e-4):
    torch.testing.assert_close(ours.contiguous(), theirs.contiguous(), rtol=0, atol=tolerance)


def agree_in_gradients(ours, theirs, x, grad, tolerance=1e-3):
    """Relative to the greatest gradient: sums of many boxes, in another order."""
    leaf = x.detach().requires_grad_()
    mine, peer = (torch.autograd.grad(f(leaf), leaf, grad)[0] for f in (ours, theirs))
    agree(mine, peer, tolerance * peer.abs().max().item())


def rois_of(count, height, width):
    """(count, 5), all of the first image."""
    return torch.cat([torch.zeros(count, 1, device=DEVICE), boxes(count, height, width)], 1)
