"""Contrastive losses: values and gradients against their formulas, and what they refuse."""

import math
import sys
from pathlib import Path

import pytest
import reference_contrastive as reference
import torch
from checks import EPS, assert_same_bits, compile_and_run, export_and_run, script_round_trip
from torch.autograd import gradcheck

import tilewright

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from harness import peak_memory

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LABELS = torch.tensor([0, 1, 0, 2, 1, 5, 0, 1, 1, 2, 7])
# The loss, the shapes of its tensors, and what follows them.
LOSSES = {
    "nt_xent": ([(11, 6), (11, 6)], (0.2,)),
    "info_nce": ([(5, 6), (11, 6)], (torch.tensor([3, 10, 0, 3, 7]), 0.3, True)),
    "info_nce_plain": ([(5, 6), (11, 6)], (None, 1.5, False)),
    "clip_loss": ([(11, 6), (11, 6)], (0.07, True)),
    "supervised_contrastive": ([(11, 6)], (LABELS, 0.2)),
    "local_global_infomax": ([(4, 6), (4, 5, 6)], (1.3,)),
}


def problem(name, dtype, device="cpu"):
    shapes, rest = LOSSES[name]
    tensors = [torch.randn(shape).to(device, dtype).requires_grad_() for shape in shapes]
    rest = tuple(x.to(device) if isinstance(x, torch.Tensor) else x for x in rest)
    function = name.removesuffix("_plain")
    return tensors, rest, getattr(tilewright, function), getattr(reference, function)


@pytest.mark.smoke
@pytest.mark.kernels
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients(name, dtype, device):
    """Scores of 16 bits are of rows that are rounded when they have length 1."""
    tensors, rest, loss, expected = problem(name, dtype, device)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    ours, wanted = loss(*tensors, *rest), expected(*exact, *rest)
    assert ours.shape == () and ours.dtype == torch.promote_types(dtype, torch.float32)
    limit = 1e-12 if dtype == torch.float64 else 40 * EPS[dtype]
    torch.testing.assert_close(ours.double(), wanted, rtol=limit, atol=limit)
    grads = zip(torch.autograd.grad(ours, tensors), torch.autograd.grad(wanted, exact), strict=True)
    for found, right in grads:
        assert found.dtype == dtype
        largest = right.abs().max().item()
        torch.testing.assert_close(found.double(), right, rtol=limit, atol=limit * largest)


@pytest.mark.kernels
@pytest.mark.parametrize("count,temperature", [(500, 0.07), (64, 0.06), (8, 0.05)])
@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("supervised")])
def test_digits_of_losses_next_to_zero(name, count, temperature, device):
    """Pairs that are close and far from all others, as training ends: a difference of sums would
    leave few digits of the loss, and of its gradients' weights."""
    _, rest, loss, dense = problem(name, torch.float32, device)
    if name == "local_global_infomax":  # with one place, where its reference is slow

        def dense(whole, local, temperature):
            return reference.info_nce(whole, local[:, 0], None, temperature, False)

    first = torch.nn.functional.normalize(torch.randn(count, 256), dim=1)
    second = first + 0.02 * torch.randn(count, 256)
    given = [first, second[:, None] if name == "local_global_infomax" else second]
    rest = [None if isinstance(x, torch.Tensor) else x for x in rest]
    rest = [temperature if isinstance(x, float) else x for x in rest]
    given = [t.to(device).requires_grad_() for t in given]
    exact = [t.detach().double().requires_grad_() for t in given]
    ours, wanted = loss(*given, *rest), dense(*exact, *rest)
    assert 1e-10 < wanted < 1e-2
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=0)
    grads = zip(torch.autograd.grad(ours, given), torch.autograd.grad(wanted, exact), strict=True)
    for found, right in grads:
        largest = right.abs().max().item()
        torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-5 * largest)


@pytest.mark.kernels
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_differences(name, device):
    tensors, rest, loss, _ = problem(name, torch.float64, device)
    assert gradcheck(lambda *given: loss(*given, *rest), tensors)


def test_clip_is_the_mean_of_both_directions():
    first, second = (torch.randn(300, 16) for _ in range(2))
    ours = tilewright.clip_loss(first, second, 0.05)
    both = [tilewright.info_nce(*p, temperature=0.05) for p in ((first, second), (second, first))]
    torch.testing.assert_close(ours, sum(both) / 2)


def test_a_thousand_views_train():
    """Views of one example come together, and the mean of the loss falls below chance."""
    torch.manual_seed(0)
    rows = torch.nn.Parameter(torch.randn(2, 500, 8))
    optimizer = torch.optim.Adam([rows], 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = tilewright.nt_xent(rows[0], rows[1], 0.2)
        loss.backward()
        optimizer.step()
    assert loss.item() < math.log(999) - 1.5
    nearest = torch.cdist(*torch.nn.functional.normalize(rows.detach(), dim=2)).argmin(1)
    assert (nearest == torch.arange(500)).float().mean() > 0.95


def test_memory_grows_with_the_views_alone():
    """Forward and backward of 8,192 views, whose scores would be 256 MB: a few times their 4 MB."""
    first, second = torch.randn(2, 4096, 128, requires_grad=True)

    def step():
        torch.autograd.grad(tilewright.nt_xent(first, second), (first, second))

    step()
    peak = peak_memory(step)
    if peak is None:
        pytest.skip("the system does not tell how much memory a process took")
    assert peak < 80


def nt_xent_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return tilewright.nt_xent(first, second, 0.2)


def info_nce_of(query: torch.Tensor, key: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    return tilewright.info_nce(query, key, positive)


def test_same_bits_for_any_number_of_threads():
    first, second = torch.randn(2, 20_000, 4)
    whole, local = torch.randn(300, 4), torch.randn(300, 130, 4)

    def run():
        both = tilewright.clip_loss(first, second), tilewright.nt_xent(first[:9000], second[:9000])
        return [*both, tilewright.local_global_infomax(whole, local)]

    assert_same_bits(run, (2, 3))


@pytest.mark.parametrize("name", LOSSES)
def test_all_of_them_compile_and_export(name):
    tensors, rest, loss, _ = problem(name, torch.float32)

    def call(*given):
        return loss(*given, *rest)

    expected = call(*tensors)
    torch.testing.assert_close(compile_and_run(call, *tensors), expected)
    torch.testing.assert_close(export_and_run(call, *tensors), expected)


def test_script_compile_autocast():
    (first, second), _, _, _ = problem("nt_xent", torch.float32)
    for function, given in (
        (nt_xent_of, (first, second)),
        (info_nce_of, (first[:5], second, torch.tensor([3, 10, 0, 3, 7]))),
    ):
        expected = function(*given)
        torch.testing.assert_close(script_round_trip(function, *given), expected)
        torch.testing.assert_close(compile_and_run(function, *given), expected)
        with torch.autocast("cpu", torch.bfloat16):
            short = function(*given)
        assert short.dtype == torch.float32
        torch.testing.assert_close(short, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "clip_loss", "local_global_infomax"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_makes_one_dtype_of_two(name, dtype):
    """A projection beside rows of a memory bank: as if all were of autocast's dtype."""
    (first, second), rest, function, _ = problem(name, torch.float32)
    low = first.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = function(low, second, *rest)
        alike = function(low.float(), second, *rest)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, alike, rtol=0.01, atol=0.01)
    (grad,) = torch.autograd.grad(mixed, low)
    assert grad.dtype == dtype and grad.abs().max() > 0
    with pytest.raises(RuntimeError, match=r"must have .*'s dtype"):
        function(low, second, *rest)


TWO, ONE = torch.ones(2, 3), torch.ones(1, 3)
BAD = [
    ("nt_xent", (ONE, ONE), r"first must have at least two rows, .*, got \(1, 3\)"),
    ("nt_xent", (TWO, torch.ones(2, 4)), r"second must have first's shape \(2, 3\), got \(2, 4\)"),
    ("nt_xent", (TWO, TWO.double()), r"second must have first's dtype \(Float\), got Double"),
    ("nt_xent", (TWO, TWO, 0.0), "temperature must be positive and finite, got 0"),
    ("nt_xent", (TWO, TWO, math.nan), "temperature must be positive and finite, got nan"),
    ("nt_xent", (torch.ones(2, 0),) * 2, r"first must have features, got \(2, 0\)"),
    ("nt_xent", (TWO, TWO, 1e-39), "temperature must have an inverse in float32, got 1e-39"),
    ("info_nce", (ONE, ONE), r"key must have at least two rows, a positive and a negative, got"),
    ("info_nce", (torch.ones(0, 3), TWO), r"query must have rows, got \(0, 3\)"),
    ("info_nce", (torch.ones(3, 3), TWO), r"a row for each query \(3\) where positive is None"),
    ("info_nce", (TWO, TWO, torch.tensor([0, 2])), r"positive must lie in \[0, 2\), .* got 0 to 2"),
    ("info_nce", (TWO, TWO, torch.tensor([-1, 0])), r"must lie in \[0, 2\), .* got -1 to 0"),
    (
        "info_nce",
        (TWO, TWO, torch.tensor([0])),
        r"positive must have shape \(N,\) = \(2,\), got",
    ),
    ("info_nce", (TWO, TWO, torch.ones(2)), "positive must be int64, got Float"),
    ("info_nce", (TWO, TWO, None, -1.0), "temperature must be positive and finite, got -1"),
    ("clip_loss", (ONE, ONE), "first must have at least two rows"),
    ("supervised_contrastive", (TWO, torch.tensor([0, 1])), "no example has a positive"),
    ("supervised_contrastive", (TWO, torch.ones(2)), "labels must be int64, got Float"),
    ("supervised_contrastive", (ONE, torch.tensor([0])), "features must have at least two rows"),
    ("local_global_infomax", (ONE, torch.ones(1, 4, 3)), "whole must have at least two rows"),
    ("local_global_infomax", (TWO, TWO), r"local must have shape \(N, L, D\), got \(2, 3\)"),
    (
        "local_global_infomax",
        (TWO, torch.ones(2, 0, 3)),
        r"local must have shape \(2, L, 3\), L > 0, got",
    ),
]


@pytest.mark.parametrize("name,given,message", BAD)
def test_bad_input(name, given, message):
    with pytest.raises(RuntimeError, match=f"tilewright::{name}: .*{message}"):
        getattr(tilewright, name)(*given)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "info_nce_plain"])
def test_a_learnt_temperature_is_told_where_it_belongs(name):
    """PyTorch makes a number of it, which gets no gradient."""
    tensors, (*rest, _), loss, _ = problem(name, torch.float32)
    rest = rest[:1] if name in ("info_nce", "supervised_contrastive") else []
    learnt = torch.tensor(0.3, requires_grad=True)
    message = f"tilewright::{name}: temperature must be a number, got a tensor that requires"
    with pytest.raises(ValueError, match=message):
        loss(*tensors, *rest, learnt)
    with torch.no_grad():
        assert loss(*tensors, *rest, learnt) == loss(*tensors, *rest, learnt.item())
    assert loss(*tensors, *rest, learnt.detach()).requires_grad


def test_a_learnt_scale_is_told_where_it_belongs():
    with pytest.raises(ValueError, match="tilewright::contrastive_lse: scale must be a number"):
        tilewright.contrastive_lse(TWO, TWO, scale=torch.tensor(0.3, requires_grad=True))


@pytest.mark.parametrize("name", ["nt_xent", "info_nce_plain", "clip_loss", "local_global_infomax"])
def test_any_number_of_examples_is_exported(name):
    tensors, rest, loss, _ = problem(name, torch.float32)

    class Loss(torch.nn.Module):
        def forward(self, first, second):
            return loss(first, second, *rest)

    count = torch.export.Dim("count", min=2, max=64)
    shapes = ({0: count}, {0: count})
    given = [t.detach()[:4] for t in tensors]
    program = torch.export.export(Loss(), tuple(given), dynamic_shapes=shapes).module()
    more = [torch.cat([t, t.flip(0), 2 * t]) for t in given]
    torch.testing.assert_close(program(*more), Loss()(*more))


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_alone(name):
    """On the meta device, for which autocast is not."""
    tensors, rest, loss, _ = problem(name, torch.float32, "meta")
    found = loss(*tensors, *rest)
    assert found.is_meta and found.shape == () and found.dtype == torch.float32
