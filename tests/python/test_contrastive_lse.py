"""contrastive_lse: sums and gradients against all scores in fp64, what is left out, limits."""

import itertools
import math
import re

import pytest
import torch
from checks import EPS, assert_close_to_fp64, assert_same_bits, opcheck, script_round_trip
from conftest import DTYPES, MACHINE
from reference_contrastive import log_sums, scores
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
pytestmark = pytest.mark.kernels
SIZES = [(1, 2, 1), (5, 3, 7), (70, 300, 33), (257, 513, 16)]
SIZES += [(130, 150, 104), (65, 70, 201), (70, 66, 300)]
if MACHINE != "simt":  # which is slow
    SIZES += [(40, 2100, 20), (1100, 65, 40)]


@pytest.fixture(autouse=True)
def on_device(device):
    """Tensors of this file live where their operators run."""
    if device.type == "cpu":
        yield
        return
    with device:
        yield


# Of views among themselves, how many stand side by side; of sums in both directions, what is left
# out: the diagonal, or blocks of two of it.
VIEWS = {"self": 1, "groups": 3}
BOTH = {"both": (1, False), "off": (1, True), "off by two": (2, True)}
KINDS = ["excluded", *VIEWS, *BOTH]


def longest(rows):
    return rows.double().norm(dim=1).max().item()


def leaves(n, m, d, dtype, factor=1.0):
    return [(torch.randn(size, d) * factor).to(dtype).requires_grad_() for size in (n, m)]


def sums_of(kind, query, key, scale, exclude):
    """Log-sum-exps of a kind, and the inputs that they depend on."""
    if kind in VIEWS:
        sums = ops._contrastive_lse(query, None, None, scale, False, VIEWS[kind])
        return list(sums)[:1], [query]
    if kind in BOTH:
        return list(ops._contrastive_lse(query, key, None, scale, True, *BOTH[kind])), [query, key]
    return [tilewright.contrastive_lse(query, key, exclude, scale, 2)], [query, key]


def reference(kind, query, key, scale, exclude):
    if kind in VIEWS:
        found = scores(query, query, scale, None, VIEWS[kind], diagonal=True)
        return [log_sums(found, 1)], [query]
    if kind in BOTH:
        found = scores(query, key, scale, None, *BOTH[kind])
        return [log_sums(found, 1), log_sums(found, 0)], [query, key]
    return [log_sums(scores(query, key, scale, exclude, 2), 1)], [query, key]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
# Of small scores one shift serves all; others have maxima of their own.
@pytest.mark.parametrize("scale", [0.05, 1.0, -2.5])
def test_sums_and_gradients(size, dtype, kind, scale):
    query, key = leaves(*size, dtype)
    exclude = torch.randint(-1, size[1] - 1, size[:1])
    exclude[0] = -1
    if kind in VIEWS and size[0] == 1:
        query = leaves(4, 1, size[2], dtype)[0]
    results = []
    for to in (dtype, torch.promote_types(dtype, torch.float32), torch.float64):
        of = reference if results else sums_of
        given = [t.detach().to(to).requires_grad_() for t in (query, key)]
        sums, inputs = of(kind, *given, scale, exclude)
        if not results:
            grads = [torch.randn(s.shape, dtype=s.dtype) for s in sums]
        seen = [s.isfinite() for s in sums]
        triples = zip(sums, grads, seen, strict=True)
        total = sum((s[f] * g.to(s.dtype)[f]).sum() for s, g, f in triples)
        results.append((sums, torch.autograd.grad(total, inputs)))
    # Scores are shifted by a bound of all of them, whose last place counts, and raised with a
    # relative error of a place.
    lengths = [longest(query), longest(query if kind in VIEWS else key)]
    most, part = abs(scale) * lengths[0] * lengths[1], 2 * EPS[torch.float32]
    for ours, plain, exact in zip(*(r[0] for r in results), strict=True):
        fine = exact.isfinite()
        assert torch.equal(ours[~fine].double(), exact[~fine])
        assert_close_to_fp64(
            ours[fine].detach(), plain[fine], exact[fine].detach(), terms=1 + most, part=part
        )
    term = abs(scale) * max(g.abs().max().item() for g in grads) * max(lengths)
    for ours, plain, exact in zip(*(r[1] for r in results), strict=True):
        assert ours.dtype == dtype
        assert_close_to_fp64(ours, plain, exact, gradient=True, terms=term * (1 + most), part=part)


def test_what_is_left_of_a_query_without_keys():
    query, key = leaves(3, 2, 4, torch.float32)
    exclude = torch.tensor([0, -1, 0])
    sums = tilewright.contrastive_lse(query, key, exclude, exclude_count=2)
    assert sums[0] == sums[2] == -math.inf and sums[1].isfinite()
    sums[1].backward()
    assert (query.grad[[0, 2]] == 0).all() and (query.grad[1] != 0).all()
    query.grad = None
    tilewright.contrastive_lse(query, key, exclude, exclude_count=2).nan_to_num().sum().backward()
    assert query.grad.isfinite().all() and (query.grad[0] == 0).all()


@pytest.mark.no_launch
@pytest.mark.parametrize("n,m", [(0, 3), (3, 0), (0, 0)])
def test_nothing(n, m):
    query, key = leaves(n, m, 4, torch.float32)
    sums = tilewright.contrastive_lse(query, key)
    assert sums.shape == (n,) and (sums == -math.inf).all()
    sums.sum().backward()
    assert not query.grad.any() and not key.grad.any()


@pytest.mark.parametrize("size", [3e3, 6e4, 1e8, 1e14])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_beyond_the_digits_of_float32(kind, size):
    """Their sums are as large as they are, to these digits, and gradients are shares of 1."""
    query, key = leaves(6, 300, 8, torch.float32, size)
    exclude = torch.full((6,), -1)
    ours, inputs = sums_of(kind, query, key, 1.0, exclude)
    given = [t.detach().double() for t in (query, key)]
    longest_row = max(longest(query), longest(key))
    for found, exact in zip(ours, reference(kind, *given, 1.0, exclude)[0], strict=True):
        fine = exact.isfinite()
        limit = 1e-6 * longest_row**2  # of products whose terms may cancel
        torch.testing.assert_close(found[fine].double(), exact[fine], rtol=0, atol=limit)
        assert torch.equal(found[~fine].double(), exact[~fine])
    total = sum(s[s.isfinite()].sum() for s in ours)
    for grad in torch.autograd.grad(total, inputs):
        assert grad.isfinite().all() and grad.abs().max() <= 2 * 300 * longest_row


def test_large_scores_neither_overflow_nor_vanish():
    query, key = leaves(6, 300, 8, torch.float32)
    for scale in (1e4, 1e-30, 0.0):
        sums = tilewright.contrastive_lse(query, key, scale=scale)
        exact = scores(query.double(), key.double(), scale).logsumexp(1)
        torch.testing.assert_close(sums.double(), exact, rtol=1e-6, atol=0)
    # Every score but one is far below: half of the range that one shift serves.
    rows = torch.tensor([[1.0, 0], [-1, 0]]).repeat(64, 1)
    for scale in (16.0, 16.7, 20.0, 90.0):
        sums = ops._contrastive_lse(rows, None, None, scale, False)[0]
        exact = scores(rows.double(), rows.double(), scale, diagonal=True).logsumexp(1)
        torch.testing.assert_close(sums.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind):
    query, key = leaves(5, 4, 3, torch.float64)
    exclude = torch.tensor([0, -1, 2, 1, 0])

    def call(q, k):
        return tuple(sums_of(kind, q, k, 0.7, exclude)[0])

    assert gradcheck(call, (query, key))
    assert gradgradcheck(call, (query, key))


@pytest.mark.skipif(MACHINE != "cpu", reason="CUDA kernels have no threads of the CPU")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(700, 900, 24), (60, 3000, 8), (3000, 60, 8)])
@pytest.mark.parametrize("scale", [0.05, 4.0])  # one shift for all, and maxima
def test_same_bits_for_any_number_of_threads(kind, size, scale):
    query, key = leaves(*size, torch.float32)

    def run():
        sums, inputs = sums_of(kind, query, key, scale, torch.zeros(size[0], dtype=torch.int64))
        return [*sums, *torch.autograd.grad(sum(s.sum() for s in sums), inputs)]

    assert_same_bits(run, (2, 3))


def test_other_strides_and_one_gradient_alone():
    query, key = leaves(9, 8, 6, torch.float32)
    expected = tilewright.contrastive_lse(query, key)
    wide = torch.zeros(9, 12)
    wide[:, ::2] = query.detach()
    assert torch.equal(tilewright.contrastive_lse(wide[:, ::2], key.t().contiguous().t()), expected)
    both = torch.autograd.grad(expected.sum(), (query, key))
    for i in range(2):
        given = [t.detach().requires_grad_(j == i) for j, t in enumerate((query, key))]
        tilewright.contrastive_lse(*given).sum().backward()
        assert torch.equal(given[i].grad, both[i]) and given[1 - i].grad is None


def lse_of(query: torch.Tensor, key: torch.Tensor, exclude: torch.Tensor) -> torch.Tensor:
    return tilewright.contrastive_lse(query, key, exclude, scale=0.5)


def test_script_export_compile_and_opcheck():
    query, key = leaves(6, 5, 4, torch.float32)
    exclude = torch.tensor([0, -1, 2, 1, 4, 3])
    expected = lse_of(query, key, exclude)
    assert torch.equal(script_round_trip(lse_of, query, key, exclude), expected)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(
        _Lse(), (query, key, exclude), dynamic_shapes=({0: rows}, None, {0: rows})
    )
    few = program.module()(query[:3], key, exclude[:3])
    torch.testing.assert_close(few, expected[:3])
    compiled = torch.compile(lse_of, fullgraph=True, backend="aot_eager")(query, key, exclude)
    assert torch.equal(compiled, expected)
    grads = [torch.autograd.grad(y.sum(), (query, key)) for y in (compiled, expected)]
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)
    for arguments in (
        (query, key, exclude, 0.5, False, 1, False),
        (query, key, None, 0.5, True, 1, False),
        (query, None, None, 0.5, False, 2, False),
        (query, key, None, 0.5, True, 1, True),
    ):
        opcheck(ops._contrastive_lse.default, arguments)
        sums = [s.detach() for s in ops._contrastive_lse(*arguments)]
        q, k, e, *numbers = (a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)
        opcheck(
            ops._contrastive_lse_backward.default,
            (*map(torch.ones_like, sums), q, k, e, *sums, *numbers, [True, k is not None]),
        )


class _Lse(torch.nn.Module):
    def forward(self, query, key, exclude):
        return lse_of(query, key, exclude)


def test_autocast():
    query, key = leaves(6, 5, 4, torch.float32)
    with torch.autocast(query.device.type, torch.bfloat16):
        sums = tilewright.contrastive_lse(query, key)
    assert sums.dtype == torch.float32
    assert torch.equal(sums, tilewright.contrastive_lse(query.bfloat16(), key.bfloat16()))


BAD = [
    ({"query": torch.ones(3)}, r"query must have shape \(N, D\), got \(3,\)"),
    (
        {"query": torch.ones(3, 0), "key": torch.ones(4, 0)},
        r"query must have features, got \(3, 0\)",
    ),
    ({"query": torch.ones(3, 2).int()}, "query must be float64, float32, float16 or bfloat16, got"),
    ({"key": torch.ones(4, 3)}, r"key must have shape \(M, 2\), got \(4, 3\)"),
    ({"key": torch.ones(4, 2).double()}, r"key must have query's dtype \(Float\), got Double"),
    ({"exclude": torch.zeros(2).long()}, r"exclude must have shape \(N,\) = \(3,\), got \(2,\)"),
    ({"exclude": torch.zeros(3)}, "exclude must be int64, got Float"),
    ({"scale": math.nan}, "scale must be finite in float32, got nan"),
    ({"scale": 1e39}, "scale must be finite in float32, got 1e.39"),
    ({"exclude_count": 0}, "exclude_count must be positive, got 0"),
]


@pytest.mark.no_launch
def test_columns_of_views():
    rows, exclude = torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="columns need keys that are not the queries"):
        ops._contrastive_lse(rows, None, None, 1.0, True)
    for more in ((True,), (False, 1, True)):
        with pytest.raises(RuntimeError, match="exclude must be None where there are columns or"):
            ops._contrastive_lse(rows, rows, exclude, 1.0, *more)


@pytest.mark.no_launch
@pytest.mark.parametrize("wrong,message", BAD)
def test_bad_input(wrong, message, device):
    given = {"query": torch.ones(3, 2), "key": torch.ones(4, 2)} | wrong
    given = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    with pytest.raises(RuntimeError, match="tilewright::contrastive_lse: " + message):
        tilewright.contrastive_lse(**given)


WRONG_INDICES = [
    ([0, 4, 1], r"exclude\[1\] must be -1 or lie in \[0, 4\), got 4"),
    ([0, 0, -2], r"exclude\[2\] must be -1 or lie in \[0, 4\), got -2"),
    ([-(2**63), 2**62, 1], r"exclude\[0\] must be -1 or lie in \[0, 4\), got -9223372036854775808"),
]


@pytest.mark.parametrize("exclude,message", WRONG_INDICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_indices_out_of_range(exclude, message, dtype, data_raises):
    """An error on the CPU; on CUDA they exclude what there is."""
    query, key = leaves(3, 4, 8, dtype)
    wrong = torch.tensor(exclude)
    if data_raises:
        with pytest.raises(RuntimeError, match="tilewright::contrastive_lse: " + message):
            tilewright.contrastive_lse(query, key, wrong)
        return
    sums = tilewright.contrastive_lse(query, key, wrong)
    sums.sum().backward()
    inside = wrong.where((wrong >= 0) & (wrong < 4), torch.tensor(-1))
    right = scores(query.double(), key.double(), 1.0, inside).logsumexp(1)
    torch.testing.assert_close(sums.double(), right, rtol=1e-5, atol=1e-5)
    assert query.grad.isfinite().all() and key.grad.isfinite().all()


@pytest.mark.no_launch
def test_an_index_into_no_keys(data_raises):
    query, exclude = torch.ones(3, 2), torch.tensor([7, 7, 7])
    if data_raises:
        with pytest.raises(RuntimeError, match=r"exclude\[0\] must be -1 or lie in"):
            tilewright.contrastive_lse(query, torch.ones(0, 2), exclude)
    else:
        sums = tilewright.contrastive_lse(query, torch.ones(0, 2), exclude)
        assert (sums == -math.inf).all()


@pytest.mark.parametrize("first,count,left", [(-5, 10, []), (-3, 4, [1, 2, 3]), (2, 2**62, [0, 1])])
def test_ranges_that_are_longer_than_the_keys(first, count, left, data_raises):
    """What of a range lies within the keys is excluded, on CUDA where the CPU refuses it."""
    query, key = leaves(2, 4, 8, torch.float32)
    exclude = torch.tensor([first, -1])

    def call():
        return tilewright.contrastive_lse(query, key, exclude, exclude_count=count)

    if data_raises:
        wrong = "exclude_count must be at most the number of keys (4), got"
        wrong = wrong if count > 4 else "exclude[0] must be -1 or lie in"
        with pytest.raises(RuntimeError, match=re.escape(wrong)):
            call()
        return
    sums = call()
    expected = [(query[0] @ key[left].t()).logsumexp(0), (query[1] @ key.t()).logsumexp(0)]
    torch.testing.assert_close(sums, torch.stack(expected))
    sums[1].backward()
    assert key.grad.isfinite().all()


def test_gradients_of_any_size(device):
    """16-bit products take the derivatives by scores as factors, which are small."""
    for dtype, size in itertools.product([torch.float16, torch.bfloat16], [1e-7, 1e5]):
        query, key = leaves(70, 2000, 64, dtype, 0.01)  # shares of a two-thousandth
        sums = tilewright.contrastive_lse(query, key)
        (sums * size).sum().backward()
        exact = [t.detach().double().requires_grad_() for t in (query, key)]
        (scores(*exact).logsumexp(1) * size).sum().backward()
        for ours, right in ((query, exact[0]), (key, exact[1])):
            most = right.grad.abs().max().item()
            step = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
            limit = 8 * torch.finfo(dtype).eps * most + step
            torch.testing.assert_close(ours.grad.double(), right.grad, rtol=0, atol=limit)


@pytest.mark.skipif(MACHINE == "cpu", reason="TF32 is a GPU's")
def test_tf32_where_it_is_allowed():
    query, key = leaves(70, 130, 100, torch.float32)
    given = [t.detach().double().requires_grad_() for t in (query, key)]
    exact = scores(*given).logsumexp(1)
    right = torch.autograd.grad(exact.sum(), given)
    before = torch.backends.cuda.matmul.allow_tf32
    errors, grad_errors = [], []
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            sums = tilewright.contrastive_lse(query, key)
            grads = torch.autograd.grad(sums.sum(), (query, key))
            errors.append((sums.double() - exact).abs().max().item())
            pairs = zip(grads, right, strict=True)
            grad_errors.append(max((g.double() - r).abs().max().item() for g, r in pairs))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert grad_errors[0] < 1e-4 < grad_errors[1] < 0.1
    assert errors[0] < 1e-4 < errors[1] < 0.1
