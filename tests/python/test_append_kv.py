"""append_kv_: where rows land, that nothing else changes, and what autograd is told."""

import pytest
import torch
from checks import compile_and_run, export_and_run, opcheck, script_round_trip, threads
from conftest import DTYPES

import tilewright

kernels = pytest.mark.kernels


def make_caches(device, pages, page, heads=2, dim=8, value_dim=5, dtype=torch.float32):
    return [torch.randn(pages, page, heads, d, device=device).to(dtype) for d in (dim, value_dim)]


def make_rows(device, batch, length, heads=2, dim=8, value_dim=5, dtype=torch.float32):
    return [torch.randn(batch, heads, length, d, device=device).to(dtype) for d in (dim, value_dim)]


def make_table(device, batch, max_pages, pages):
    table = torch.randperm(pages)[: batch * max_pages].view(batch, max_pages)
    return table.to(device=device, dtype=torch.int32)


def appended(cache, rows, table, lengths):
    """The cache afterwards, element by element."""
    cache = cache.clone()
    for b in range(rows.shape[0]):
        for s in range(rows.shape[2]):
            key = int(lengths[b]) + s
            page = int(table[b, key // cache.shape[1]])
            cache[page, key % cache.shape[1]] = rows[b, :, s]
    return cache


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("page,length,dim", [(1, 1, 8), (5, 7, 1), (16, 1, 24), (4, 9, 13)])
def test_rows_land_behind_what_is_there(device, dtype, page, length, dim):
    max_pages = 24 // page + 1
    key_cache, value_cache = make_caches(device, 4 * max_pages, page, dim=dim, dtype=dtype)
    key, value = make_rows(device, 3, length, dim=dim, dtype=dtype)
    table = make_table(device, 3, max_pages, 4 * max_pages)
    lengths = torch.tensor([0, 11, 13], dtype=torch.int32, device=device)
    expected = [
        appended(*pair, table, lengths) for pair in ((key_cache, key), (value_cache, value))
    ]
    tilewright.append_kv_(key_cache, value_cache, key, value, table, lengths)
    assert torch.equal(key_cache, expected[0])
    assert torch.equal(value_cache, expected[1])
    assert lengths.tolist() == [0, 11, 13]


@kernels
def test_layouts(device):
    """Keys as (B, S, H, D), caches whose heads lie outside or whose rows have gaps."""
    table = make_table(device, 2, 8, 16)[:, ::2]
    lengths = torch.tensor([3, 9, 0, 9], dtype=torch.int32, device=device)[::3]
    for arrange in (
        lambda x: x,
        lambda x: x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3),
        lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    ):
        caches = [arrange(x) for x in make_caches(device, 16, 6)]
        rows = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in make_rows(device, 2, 4)]
        rows[1] = rows[1].transpose(2, 3).contiguous().transpose(2, 3)
        expected = [appended(*pair, table, lengths) for pair in zip(caches, rows, strict=True)]
        tilewright.append_kv_(*caches, *rows, table, lengths)
        for cache, wanted in zip(caches, expected, strict=True):
            assert torch.equal(cache, wanted)


@kernels
@pytest.mark.no_launch
@pytest.mark.parametrize("batch,length,heads", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_nothing_to_append(device, batch, length, heads):
    caches = make_caches(device, 4, 2, heads=heads)
    before = [x.clone() for x in caches]
    table = torch.full((batch, 2), -7, dtype=torch.int32, device=device)
    lengths = torch.zeros(batch, dtype=torch.int32, device=device)
    tilewright.append_kv_(*caches, *make_rows(device, batch, length, heads=heads), table, lengths)
    assert all(torch.equal(a, b) for a, b in zip(caches, before, strict=True))


@kernels
@pytest.mark.parametrize(
    "table,lengths,message",
    [
        ([[0, 1], [2, 9]], [0, 1], r"block_table\[1\]\[1\] must lie in \[0, 6\), got 9"),
        ([[0, 1], [-1, 3]], [0, 0], r"block_table\[1\]\[0\] must lie in \[0, 6\), got -1"),
        (
            [[0, 1], [2, 3]],
            [0, 6],
            r"block_table has room for 8 keys \(2 pages of 4\), too few for cache_seqlens\[1\] = 6 "
            "and the new keys",
        ),
        ([[0, 1], [2, 3]], [0, -1], r"cache_seqlens\[1\] must not be negative, got -1"),
        ([[0, 1], [2, 3]], [0, 2**31 - 1], r"block_table has room for 8 keys"),
    ],
)
def test_bad_tables_write_nothing(device, data_raises, table, lengths, message):
    """Nothing on the CPU, and on CUDA nothing but the rows that have a place."""
    caches = make_caches(device, 6, 4)
    before = [x.clone() for x in caches]
    rows = make_rows(device, 2, 4)
    table = torch.tensor(table, dtype=torch.int32, device=device)
    lengths = torch.tensor(lengths, dtype=torch.int32, device=device)
    if data_raises:
        with pytest.raises(RuntimeError, match="tilewright::append_kv_: " + message):
            tilewright.append_kv_(*caches, *rows, table, lengths)
        assert all(torch.equal(a, b) for a, b in zip(caches, before, strict=True))
        return
    tilewright.append_kv_(*caches, *rows, table, lengths)
    for cache, given, old in zip(caches, rows, before, strict=True):
        assert torch.equal(cache[0], given[0].transpose(0, 1))
        assert torch.equal(cache[4:], old[4:])


@kernels
def test_pages_before_the_new_rows_are_not_asked_for(device):
    """What a sequence holds may have been freed: only the pages written to need to be pages."""
    caches = make_caches(device, 3, 4)
    rows = make_rows(device, 1, 2)
    table = torch.tensor([[-1, -1, 2, -1]], dtype=torch.int32, device=device)
    lengths = torch.tensor([9], dtype=torch.int32, device=device)
    tilewright.append_kv_(*caches, *rows, table, lengths)
    assert torch.equal(caches[0][2, 1:3], rows[0][0].transpose(0, 1))


def test_sequences_that_share_a_row():
    """The later sequence's rows stay, whatever the number of threads."""
    table = torch.zeros(3, 1, dtype=torch.int32)
    lengths = torch.zeros(3, dtype=torch.int32)
    key, value = make_rows("cpu", 3, 64, heads=8, dim=64, value_dim=64)
    for count in (1, 2):
        caches = make_caches("cpu", 1, 64, heads=8, dim=64, value_dim=64)
        threads(count, lambda: tilewright.append_kv_(*caches, key, value, table, lengths))  # noqa: B023
        assert torch.equal(caches[0][0], key[2].transpose(0, 1))
        assert torch.equal(caches[1][0], value[2].transpose(0, 1))


def arguments(device, dtype=torch.float32):
    caches = make_caches(device, 8, 4, dtype=dtype)
    table = make_table(device, 2, 4, 8)
    lengths = torch.tensor([3, 5], dtype=torch.int32, device=device)
    return [*caches, *make_rows(device, 2, 3, dtype=dtype), table, lengths]


@kernels
@pytest.mark.no_launch
@pytest.mark.parametrize("place,name", [(0, "key_cache"), (1, "value_cache")])
def test_caches_that_cannot_be_written(device, place, name):
    for change, stride, dim in (
        (lambda x: x[:, :1].expand_as(x), 0, 1),
        (lambda x: x[..., :1].expand_as(x), 0, 3),
        (lambda x: x.repeat_interleave(2, -1)[..., ::2], 2, 3),
    ):
        args = arguments(device)
        args[place] = change(args[place])
        message = (
            f"{name} is written to: it must not be expanded, and its last stride must be 1, "
            f"got stride {stride} at dimension {dim}"
        )
        with pytest.raises(RuntimeError, match=message):
            tilewright.append_kv_(*args)


@kernels
def test_versions(device):
    args = arguments(device)
    weight = torch.randn_like(args[0]).requires_grad_()
    product = weight * args[0]
    before = [x._version for x in args]
    tilewright.append_kv_(*args)
    assert [x._version for x in args] == [before[0] + 1, before[1] + 1, *before[2:]]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@kernels
@pytest.mark.parametrize(
    "place,name", [(0, "key_cache"), (1, "value_cache"), (2, "key"), (3, "value")]
)
def test_inputs_that_require_grad(device, place, name):
    args = arguments(device)
    args[place].requires_grad_()
    before = args[0].detach().clone()
    with pytest.raises(RuntimeError, match=f"append_kv_: {name} requires grad, but decoding has"):
        tilewright.append_kv_(*args)
    assert torch.equal(args[0], before)
    with torch.no_grad():
        tilewright.append_kv_(*args)
    assert not torch.equal(args[0], before)


@kernels
def test_inference_mode(device):
    args = arguments(device)
    expected = appended(args[0], args[2], args[4], args[5])
    with torch.inference_mode():
        args[0] = args[0].clone()
        tilewright.append_kv_(*args)
    assert torch.equal(args[0], expected)


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_casts_to_the_caches(device, dtype):
    args = arguments(device, dtype)
    args[2:4] = [x.float() for x in args[2:4]]
    expected = appended(args[0], args[2].to(dtype), args[4], args[5])
    with torch.autocast(device.type, torch.bfloat16):
        tilewright.append_kv_(*args)
    assert torch.equal(args[0], expected)


def append_and_sum(key_cache, value_cache, key, value, table, lengths):
    tilewright.append_kv_(key_cache, value_cache, key, value, table, lengths)
    return key_cache.sum() + value_cache.sum()


@kernels
@pytest.mark.parametrize("run", [script_round_trip, export_and_run, compile_and_run])
def test_programs(device, run):
    args = arguments(device)
    expected = append_and_sum(*(x.clone() for x in args))
    found = run(append_and_sum, *args)
    torch.testing.assert_close(found, expected)


@kernels
def test_opcheck(device):
    opcheck(torch.ops.tilewright.append_kv_.default, tuple(arguments(device)))
    opcheck(torch.ops.tilewright.append_kv_.default, tuple(arguments(device, torch.bfloat16)))
