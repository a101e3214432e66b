"""tree_histogram: sums by node, feature and code, as integers."""

import pytest
import torch
from checks import NoSynchronisation, opcheck, threads
from conftest import DTYPES, MACHINE

pytestmark = pytest.mark.kernels
histogram = torch.ops.tilewright.tree_histogram


def counts(codes, gradients, hessians, node, num_nodes, num_codes):
    """By definition, in float64."""
    sums = torch.zeros(num_nodes, codes.shape[1], num_codes, 2, dtype=torch.float64)
    for row in range(codes.shape[0]):
        if node[row] < 0:
            continue
        for f in range(codes.shape[1]):
            to = sums[node[row], f, codes[row, f]]
            to += torch.stack([gradients[row], hessians[row]]).double()
    return sums


def eighths(rows, dtype=torch.float32):
    """Values whose sums are exact in every dtype."""
    return (torch.randint(-8, 9, (rows,)) / 8).to(dtype), (torch.randint(0, 9, (rows,)) / 8).to(
        dtype
    )


@pytest.mark.orders
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "features", "nodes", "codes"),
    [(1, 1, 1, 256), (700, 3, 1, 256), (533, 5, 3, 256), (300, 7, 2, 300), (300, 2, 2, 3200)],
)
def test_sums(device, dtype, rows, features, nodes, codes):
    g, h = eighths(rows, dtype)
    table = torch.randint(0, codes, (rows, features))
    table = table.to(torch.uint8 if codes == 256 else torch.int16)
    node = torch.randint(-1, nodes, (rows,), dtype=torch.int32)
    sums, units = histogram(
        table.to(device), g.to(device), h.to(device), node.to(device), nodes, codes
    )
    assert sums.dtype == torch.int64 and units.dtype == torch.float64
    expected = counts(table.int(), g, h, node, nodes, codes)
    assert torch.equal(sums.cpu() * units.cpu(), expected)


def test_all_rows_of_one_node(device):
    g, h = eighths(2000)
    codes = torch.randint(0, 4, (2000, 9), dtype=torch.uint8)  # few: every addition collides
    sums, units = histogram(codes.to(device), g.to(device), h.to(device))
    expected = counts(codes.int(), g, h, torch.zeros(2000, dtype=torch.int32), 1, 256)
    assert torch.equal(sums.cpu() * units.cpu(), expected)
    turned = codes.t().contiguous().t().to(device)
    assert torch.equal(histogram(turned, g.to(device), h.to(device))[0], sums)


def test_children_add_up_to_their_parent(device):
    """With values that no sum of floats would hold exactly."""
    codes = torch.randint(0, 256, (901, 3), dtype=torch.uint8, device=device)
    g, h = torch.randn(901, device=device) * 1e-3, torch.rand(901, device=device)
    side = torch.randint(0, 2, (901,), dtype=torch.int32, device=device)
    parent, units = histogram(codes, g, h)
    children, same = histogram(codes, g, h, side, 2)
    assert torch.equal(children.sum(0), parent[0]) and torch.equal(units, same)
    total = parent[0, 0].sum(0) * units
    torch.testing.assert_close(total, torch.stack([g.double().sum(), h.double().sum()]))


def test_the_number_of_threads_does_not_show(device):
    codes = torch.randint(0, 256, (500, 20), dtype=torch.uint8, device=device)
    g, h = torch.randn(500, device=device), torch.rand(500, device=device)
    first = threads(1, lambda: histogram(codes, g, h))
    assert all(map(torch.equal, first, histogram(codes, g, h)))


@pytest.mark.parametrize(("rows", "features"), [(0, 3), (5, 0), (0, 0)])
def test_empty_tables(device, rows, features):
    codes = torch.zeros(rows, features, dtype=torch.uint8, device=device)
    node = torch.zeros(rows, dtype=torch.int32, device=device)
    value = torch.ones(rows, device=device)
    for given in (None, node):
        sums, units = histogram(codes, value, value, given, 2)
        assert sums.shape == (2, features, 256, 2) and not sums.any()
        assert (units > 0).all()


def test_bad_data(device, data_raises):
    """An error on the CPU; CUDA leaves out, or counts as missing, what does not exist."""
    g, h = (t.to(device) for t in eighths(50))
    codes = torch.randint(0, 40, (50, 2), dtype=torch.int16, device=device)
    node = torch.randint(0, 3, (50,), dtype=torch.int32, device=device)
    cases = [
        (codes, 4, -5, 39, r"codes must lie in \[0, 40\), got -5"),
        (codes, 4, 40, 39, r"codes must lie in \[0, 40\), got 40"),
        (node, 9, 3, -1, r"node must lie in \[0, 3\) or be -1, that of row 9 is 3"),
        (node, 9, -7, -1, r"node must lie in \[0, 3\) or be -1, that of row 9 is -7"),
        (g, 2, float("inf"), 0, "those of row 2 are not"),
        (h, 2, -0.5, 0, "those of row 2 are not"),
    ]
    for tensor, place, bad, taken_for, message in cases:
        before = tensor[place].clone()
        tensor[place] = bad
        if data_raises:
            with pytest.raises(RuntimeError, match=message):
                histogram(codes, g, h, node, 3, 40)
        else:
            found = histogram(codes, g, h, node, 3, 40)
            tensor[place] = taken_for
            assert all(map(torch.equal, found, histogram(codes, g, h, node, 3, 40)))
        tensor[place] = before


@pytest.mark.no_launch
def test_bad_arguments_are_named(device):
    codes = torch.zeros(4, 2, dtype=torch.uint8, device=device)
    value = torch.ones(4, device=device)
    for arguments, message in [
        ((codes.int(), value, value), "codes must be uint8 or int16, got Int"),
        ((codes, value, value[:3]), r"hessians must have shape \(4,\), got \(3,\)"),
        ((codes, value, value, codes[:, 0]), "node must be Int, got Byte"),
        ((codes, value, value, None, 0), "num_nodes must lie in"),
        ((codes, value, value, None, 1, 255), "uint8 codes have num_codes 256, got 255"),
        ((codes.short(), value, value, None, 1, 1), r"num_codes must lie in \[2, 32768\], got 1"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            histogram(*arguments)


def test_opcheck(device):
    codes = torch.randint(0, 256, (12, 2), dtype=torch.uint8, device=device)
    node = torch.zeros(12, dtype=torch.int32, device=device)
    value = torch.ones(12, device=device)
    opcheck(histogram.default, (codes, value, value, node, 2))


def test_it_asks_the_device_for_nothing(device):
    if MACHINE == "cpu":
        pytest.skip("the CPU looks at its data")
    codes = torch.randint(0, 256, (12, 2), dtype=torch.uint8, device=device)
    node = torch.zeros(12, dtype=torch.int32, device=device)
    value = torch.ones(12, device=device)
    with NoSynchronisation():
        histogram(codes, value, value, node, 2)
