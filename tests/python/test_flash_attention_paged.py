"""flash_attention_paged against dense attention over the keys of its pages, and decoding step by
step with append_kv_."""

import pytest
import reference_attention as reference
import torch
from attention_checks import assert_lse
from checks import assert_close_to_fp64, opcheck, script_round_trip, threads

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


class Cache:
    """Pages in a random order, NaN wherever no sequence has a key."""

    def __init__(self, lengths, page, kv_heads, head_dim, value_dim, dtype, device, room=0):
        per_sequence = [-(-(n + room) // page) for n in lengths]
        total, self.page = sum(per_sequence) + 3, page
        order = torch.randperm(total).tolist()
        self.table = torch.full((len(lengths), max([*per_sequence, 1])), 0, dtype=torch.int32)
        for b, count in enumerate(per_sequence):
            self.table[b, :count] = torch.tensor([order.pop() for _ in range(count)])
        self.keys = torch.full((total, page, kv_heads, head_dim), torch.nan, dtype=dtype)
        self.values = torch.full((total, page, kv_heads, value_dim), torch.nan, dtype=dtype)
        self.dense = []
        for b, n in enumerate(lengths):
            key, value = torch.randn(kv_heads, n, head_dim), torch.randn(kv_heads, n, value_dim)
            self.dense.append((key.to(dtype), value.to(dtype)))
            rows = torch.arange(n)
            pages = self.table[b].long()[rows // page]
            self.keys[pages, rows % page] = self.dense[b][0].transpose(0, 1)
            self.values[pages, rows % page] = self.dense[b][1].transpose(0, 1)
        self.lengths = torch.tensor(lengths, dtype=torch.int32).to(device)
        self.keys, self.values = self.keys.to(device), self.values.to(device)
        self.table = self.table.to(device)

    def attend(self, query, **options):
        return ops.flash_attention_paged(
            query, self.keys, self.values, self.table, self.lengths, **options
        )


def one_by_one(attention, query, cache, **options):
    slopes, outs = options.pop("alibi_slopes", None), []
    for b, (key, value) in enumerate(cache.dense):
        if slopes is not None:
            options["alibi_slopes"] = slopes[b] if slopes.dim() == 2 else slopes
        outs.append(attention(query[b : b + 1], key[None], value[None], **options))
    return torch.cat([out for out, _ in outs]), torch.cat([lse for _, lse in outs])


def compare(device, lengths, queries, page, dtype, heads=(4, 2), sizes=(40, 24), **options):
    cache = Cache(lengths, page, heads[1], *sizes, dtype, device)
    query = torch.randn(len(lengths), heads[0], queries, sizes[0]).to(dtype)
    moved = {k: v.to(device) if torch.is_tensor(v) else v for k, v in options.items()}
    out, lse = cache.attend(query.to(device), **moved)
    options = {"causal": True, **options}
    expected = one_by_one(reference.attention, query, cache, **options)
    plain = one_by_one(reference.plain, query, cache, **options)
    assert out.dtype == dtype
    assert_close_to_fp64(out.cpu(), plain[0], expected[0])
    assert_lse(lse.cpu(), plain[1], expected[1])


OPTIONS = {
    "plain": {},
    "not causal": {"causal": False, "scale": -0.4},
    "window": {"window_left": 21},
    "softcap": {"softcap": 1.5, "window_left": 0},
    "alibi": {"alibi_slopes": torch.tensor([0.1, 0.02, 0.0, 0.3])},
    "alibi per sequence": {"alibi_slopes": torch.tensor([[0.1, 0.02, 0.0, 0.3]]) * 0.5},
}


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("page", [1, 3, 16, 64])
def test_options(device, page, options, dtype):
    given = dict(OPTIONS[options])
    if options == "alibi per sequence":
        given["alibi_slopes"] = given["alibi_slopes"].repeat(4, 1) * torch.arange(1.0, 5)[:, None]
    compare(device, [70, 1, 33, 17], 1, page, dtype, **given)


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize(
    "heads,sizes", [((8, 1), (64, 64)), ((3, 3), (128, 128)), ((6, 2), (5, 9))]
)
@pytest.mark.parametrize("queries", [1, 2, 5, 17])
def test_some_queries(device, queries, heads, sizes):
    for dtype in (torch.float32, torch.bfloat16):
        compare(device, [90, 17, 40], queries, 16, dtype, heads, sizes)


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_sequences_are_split(device, dtype):
    compare(device, [1500, 300], 1, 16, dtype, (2, 1), (64, 64))
    compare(device, [1100], 3, 64, dtype, (2, 1), (64, 64), window_left=900)


@kernels
def test_fewer_keys_than_queries(device):
    """Queries above the first key see nothing; a sequence without keys gives 0 and -inf."""
    compare(device, [3, 0, 40], 5, 16, torch.float32)
    compare(device, [3, 0, 40], 5, 16, torch.float32, causal=False)


@kernels
@pytest.mark.no_launch
def test_nothing(device):
    cache = Cache([4, 4], 16, 2, 8, 8, torch.float32, device)
    out, lse = cache.attend(torch.randn(2, 4, 0, 8).to(device))
    assert out.shape == (2, 4, 0, 8) and lse.shape == (2, 4, 0)
    none = Cache([], 16, 2, 8, 8, torch.float32, device)
    assert none.attend(torch.randn(0, 4, 1, 8).to(device))[0].shape == (0, 4, 1, 8)


@kernels
@pytest.mark.parametrize("page", [1, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_append_then_decode(device, dtype, page):
    """A prompt, then token after token: each step equals the dense rows."""
    lengths, steps = [13, 0, 30], [5, 1, 1, 2]
    cache = Cache(lengths, page, 2, 16, 16, dtype, device, room=sum(steps))
    total = [cache.dense[b] for b in range(3)]
    for step in steps:
        query = torch.randn(3, 4, step, 16).to(dtype)
        key, value = (torch.randn(3, 2, step, 16).to(dtype) for _ in range(2))
        before = cache.lengths.clone()
        tilewright.append_kv_(
            *(cache.keys, cache.values, key.to(device), value.to(device)),
            *(cache.table, cache.lengths),
        )
        assert torch.equal(cache.lengths, before)
        cache.lengths += step
        total = [
            (torch.cat([k, key[b]], 1), torch.cat([v, value[b]], 1))
            for b, (k, v) in enumerate(total)
        ]
        cache.dense = total
        out = tilewright.flash_attention_paged(
            query.to(device), cache.keys, cache.values, cache.table, cache.lengths
        )
        expected = one_by_one(reference.attention, query, cache, causal=True)[0]
        plain = one_by_one(reference.plain, query, cache, causal=True)[0]
        assert_close_to_fp64(out.cpu(), plain, expected)


@kernels
def test_views_are_taken_as_they_are(device):
    """(B, S, H, D) queries and caches that are slices of one tensor."""
    cache = Cache([40, 9], 16, 2, 16, 16, torch.float32, device)
    both = torch.stack([cache.keys, cache.values], 2)  # (pages, page, 2, Hk, D)
    query = torch.randn(2, 3, 4, 16).to(device).transpose(1, 2)
    expected = cache.attend(query.contiguous())
    cache.keys, cache.values = both.unbind(2)
    found = cache.attend(query)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@kernels
def test_same_bits_for_any_number_of_threads(device, another_order):
    cache = Cache([700, 30, 128], 16, 1, 64, 64, torch.bfloat16, device)
    query = torch.randn(3, 2, 1, 64).bfloat16().to(device)
    first = threads(1, lambda: cache.attend(query))
    for count in (2, 3, 2):
        another_order()
        again = threads(count, lambda: cache.attend(query))
        assert torch.equal(again[0], first[0]) and torch.equal(again[1], first[1])


def decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    new: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    tilewright.append_kv_(keys, values, new, new, table, lengths)
    return tilewright.flash_attention_paged(query, keys, values, table, lengths + 1)


@kernels
def test_opcheck_and_script(device):
    cache = Cache([20, 3], 16, 2, 8, 8, torch.float32, device, room=1)
    query, new = torch.randn(2, 4, 1, 8).to(device), torch.randn(2, 2, 1, 8).to(device)
    cache.keys.nan_to_num_(), cache.values.nan_to_num_()
    paged = (query, cache.keys, cache.values, cache.table, cache.lengths)
    opcheck(ops.flash_attention_paged.default, paged)
    append = (cache.keys, cache.values, new, new, cache.table, cache.lengths)
    opcheck(ops.append_kv_.default, append)
    step = (query, cache.keys, cache.values, new, cache.table, cache.lengths)
    expected = decode(*step)
    assert torch.equal(script_round_trip(decode, *step), expected)
