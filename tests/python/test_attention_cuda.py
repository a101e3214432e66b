"""What is special to attention's CUDA kernels: decoding that splits the keys, pages, device data
that nobody may look at, and how much is launched."""

import pytest
import torch
from conftest import MACHINE
from reference_attention import attention as reference

import tilewright  # noqa: F401

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(MACHINE == "cpu", reason="about CUDA kernels"),
]
OPS = torch.ops.tilewright
LIMITS = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2.5e-3,
}
DTYPES = list(LIMITS)


def assert_close(ours, expected, dtype):
    limit = LIMITS[dtype]
    torch.testing.assert_close(ours.double().cpu(), expected, rtol=limit, atol=limit)


def launches(call):
    """How many kernels a call starts, on the emulated device."""
    before = torch.ops.tilewright_simt.launch_count()
    call()
    return torch.ops.tilewright_simt.launch_count() - before


def paged(k, v, lengths, page, generator):
    """(B, Hk, S, D) in shuffled pages: key cache, value cache, table."""
    batch, heads, length, _ = k.shape
    per_sequence = -(-length // page)
    table = torch.randperm(batch * per_sequence + 2, generator=generator)[: batch * per_sequence]
    table = table.view(batch, per_sequence).to(torch.int32)
    caches = []
    for rows in (k, v):
        cache = torch.full((batch * per_sequence + 2, page, heads, rows.shape[3]), torch.nan)
        cache = cache.to(rows.dtype)
        for b in range(batch):
            for j in range(lengths[b]):
                cache[table[b, j // page], j % page] = rows[b, :, j]
        caches.append(cache)
    return *caches, table


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads, kv_heads", [(4, 1), (2, 2)])
@pytest.mark.parametrize("dim, length", [(40, 1), (64, 3), (130, 2)])
def test_paged(device, dtype, heads, kv_heads, dim, length):
    generator = torch.Generator().manual_seed(3)
    lengths = [450, 37]
    q = torch.randn(2, heads, length, dim, generator=generator).to(dtype)
    k, v = (torch.randn(2, kv_heads, 450, dim, generator=generator).to(dtype) for _ in "kv")
    slopes = torch.rand(heads, generator=generator) * 0.1
    key_cache, value_cache, table = paged(k, v, lengths, 16, generator)
    out, lse = OPS.flash_attention_paged(
        *(x.to(device) for x in (q, key_cache, value_cache, table)),
        torch.tensor(lengths, dtype=torch.int32, device=device),
        window_left=400,
        softcap=20.0,
        alibi_slopes=slopes.to(device),
    )
    for b, n in enumerate(lengths):
        expected = reference(
            *(x[b : b + 1].double() for x in (q, k[:, :, :n], v[:, :, :n])),
            alibi_slopes=slopes.double(),
            causal=True,
            window_left=400,
            softcap=20.0,
        )
        assert_close(out[b : b + 1], expected[0], dtype)
        assert_close(lse[b : b + 1], expected[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sinks", [False, True])
def test_keys_are_split(device, dtype, sinks):
    """One query of each of two heads: too few blocks, unless each has a part of the keys."""
    q = torch.randn(1, 2, 1, 64).to(dtype)
    k, v = (torch.randn(1, 2, 1000, 64).to(dtype) for _ in "kv")
    sink = torch.randn(2) if sinks else None
    arguments = [x.to(device) for x in (q, k, v)]
    extra = {"sinks": sink.to(device)} if sinks else {}
    out, lse = OPS.flash_attention(*arguments, **extra, window_left=700)
    wide = {"sinks": sink.double()} if sinks else {}
    expected = reference(q.double(), k.double(), v.double(), **wide, window_left=700)
    assert_close(out, expected[0], dtype)
    assert_close(lse, expected[1], dtype)
    # No key but those 100 that the last split has.
    out, lse = OPS.flash_attention(*arguments, **extra, window_left=99)
    expected = reference(q.double(), k.double(), v.double(), **wide, window_left=99)
    assert_close(out, expected[0], dtype)
    assert_close(lse, expected[1], dtype)
    if MACHINE == "simt":
        assert launches(lambda: OPS.flash_attention(*arguments, **extra)) == 2
        enough = [x.expand(16, -1, -1, -1) for x in arguments]
        assert launches(lambda: OPS.flash_attention(*enough, **extra)) == 1


def against_fp64(device, dtype, q_len, k_len, dim, **options):
    """Output, lse and gradients of dense attention, each with its fp64 reference."""
    q, k, v, grad = (torch.randn(1, 2, n, dim).to(dtype) for n in (q_len, k_len, k_len, q_len))

    def run(attention, inputs, grad):
        leaves = [x.requires_grad_() for x in inputs]
        out, lse = attention(*leaves, **options)
        return [out.detach(), lse.detach(), *torch.autograd.grad(out, leaves, grad)]

    ours = run(OPS.flash_attention, [x.to(device) for x in (q, k, v)], grad.to(device))
    return ours, run(reference, [x.double() for x in (q, k, v)], grad.double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [64, 128, 192, 256])
def test_plain_kernels(device, dtype, dim):
    """What has no option but causal, and rows that 16 bytes divide, has kernels of its own."""
    for ours, expected in zip(*against_fp64(device, dtype, 70, 130, dim, causal=True), strict=True):
        limit = 2 * LIMITS[dtype] * expected[expected.isfinite()].abs().max().item()
        torch.testing.assert_close(ours.double().cpu(), expected, rtol=0, atol=limit)


@pytest.fixture
def take_for():
    """Lets host code take the emulated device for a GPU of a capability."""
    yield torch.ops.tilewright_simt.set_capability
    torch.ops.tilewright_simt.set_capability(80)


@pytest.mark.skipif(MACHINE != "simt", reason="a GPU is what it is")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("capability", [80, 86, 90, 120])
@pytest.mark.parametrize("dim, options", [(128, {}), (256, {}), (256, {"softcap": 4.0})])
def test_tiles_of_gpus(device, take_for, dtype, capability, dim, options):
    """Every row of attention_tiles.h computes the same."""
    take_for(capability)
    found = against_fp64(device, dtype, 70, 130, dim, causal=True, **options)
    for ours, expected in zip(*found, strict=True):
        limit = 2 * LIMITS[dtype] * expected[expected.isfinite()].abs().max().item()
        torch.testing.assert_close(ours.double().cpu(), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_are_split_for_many_queries_too(device, dtype):
    """One head, 70 queries: without a split two blocks would walk 1000 keys."""
    q, k, v = (torch.randn(1, 1, n, 64).to(dtype) for n in (70, 1000, 1000))
    arguments = [x.to(device) for x in (q, k, v)]
    out, lse = OPS.flash_attention(*arguments, causal=True)
    expected = reference(q.double(), k.double(), v.double(), causal=True)
    assert_close(out, expected[0], dtype)
    assert_close(lse, expected[1], dtype)
    if MACHINE == "simt":
        assert launches(lambda: OPS.flash_attention(*arguments, causal=True)) == 2


@pytest.fixture
def tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    yield lambda allowed: setattr(torch.backends.cuda.matmul, "allow_tf32", allowed)
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dim", [8, 40, 72, 128])
@pytest.mark.parametrize(
    "options", [{}, {"causal": True, "softcap": 5.0}, {"window_left": 20, "scale": -0.3}]
)
def test_tf32(device, tf32, dim, options):
    """float32's factors have 10 bits where PyTorch allows it, and all 23 where not."""
    torch.manual_seed(dim)
    tf32(True)
    rounded, expected = against_fp64(device, torch.float32, 70, 100, dim, **options)
    torch.manual_seed(dim)
    tf32(False)
    exact, _ = against_fp64(device, torch.float32, 70, 100, dim, **options)
    for ours, full, wide in zip(rounded, exact, expected, strict=True):
        largest = wide[wide.isfinite()].abs().max().item()
        torch.testing.assert_close(full.double().cpu(), wide, rtol=0, atol=3e-6 * largest)
        torch.testing.assert_close(ours.double().cpu(), wide, rtol=0, atol=3e-3 * largest)
        assert not torch.equal(ours, full)


@pytest.mark.skipif(MACHINE != "simt", reason="counts launches of the emulated device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_launches(device, dtype):
    q, k, v = (torch.randn(1, 2, 70, 64).to(dtype).requires_grad_() for _ in "qkv")
    out = []
    assert launches(lambda: out.append(OPS.flash_attention(q, k, v, causal=True)[0])) == 1
    assert launches(out[0].sum().backward) == 3  # rows, keys, queries
    bias = torch.zeros(70, 70, dtype=dtype, requires_grad=True)
    assert launches(OPS.flash_attention(q, k, v, bias)[0].sum().backward) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_offsets_out_of_range(device, dtype):
    """Offsets that fall count as the one before, sequences are cut to what lies within the tensors
    and the given maximum; other rows are 0."""
    q, k, v = (torch.randn(90, 2, 16).to(dtype).to(device).requires_grad_() for _ in "qkv")
    cu_q = torch.tensor([-5, 20, 20, 60, 1000], dtype=torch.int32, device=device)
    cu_k = torch.tensor([-100, 30, 10, 50, 2000000000], dtype=torch.int32, device=device)
    out, lse = OPS.flash_attention_varlen(q, k, v, cu_q, cu_k, 25, 30)
    grads = torch.autograd.grad(out.sum(), [q, k, v])
    parts = [((0, 20), (0, 30)), ((20, 45), (30, 50)), ((60, 85), (50, 80))]
    covered = torch.zeros(90, dtype=torch.bool)
    for (q0, q1), (k0, k1) in parts:
        rows = [
            x[a:b].transpose(0, 1)[None].detach().cpu().double()
            for x, a, b in ((q, q0, q1), (k, k0, k1), (v, k0, k1))
        ]
        expected = reference(*rows)
        assert_close(out[q0:q1], expected[0][0].transpose(0, 1), dtype)
        assert_close(lse[:, q0:q1], expected[1][0], dtype)
        covered[q0:q1] = True
    assert (out.cpu()[~covered] == 0).all() and (lse.cpu()[:, ~covered] == -torch.inf).all()
    assert (grads[0].cpu()[~covered] == 0).all()
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pages_that_do_not_exist(device, dtype):
    """Their keys count as not there, and so do those beyond the table."""
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(2, 2, 1, 16, generator=generator).to(dtype)
    k, v = (torch.randn(2, 2, 40, 16, generator=generator).to(dtype) for _ in "kv")
    key_cache, value_cache, table = paged(k, v, [40, 40], 8, generator)
    table[0, 1], table[1, 4] = -7, 2000000000
    lengths = torch.tensor([1000, -3], dtype=torch.int32)
    out, lse = OPS.flash_attention_paged(
        *(x.to(device) for x in (q, key_cache, value_cache, table, lengths))
    )
    there = torch.ones(1, 1, 1, 40, dtype=torch.bool)
    there[..., 8:16] = False
    expected = reference(*(x[:1].double() for x in (q, k, v)), bias=there)
    assert_close(out[:1], expected[0], dtype)
    assert_close(lse[:1], expected[1], dtype)
    assert (out[1] == 0).all() and (lse[1] == -torch.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_append_drops_rows_without_a_page(device, dtype):
    cache = [torch.zeros(3, 4, 2, dim, dtype=dtype, device=device) for dim in (5, 8)]
    rows = [torch.randn(3, 2, 3, dim).to(dtype).to(device) for dim in (5, 8)]
    table = torch.tensor([[2, 9], [0, 1], [1, 1]], dtype=torch.int32, device=device)
    lengths = torch.tensor([2, 6, -5], dtype=torch.int32, device=device)
    OPS.append_kv_(*cache, *rows, table, lengths)
    for stored, given in zip(cache, rows, strict=True):
        expected = torch.zeros_like(stored)
        expected[2, 2:4] = given[0, :, :2].transpose(0, 1)  # the third row's page is 9
        expected[1, 2:4] = given[1, :, :2].transpose(0, 1)  # the third lies beyond the table
        assert torch.equal(stored, expected)
