"""grow_tree: against trees by definition, and the same bits on every machine."""

import os
import subprocess
import sys
from pathlib import Path

import grow_tree_cases
import pytest
import reference_trees
import torch
from checks import NoSynchronisation, opcheck, threads
from conftest import DTYPES, MACHINE
from grow_tree_cases import OUTPUTS, cases, grow, table

import tilewright

pytestmark = pytest.mark.kernels
grow_tree = torch.ops.tilewright.grow_tree


@pytest.fixture(scope="module")
def trees_of_the_cpu(tmp_path_factory):
    """{case: outputs}. The emulated device stands in the place of the CPU's kernels, so another
    process grows them."""
    if MACHINE != "simt":
        return {name: grow(*case) for name, case in cases().items()}
    path = tmp_path_factory.mktemp("trees") / "cpu.pt"
    packages = [str(Path(tilewright.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "TILEWRIGHT_DEVICE": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
    }
    subprocess.run([sys.executable, grow_tree_cases.__file__, path], env=environment, check=True)
    return torch.load(path)


@pytest.mark.parametrize("name", list(cases()))
def test_every_machine_grows_the_same_bits(device, trees_of_the_cpu, name):
    arguments, options = cases()[name]
    if MACHINE == "cpu":
        expected = threads(1, lambda: grow(arguments, options))
    else:
        expected = trees_of_the_cpu[name]
    found = grow(arguments, options, device)
    for output, first, second in zip(OUTPUTS, found, expected, strict=True):
        assert torch.equal(first.cpu(), second), output


def place_tree(grown, arrays, place=0):
    """A tree of reference_trees.grow to places of a full one."""
    if not isinstance(grown, tuple):
        arrays["weight"][place] = grown
        return
    feature, code, default_left, left, right = grown
    arrays["feature"][place], arrays["code"][place] = feature, code
    arrays["default_left"][place] = default_left
    place_tree(left, arrays, 2 * place + 1)
    place_tree(right, arrays, 2 * place + 2)


@pytest.mark.orders
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize(("lam", "alpha", "least"), [(1.0, 0.0, 1.0), (0.3, 0.5, 3.0)])
def test_trees_are_those_of_the_definition(device, missing, lam, alpha, least):
    codes, bins, g, h = table(170, 3, max_bin=12, missing=missing, dtype=torch.float64)
    options = {"reg_lambda": lam, "reg_alpha": alpha, "min_child_weight": least, "max_depth": 3}
    found = dict(zip(OUTPUTS, grow((codes, bins, g, h), options, device), strict=True))
    expected = {
        "feature": torch.full((15,), -1, dtype=torch.int32),
        "code": torch.zeros(15, dtype=torch.int32),
        "default_left": torch.zeros(15, dtype=torch.bool),
        "weight": torch.zeros(15, dtype=torch.float64),
    }
    place_tree(reference_trees.grow(codes, bins, 255, g, h, 3, lam, alpha, least), expected)
    for name in ("feature", "code", "default_left"):
        assert torch.equal(found[name].cpu(), expected[name]), name
    leaves = found["leaf"].cpu().long()
    assert (expected["feature"][leaves] == -1).all()
    torch.testing.assert_close(found["weight"].cpu()[leaves], expected["weight"][leaves])
    cover = torch.zeros(15, dtype=torch.float64).index_add_(0, leaves, h)
    at_leaves = leaves.unique()
    torch.testing.assert_close(found["cover"].cpu()[at_leaves], cover[at_leaves])


def test_boosting_by_hand(device):
    """Trees of grow_tree, one after the other, fit a line."""
    x = torch.linspace(-1, 1, 400, device=device)[:, None]
    cuts, count = torch.ops.tilewright.feature_cuts(x, None, 60)
    codes = torch.ops.tilewright.quantize_features(x, cuts, count)
    scores = torch.zeros(400, device=device)
    for _ in range(30):
        gradients = scores - x[:, 0]
        *_, weight, _, _, leaf = grow_tree(
            codes, count + 1, gradients, torch.ones_like(gradients), max_depth=3
        )
        scores += 0.3 * weight[leaf.long()].float()
    assert (scores - x[:, 0]).abs().max() < 0.05


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_gradients(device, dtype):
    codes, bins, g, h = (t.to(device) for t in table(200, 3, max_bin=30))
    g, h = g.to(dtype), h.to(dtype)
    found = grow_tree(codes, bins, g, h, max_depth=3)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    expected = grow_tree(codes, bins, g.to(wide), h.to(wide), max_depth=3)
    assert all(map(torch.equal, found, expected))


def test_it_asks_the_device_for_nothing(device):
    if MACHINE == "cpu":
        pytest.skip("the CPU looks at its data")
    arguments = [t.to(device) for t in table(300, 3)]
    masks = {"rows": torch.rand(300, device=device) < 0.5}
    masks["columns"] = torch.tensor([True, False, True], device=device)
    masks["monotone"] = torch.tensor([1, 0, -1], dtype=torch.int8, device=device)
    with NoSynchronisation():
        grow_tree(*arguments, **masks)


@pytest.mark.skipif(MACHINE != "cuda", reason="a GPU's graphs")
def test_a_cuda_graph_holds_it(device):
    arguments = [t.to(device) for t in table(300, 3)]
    expected = grow_tree(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = grow_tree(*arguments)
    graph.replay()
    assert all(map(torch.equal, found, expected))


# What to spoil, what the CPU says, what CUDA takes it for.
def spoil_gradient(codes, bins, g, h):
    g[7] = float("nan")
    yield "those of row 7 are not"
    g[7] = 0


def spoil_hessian(codes, bins, g, h):
    h[9] = -1
    yield "those of row 9 are not"
    h[9] = 0


def spoil_infinite(codes, bins, g, h):
    h[9] = float("inf")
    yield "those of row 9 are not"
    h[9] = 0


def spoil_codes(codes, bins, g, h):
    codes[3, 1], codes[5, 0] = 300, -2
    yield r"codes must lie in \[0, 300\), got -2"
    codes[3, 1], codes[5, 0] = 299, 299


def spoil_bins(codes, bins, g, h):
    bins[1], bins[2] = -1, 1000
    yield r"bins must lie in \[0, 300\), that of feature 1 is -1"
    bins[1], bins[2] = 0, 299


@pytest.mark.parametrize(
    "spoil", [spoil_gradient, spoil_hessian, spoil_infinite, spoil_codes, spoil_bins]
)
def test_bad_data(device, data_raises, spoil):
    """An error on the CPU; on CUDA it has a rule."""
    arguments = [t.to(device) for t in table(200, 3, max_bin=299)]
    options = {"num_codes": 300, "max_depth": 3}
    steps = spoil(*arguments)
    message = next(steps)
    if data_raises:
        with pytest.raises(RuntimeError, match=message):
            grow_tree(*arguments, **options)
        return
    found = grow_tree(*arguments, **options)
    next(steps, None)
    assert all(map(torch.equal, found, grow_tree(*arguments, **options)))


@pytest.mark.no_launch
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": lambda t: t.long()}, "codes must be uint8 or int16, got Long"),
        ({"codes": lambda t: t[0]}, r"codes must have shape \(N, F\), got \(3,\)"),
        ({"bins": lambda t: t[:2]}, r"bins must have shape \(3,\), got \(2,\)"),
        ({"bins": lambda t: t.long()}, "bins must be Int, got Long"),
        ({"gradients": lambda t: t.long()}, "gradients must be float64"),
        ({"gradients": lambda t: t.double()}, "hessians must be Double, got Float"),
        ({"hessians": lambda t: t[:-1]}, r"hessians must have shape \(20,\), got \(19,\)"),
        ({"num_codes": 300}, "uint8 codes have num_codes 256, got 300"),
        ({"max_depth": 0}, r"max_depth must lie in \[1, 16\], got 0"),
        ({"max_depth": 17}, r"max_depth must lie in \[1, 16\], got 17"),
        ({"reg_lambda": -1.0}, "reg_lambda must be finite and not negative, got -1"),
        ({"gamma": float("nan")}, "gamma must be finite and not negative, got nan"),
        ({"rows": torch.ones(19, dtype=torch.bool)}, r"rows must have shape \(20,\)"),
        ({"rows": torch.ones(20)}, "rows must be Bool, got Float"),
        ({"columns": torch.ones(2, dtype=torch.bool)}, r"columns must have shape \(3,\)"),
        ({"monotone": torch.zeros(3)}, "monotone must be Char, got Float"),
    ],
)
def test_bad_arguments_are_named(device, change, message):
    arguments = dict(zip(("codes", "bins", "gradients", "hessians"), table(20, 3), strict=True))
    for name, value in change.items():
        arguments[name] = value(arguments[name]) if callable(value) else value
    given = {k: v.to(device) if torch.is_tensor(v) else v for k, v in arguments.items()}
    with pytest.raises(RuntimeError, match=message):
        grow_tree(**given)


def test_histograms_that_do_not_fit(device):
    if MACHINE == "cpu":
        pytest.skip("the CPU has histograms for the nodes that there are")
    codes = torch.zeros(1, 100, dtype=torch.uint8, device=device)
    bins = torch.ones(100, dtype=torch.int32, device=device)
    value = torch.ones(1, device=device)
    grow_tree(codes, bins, value, value, max_depth=2)
    with pytest.raises(RuntimeError, match=r"16 has 32768 histograms of 100 features.*lower"):
        grow_tree(codes, bins, value, value, max_depth=16)


@pytest.mark.smoke
def test_opcheck(device):
    opcheck(grow_tree.default, [t.to(device) for t in table(30, 2, max_bin=7)], {"max_depth": 2})


def test_a_compiled_call(device):
    arguments = [t.to(device) for t in table(100, 3, max_bin=20)]
    function = torch.compile(lambda *a: grow_tree(*a, max_depth=2), backend="aot_eager")
    assert all(map(torch.equal, function(*arguments), grow_tree(*arguments, max_depth=2)))


@pytest.mark.parametrize(
    ("features", "first"),
    [(7, 1), (16, 11), (17, 12), (33, 28), (63, 3), (65, 0), (65, 60), (100, 48), (129, 124)],
)
def test_a_feature_counts_the_same_wherever_it_stands(features, first):
    """Of many rows: constant columns around five features change how counters are blocked."""
    codes, bins, gradients, hessians = table(33001, 5, max_bin=60)
    alone = grow((codes, bins, gradients, hessians), {})
    wide = torch.zeros(33001, features, dtype=codes.dtype)
    wide[:, first : first + 5] = codes
    wide_bins = torch.ones(features, dtype=bins.dtype)
    wide_bins[first : first + 5] = bins
    found = grow((wide, wide_bins, gradients, hessians), {})
    for output, one, two in zip(OUTPUTS, alone, found, strict=True):
        expected = torch.where(one >= 0, one + first, one) if output == "feature" else one
        assert torch.equal(two, expected), output
