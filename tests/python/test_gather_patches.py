"""gather_patches: a 3x3 convolution at a few cells, by its definition and its gradient."""

import pytest
import torch
import torch.nn.functional as F
from checks import opcheck, script_round_trip
from torch.testing import assert_close

gather_patches = torch.ops.tilewright.gather_patches


def maps(dtype=torch.float64, last=False):
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, 7), (3, 4), (1, 1)]
    layout = torch.channels_last if last else torch.contiguous_format
    return [
        torch.randn(2, 6, *size, generator=generator, dtype=torch.float64)
        .to(dtype)
        .to(memory_format=layout)
        .requires_grad_()
        for size in sizes
    ]


def everywhere(features, weight):
    """The convolution at all cells, image after image, map after map: (B * cells, O)."""
    rows = [F.conv2d(x, weight, padding=1).permute(0, 2, 3, 1).flatten(1, 2) for x in features]
    return torch.cat(rows, 1).flatten(0, 1)


@pytest.mark.smoke
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("all_cells", [False, True])
def test_it_is_the_convolution_there(last, all_cells):
    features = maps(last=last)
    weight = torch.randn(8, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = everywhere(features, weight)
    count = len(expected)
    assert count == 2 * (35 + 12 + 1)
    cells = torch.randperm(count) if all_cells else torch.tensor([47, 3, 48, 95, 3, 60, 34, 35])
    patches = gather_patches(features, cells)
    assert patches.shape == (len(cells), 54)
    got = patches @ weight.permute(0, 2, 3, 1).flatten(1).t()
    assert_close(got, expected[cells], rtol=0, atol=1e-12)
    grad = torch.randn_like(got)
    inputs = [*features, weight]
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, grad),
        torch.autograd.grad(expected[cells], inputs, grad),
        strict=True,
    ):
        assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    features = maps(dtype)
    cells = torch.tensor([8, 94])
    exact = gather_patches([x.double() for x in features], cells)
    assert torch.equal(gather_patches(features, cells).double(), exact)


@pytest.mark.smoke
def test_opcheck():
    cells = torch.tensor([8, 93])
    opcheck(gather_patches.default, (maps(torch.float32)[:2], cells))


def gather(features: list[torch.Tensor], cells: torch.Tensor) -> torch.Tensor:
    return torch.ops.tilewright.gather_patches(features, cells)


@pytest.mark.smoke
def test_torchscript_file():
    features, cells = maps(), torch.tensor([47, 3])
    assert torch.equal(script_round_trip(gather, features, cells), gather(features, cells))


def test_no_cells():
    features = maps()
    patches = gather_patches(features, torch.zeros(0, dtype=torch.int64))
    assert patches.shape == (0, 54)
    patches.sum().backward()
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, c: ([], c), "must hold one map per level, got an empty list"),
        (lambda x, c: ([x[0][0]], c), r"must have shape \(B, C, H, W\)"),
        (lambda x, c: ([x[0], x[1][:1]], c), r"must have shape .* got \(1, 6, 3, 4\)"),
        (lambda x, c: ([x[0], x[1].float()], c), "must have the dtype of features"),
        (lambda x, c: (x, c[None]), r"must have shape \(N,\), got \(1, 2\)"),
        (lambda x, c: (x, c.int()), "must be int64, got Int"),
        (lambda x, c: (x, c + 95), r"must lie in \[0, 96\), got 96"),
        (lambda x, c: (x, c - 1), r"must lie in \[0, 96\), got -1"),
    ],
)
def test_bad_input(change, message):
    features, cells = change(maps(), torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match=f"tilewright::gather_patches: .*{message}"):
        gather_patches(features, cells)
