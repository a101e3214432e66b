"""feature_cuts and quantize_features: quantiles, bins, missing values, layouts, bad input."""

import pytest
import torch
from conftest import DTYPES

cuts_of = torch.ops.tilewright.feature_cuts
quantize = torch.ops.tilewright.quantize_features


def expected_codes(x, cuts, count):
    """Bins by counting: how many cuts are at most a value."""
    missing = 255 if cuts.shape[1] <= 255 else cuts.shape[1]
    x = x.float()
    codes = torch.zeros(x.shape, dtype=torch.int64)
    for f in range(x.shape[1]):
        codes[:, f] = (cuts[f, : count[f]][None] <= x[:, f, None]).sum(1)
    return torch.where(x.isnan(), missing, codes)


def test_few_values_get_a_bin_each():
    x = torch.tensor([[3.0], [1.0], [float("nan")], [1.0], [2.0]])
    cuts, count = cuts_of(x)
    assert count.tolist() == [2]
    assert cuts[0, :3].tolist() == [1.5, 2.5, float("inf")]
    assert quantize(x, cuts, count)[:, 0].tolist() == [2, 0, 255, 0, 1]


def test_neighbouring_floats_are_parted():
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))
    x = torch.stack([low, high])[:, None]
    cuts, count = cuts_of(x)
    assert quantize(x, cuts, count)[:, 0].tolist() == [0, 1]


def test_bins_hold_equal_weights():
    x = torch.randn(20000, 3).exp()
    weight = torch.rand(20000) * (x[:, 0] > 1)
    cuts, count = cuts_of(x, weight, 64)
    assert (count <= 63).all()
    codes = quantize(x, cuts, count)
    for f in range(3):
        held = torch.zeros(64).index_add_(0, codes[:, f].long(), weight)
        assert held.max() < 2.5 * weight.sum() / 64


def test_a_heavy_value_takes_no_bins_from_the_others():
    x = torch.cat([torch.zeros(9000), torch.randn(1000)])[:, None]
    cuts, count = cuts_of(x, None, 32)
    codes = quantize(x, cuts, count)
    alone = codes[0].item()
    assert (x[codes[:, 0] == alone] == 0).float().mean() > 0.99
    assert codes.unique().numel() > 24


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_bin", [2, 16, 255, 256, 1000])
@pytest.mark.parametrize("layout", ["rows", "columns", "strided"])
def test_codes_are_counts_of_cuts(dtype, max_bin, layout):
    x = torch.randn(777, 6, dtype=torch.float64).to(dtype)
    x[::5, 2] = float("nan")
    x[:, 3] = 1.0
    x[:, 4] = float("nan")
    x[3, 5], x[4, 5] = float("inf"), float("-inf")
    if layout == "columns":
        x = x.t().contiguous().t()
    elif layout == "strided":
        x = torch.stack([x, x], 2)[:, :, 0][::2]
    cuts, count = cuts_of(x, None, max_bin)
    assert cuts.shape == (6, max_bin) and cuts.dtype == torch.float32
    assert (count < max_bin).all() and count[3] == 0 and count[4] == 0
    for f in range(6):
        used = cuts[f, : count[f]]
        assert (used.diff() > 0).all() and (cuts[f, count[f] :] == float("inf")).all()
    codes = quantize(x, cuts, count)
    assert codes.dtype == (torch.uint8 if max_bin <= 255 else torch.int16)
    assert torch.equal(codes.long(), expected_codes(x, cuts, count))


def test_the_number_of_threads_does_not_show():
    x = torch.randn(300000, 4)  # more than are looked at
    first = cuts_of(x)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    second = cuts_of(x)
    torch.set_num_threads(before)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)])
def test_empty_tables(shape):
    cuts, count = cuts_of(torch.zeros(shape))
    assert cuts.shape == (shape[1], 255) and count.shape == (shape[1],)
    assert quantize(torch.zeros(shape), cuts, count).shape == shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cuts_of(x[0]), r"x must have shape \(N, F\), got \(3,\)"),
        (lambda x: cuts_of(x.long()), "x must be float64, float32, float16 or bfloat16, got Long"),
        (lambda x: cuts_of(x, None, 1), r"max_bin must lie in \[2, 32767\], got 1"),
        (lambda x: cuts_of(x, torch.ones(2)), r"sample_weight must have shape \(4,\), got \(2,\)"),
        (lambda x: cuts_of(x, -torch.ones(4)), "that of row 0 is -1"),
        (lambda x: quantize(x, torch.zeros(2, 255), torch.zeros(2).int()), "x has 3 features"),
        (lambda x: quantize(x, torch.zeros(3, 9), torch.zeros(3)), "count must be int32"),
        (lambda x: quantize(x, torch.zeros(3, 9), torch.full((3,), 9).int()), "that of feature 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(torch.zeros(4, 3))


def test_opcheck():
    x = torch.randn(20, 3)
    cuts, count = cuts_of(x, None, 8)
    torch.library.opcheck(cuts_of.default, (x, torch.rand(20), 8))
    torch.library.opcheck(quantize.default, (x, cuts, count))
