"""feature_cuts and quantize_features: quantiles, bins, missing values, layouts, bad input."""

import pytest
import torch
from checks import NoSynchronisation
from conftest import DTYPES

kernels = pytest.mark.kernels
no_launch = pytest.mark.no_launch

cuts_of = torch.ops.tilewright.feature_cuts
quantize = torch.ops.tilewright.quantize_features


def expected_codes(x, cuts, count):
    """Bins by counting: how many cuts are at most a value."""
    missing = 255 if cuts.shape[1] <= 255 else cuts.shape[1]
    x = x.float()
    codes = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
    for f in range(x.shape[1]):
        codes[:, f] = (cuts[f, : count[f]][None] <= x[:, f, None]).sum(1)
    return torch.where(x.isnan(), missing, codes)


@kernels
def test_few_values_get_a_bin_each(device):
    x = torch.tensor([[3.0], [1.0], [float("nan")], [1.0], [2.0]], device=device)
    cuts, count = cuts_of(x)
    assert count.tolist() == [2]
    assert cuts[0, :3].tolist() == [1.5, 2.5, float("inf")]
    assert quantize(x, cuts, count)[:, 0].tolist() == [2, 0, 255, 0, 1]


@kernels
def test_neighbouring_floats_are_parted(device):
    low = torch.tensor(1.0, device=device)
    high = torch.nextafter(low, low + 1)
    x = torch.stack([low, high])[:, None]
    cuts, count = cuts_of(x)
    assert quantize(x, cuts, count)[:, 0].tolist() == [0, 1]


@kernels
def test_bins_hold_equal_weights(device):
    x = torch.randn(20000, 3).exp().to(device)
    weight = torch.rand(20000).to(device) * (x[:, 0] > 1)
    cuts, count = cuts_of(x, weight, 64)
    assert (count <= 63).all()
    codes = quantize(x, cuts, count)
    for f in range(3):
        held = torch.zeros(64, device=device).index_add_(0, codes[:, f].long(), weight)
        assert held.max() < 2.5 * weight.sum() / 64


@kernels
def test_a_heavy_value_takes_no_bins_from_the_others(device):
    x = torch.cat([torch.zeros(9000), torch.randn(1000)])[:, None].to(device)
    cuts, count = cuts_of(x, None, 32)
    codes = quantize(x, cuts, count)
    alone = codes[0].item()
    assert (x[codes[:, 0] == alone] == 0).float().mean() > 0.99
    assert codes.unique().numel() > 24


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_bin", [2, 16, 255, 256, 1000])
@pytest.mark.parametrize("layout", ["rows", "columns", "strided"])
def test_codes_are_counts_of_cuts(device, dtype, max_bin, layout):
    x = torch.randn(777, 6, dtype=torch.float64).to(device, dtype)
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


@kernels
def test_they_ask_the_device_for_nothing(device):
    x = torch.randn(20, 3, device=device)
    with NoSynchronisation():
        quantize(x, *cuts_of(x, torch.ones(20, device=device), 8))


def test_the_number_of_threads_does_not_show():
    x = torch.randn(300000, 4)  # more than are looked at
    first = cuts_of(x)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    second = cuts_of(x)
    torch.set_num_threads(before)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@kernels
@no_launch
@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)])
def test_empty_tables(device, shape):
    x = torch.zeros(shape, device=device)
    cuts, count = cuts_of(x)
    assert cuts.shape == (shape[1], 255) and count.shape == (shape[1],)
    assert quantize(x, cuts, count).shape == shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cuts_of(x[0]), r"x must have shape \(N, F\), got \(3,\)"),
        (lambda x: cuts_of(x.long()), "x must be float64, float32, float16 or bfloat16, got Long"),
        (lambda x: cuts_of(x, None, 1), r"max_bin must lie in \[2, 32767\], got 1"),
        (lambda x: cuts_of(x, torch.ones(2)), r"sample_weight must have shape \(4,\), got \(2,\)"),
        (lambda x: quantize(x, torch.zeros(2, 255), torch.zeros(2).int()), "x has 3 features"),
        (lambda x: quantize(x, torch.zeros(3, 9), torch.zeros(3)), "count must be int32"),
    ],
)
def test_bad_input_is_named(call, message):
    """Shapes and dtypes: those of CUDA tensors are checked by the same lines."""
    with pytest.raises(RuntimeError, match=message):
        call(torch.zeros(4, 3))


@kernels
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_not_allowed(device, data_raises, weight):
    """On CUDA they count as 0."""
    x = torch.arange(4.0, device=device)[:, None]
    weights = torch.tensor([1.0, weight, 1.0, 1.0], device=device)
    if data_raises:
        with pytest.raises(RuntimeError, match=r"that of row 1 is -?(1|nan|inf)"):
            cuts_of(x, weights)
    else:
        expected = cuts_of(x[[0, 2, 3]])
        assert all(map(torch.equal, cuts_of(x, weights), expected))


@kernels
@pytest.mark.parametrize("count", [-1, 9, 2**30])
def test_counts_that_are_not_allowed(device, data_raises, count):
    """On CUDA the nearest count that is allowed holds."""
    x, cuts = torch.randn(50, 1, device=device), torch.arange(9.0, device=device)[None] - 4
    counts = torch.full((1,), count, dtype=torch.int32, device=device)
    if data_raises:
        with pytest.raises(RuntimeError, match="that of feature 0 is"):
            quantize(x, cuts, counts)
    else:
        expected = quantize(x, cuts, counts.clamp(0, 8))
        assert torch.equal(quantize(x, cuts, counts), expected)


def place_cuts(values, weights, max_bin):
    """The rule of feature_cuts, written again: values of one feature and what they weigh."""
    held = {}
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        if weight > 0 and value == value:
            held[value] = held.get(value, 0.0) + weight
    items = sorted(held.items())
    if len(items) <= max_bin:
        places = range(len(items) - 1)
    else:
        places, rest, sum_of = [], sum(w for _, w in items), 0.0
        for i in range(len(items) - 1):
            if len(places) + 1 == max_bin:
                break
            sum_of += items[i][1]
            share = rest / (max_bin - len(places))
            heavy = items[i + 1][1] >= share and sum_of >= share / 2
            if sum_of >= share or heavy:
                places.append(i)
                rest, sum_of = rest - sum_of, 0.0
    return torch.tensor([(items[i][0] + items[i + 1][0]) / 2 for i in places])


@kernels
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "max_bin"), [(1, 2), (300, 7), (3000, 255), (1500, 700)])
def test_cuts_are_those_of_the_rule(device, weighted, rows, max_bin):
    """Halves of whole numbers, so that no rounding takes part."""
    x = torch.randint(-3000, 3000, (rows, 3)) / 2
    x[:, 1] = (x[:, 1] / 100).round()  # few values
    x[::3, 2] = float("nan")
    x[1::3, 2] = 5.0  # a heavy one
    weights = torch.randint(0, 4, (rows,)).double() if weighted else torch.ones(rows).double()
    cuts, count = cuts_of(x.to(device), weights.to(device) if weighted else None, max_bin)
    for f in range(3):
        expected = place_cuts(x[:, f], weights, max_bin)
        assert torch.equal(cuts[f, : count[f]].cpu(), expected.float())


@kernels
def test_a_sample_is_taken_of_many_rows(device):
    """One row of each stretch, so that the rows' order is a ramp of cuts."""
    rows = 300_000
    x = torch.arange(rows, dtype=torch.float32, device=device)[:, None]
    cuts, count = cuts_of(x, None, 16)
    expected = torch.arange(1, 16, device=device) * rows / 16
    assert count.item() == 15
    torch.testing.assert_close(cuts[0, :15], expected, atol=3, rtol=0)


@kernels
def test_opcheck(device):
    x = torch.randn(20, 3, device=device)
    cuts, count = cuts_of(x, None, 8)
    torch.library.opcheck(cuts_of.default, (x, torch.rand(20, device=device), 8))
    torch.library.opcheck(quantize.default, (x, cuts, count))
