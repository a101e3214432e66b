"""unscale_ and unscale_and_norm_: products, what is found, norms, what is refused."""

import math

import pytest
import torch
from checks import NoSynchronisation, assert_same_bits, opcheck, script_round_trip
from conftest import DTYPES

ops = torch.ops.tilewright
kernels = pytest.mark.kernels
both = pytest.mark.parametrize("op", ["unscale_", "unscale_and_norm_"])
SIZES = [1, 3, 0, 8, 31, 64, 1000, 16384, 16385, 40000]


def number(value, device, dtype=torch.float32):
    return torch.tensor(value, dtype=dtype, device=device)


def call(op, grads, inv_scale, first_bad=None):
    """The norm or None, and found_inf."""
    device = grads[0].device if grads else torch.device("cpu")
    found = number([0.0], device)
    return getattr(ops, op)(grads, found, number(inv_scale, device), first_bad), found.item()


def grads_of(dtype, device, sizes=SIZES, scale=1.0):
    return [(torch.randn(n, device=device) * scale).to(dtype) for n in sizes]


@pytest.mark.smoke
@kernels
@both
@pytest.mark.parametrize("inv_scale", [2.0**-16, 1 / 3, 1.0, 7.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_norm(device, op, dtype, inv_scale):
    grads = grads_of(dtype, device)
    inv = number(inv_scale, device)
    # By torch's own product: one rounding, of the product in float32.
    expected = [
        (g.double() * inv.double()).float().to(dtype)
        if dtype != torch.float64
        else g * inv.double()
        for g in grads
    ]
    before = [g.clone() for g in grads]
    norm, found = call(op, grads, inv_scale)
    assert found == 0
    for grad, wanted in zip(grads, expected, strict=True):
        assert torch.equal(grad, wanted)
    if norm is None:
        return
    # Of the products before they are rounded to 16 bits.
    products = torch.cat([b.double() for b in before]) * inv.double()
    assert norm.shape == () and norm.dtype == (dtype if dtype == torch.float64 else torch.float32)
    limit = 1e-12 if dtype == torch.float64 else 3e-7
    assert abs(norm.item() - products.norm().item()) <= limit * products.norm().item()


@kernels
@both
def test_dtypes_and_layouts_together(device, op):
    base = torch.randn(6, 8, device=device)
    grads = [
        torch.randn(2, 3, 5, 5, device=device).contiguous(memory_format=torch.channels_last),
        torch.randn(7, 5, device=device).double().t(),
        base[:, ::2],  # with gaps
        base[::2, 1::2],
        torch.randn(40, device=device).half()[3:],  # not aligned
        torch.randn((), device=device).bfloat16(),
        torch.empty(0, 4, device=device),
    ]
    expected = [(g.double() * 0.5).to(g.dtype) for g in grads]
    gaps = base[1::2, 1::2].clone()
    norm, found = call(op, grads, 0.5)
    assert found == 0 and torch.equal(base[1::2, 1::2], gaps)
    for grad, wanted in zip(grads, expected, strict=True):
        assert torch.equal(grad, wanted)
    if norm is not None:
        assert norm.dtype == torch.float64
        total = math.sqrt(sum(e.double().square().sum().item() for e in expected))
        assert abs(norm.item() - total) < 1e-8 * total


@kernels
@both
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bad_element_is_found(device, op, dtype, value):
    """Wherever it stands."""
    for place in (0, 5, 15, 16, 100, 16383, 16384, 39999):
        grads = grads_of(dtype, device, [3, 40000, 10])
        grads[1][place] = value
        first_bad = number(100, device, torch.int64)
        norm, found = call(op, grads, 0.5, first_bad)
        assert found == 1 and first_bad.item() == 1
        if norm is not None:
            assert not math.isfinite(norm.item())
    grads = grads_of(dtype, device, [5, 5, 5])
    grads[1][2] = grads[2][0] = value
    first_bad = number(0, device, torch.int64)
    assert call(op, grads, 1.0, first_bad)[1] == 1  # looked through, and nothing to multiply
    assert first_bad.item() == 0  # an earlier one stays


@kernels
@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_becomes_infinite_is_found(device, op, dtype):
    """A product, or a number that a 16-bit type rounds to infinity. torch's operator looks
    before."""
    largest = torch.finfo(dtype).max
    for inv_scale, bad in ((1.0, False), (1.001, dtype is not torch.bfloat16), (2.0, True)):
        grads = [torch.full((9,), largest, dtype=dtype, device=device)]
        _, found = call(op, grads, inv_scale)
        assert found == (not torch.isfinite(grads[0]).all()) == bad
    zeros = [torch.zeros(20, dtype=dtype, device=device)]
    assert call(op, zeros, math.inf)[1] == 1  # the inverse of a scale that fell to 0: 0 * inf
    assert call(op, grads_of(dtype, device, [4]), math.nan)[1] == 1


@kernels
@both
def test_halfway_to_infinity(device, op):
    for dtype, least in ((torch.float16, 65520.0), (torch.bfloat16, float.fromhex("0x1.FFp127"))):
        for value in (least, math.nextafter(least, 0)):
            inv = torch.tensor(value / torch.finfo(dtype).max, dtype=torch.float64).float()
            product = (inv.double() * torch.finfo(dtype).max).float()
            grads = [torch.full((3,), torch.finfo(dtype).max, dtype=dtype, device=device)]
            _, found = call(op, grads, inv.item())
            assert found == torch.isinf(product.to(dtype)) == torch.isinf(grads[0][0])


@kernels
def test_denormals_stay(device):
    for dtype in DTYPES:
        tiny = torch.finfo(dtype).smallest_normal
        grads = [torch.tensor([tiny, -tiny, tiny / 2, 0.0], dtype=dtype, device=device)]
        expected = (grads[0].double() * 0.25).to(dtype)
        assert call("unscale_", grads, 0.25)[1] == 0
        assert torch.equal(grads[0], expected) and expected[0] != 0


@kernels
def test_the_norm_neither_overflows_nor_vanishes(device):
    """Squares of float32 leave its range on both sides."""
    for size in (1e30, 1e-30, 1e-44):
        grads = [torch.full((1000,), size, device=device)]
        expected = grads[0].double().norm().item()
        norm, _ = call("unscale_and_norm_", grads, 1.0)
        assert abs(norm.item() - expected) <= max(1e-6 * expected, 1.5e-45)


@kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_looking_without_writing(device, dtype):
    for sizes in ([5, 40000], [16, 3]):
        grads = grads_of(dtype, device, sizes)
        before, found = [g.clone() for g in grads], number(0.0, device)
        norm = ops.unscale_and_norm_(grads, found, number(0.25, device), None, False)
        ops.unscale_(grads, found, number(0.25, device), write=False)
        assert all(torch.equal(g, b) for g, b in zip(grads, before, strict=True))
        total = torch.cat([g.double() for g in before]).norm().item() / 4
        assert found.item() == 0 and abs(norm.item() - total) < 1e-6 * total
        ops.unscale_(grads, found, number(3e38, device), write=False)
        if dtype != torch.float64:
            assert found.item() == 1  # as it would be


@kernels
def test_norms_of_pieces_far_apart(device):
    """Sums that float32 holds, sums that it does not, and zeros, each with whole pieces."""
    grads = [
        torch.randn(33000, device=device) * size for size in (1.0, 1e-25, 1e25, 0.0, 1e-42, 1e-3)
    ]
    for which in ([0, 1], [1], [2, 0], [1, 3, 4], [4], [5, 3]):
        for inv_scale in (1.0, 0.5):
            some = [grads[i].clone() for i in which]
            expected = torch.cat([g.double() * inv_scale for g in some]).float().double().norm()
            norm, _ = call("unscale_and_norm_", some, inv_scale)
            assert abs(norm.item() - expected.item()) <= max(3e-7 * expected.item(), 1.5e-45)


@kernels
@both
@pytest.mark.no_launch
def test_no_gradients(device, op):
    found, first_bad = number(0.0, device), number(7, device, torch.int64)
    for grads in ([], [torch.empty(0, device=device)]):
        norm = getattr(ops, op)(grads, found, number(0.5, device), first_bad)
        assert found.item() == 0 and first_bad.item() == 7
        assert norm is None or norm.item() == 0


@kernels
def test_thousands_of_tensors(device):
    grads = grads_of(torch.float32, device, [1 + i % 37 for i in range(1500)])
    expected = [g * 0.125 for g in grads]
    grads[1207][-1] = math.nan
    first_bad = number(2000, device, torch.int64)
    assert call("unscale_", grads, 0.125, first_bad)[1] == 1 and first_bad.item() == 1207
    grads[1207], expected[1207] = grads[1207][:-1], expected[1207][:-1]
    assert all(torch.equal(g, e) for g, e in zip(grads, expected, strict=True))


@kernels
def test_found_inf_is_never_reset(device):
    found = number([1.0], device)
    ops.unscale_([torch.ones(4, device=device)], found, number(1.0, device))
    assert found.item() == 1


@kernels
def test_same_bits(device, another_order):
    given = grads_of(torch.float32, device, [100000, 7, 33333])

    def run():
        grads = [g.clone() for g in given]
        norm, _ = call("unscale_and_norm_", grads, 1 / 3)
        return [*grads, norm]

    assert_same_bits(run, (2, 3, 5), another_order)


@kernels
@both
def test_versions_and_gradients(device, op):
    grad, found = torch.ones(3, device=device), number(0.0, device)
    versions = grad._version, found._version
    getattr(ops, op)([grad], found, number(0.5, device))
    assert (grad._version, found._version) == tuple(v + 1 for v in versions)
    grad.requires_grad_()
    with pytest.raises(RuntimeError, match=rf"tilewright::{op}: grads\[0\] requires grad"):
        getattr(ops, op)([grad], found, number(0.5, device))
    with torch.no_grad():
        getattr(ops, op)([grad], found, number(0.5, device))
    assert grad.tolist() == [0.25] * 3
    with torch.inference_mode():
        made_there = torch.ones(3, device=device)
        getattr(ops, op)([made_there], found.clone(), number(0.5, device))
        assert made_there.tolist() == [0.5] * 3
    with pytest.raises(RuntimeError, match="made in inference mode can only be changed"):
        getattr(ops, op)([made_there], found, number(0.5, device))


@both
def test_bad_input(device, op):
    ok, inv, found = torch.ones(4, device=device), number(0.5, device), number(0.0, device)
    sparse = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (4,), device=device)
    whole = torch.ones(8, device=device)
    cases = [
        (([ok, ok.long()], found, inv), r"grads\[1\] must be float64, .* got Long"),
        (([sparse], found, inv), r"grads\[0\] must be dense, got layout Sparse"),
        (([ok.to("meta")], found, inv), r"grads\[0\] must be on the device of the others"),
        (([ok, whole, ok], found, inv), r"grads\[0\] and grads\[2\] share memory"),
        (([whole[1:5], whole[4:]], found, inv), r"grads\[0\] and grads\[1\] share memory"),
        (([ok[:1].expand(4)], found, inv), r"grads\[0\] must have memory of its own"),
        (([ok], found.double(), inv), "found_inf must be one number of Float, got shape .* Double"),
        (([ok], found.expand(2), inv), r"found_inf must be one number of Float, got shape \(2,\)"),
        (([ok], found, inv.half()), "inv_scale must be one number of Float"),
        (([ok], found, inv, inv), "first_bad must be one number of Long"),
    ]
    for arguments, message in cases:
        with pytest.raises((RuntimeError, NotImplementedError), match=message):
            getattr(ops, op)(*arguments)
    assert ok.tolist() == [1.0] * 4 and whole.tolist() == [1.0] * 8 and found.item() == 0
    ops.unscale_([whole[:4], whole[4:]], found, inv)  # neighbours share nothing


@kernels
@both
@pytest.mark.smoke
def test_opcheck_and_script(device, op):
    grads = [torch.randn(5, device=device), torch.randn(2, 3, device=device).bfloat16()]
    found, inv, first = number(0.0, device), number(0.5, device), number(9, device, torch.int64)
    opcheck(getattr(ops, op).default, (grads, found, inv))
    opcheck(getattr(ops, op).default, (grads, found, inv, first))


def unscaled(x: torch.Tensor, found: torch.Tensor, inv: torch.Tensor):
    torch.ops.tilewright.unscale_([x], found, inv)
    return torch.ops.tilewright.unscale_and_norm_([x], found, inv)


@kernels
def test_script_and_compile(device):
    for run in (
        lambda *a: script_round_trip(unscaled, *a),
        torch.compile(unscaled, backend="aot_eager"),
    ):
        x, found = torch.full((4,), 8.0, device=device), number(0.0, device)
        norm = run(x, found, number(0.5, device))
        assert x.tolist() == [2.0] * 4 and norm.item() == 4.0 and found.item() == 0


@kernels
@both
def test_the_device_is_not_waited_for(device, op):
    grads, found = grads_of(torch.float32, device), number(0.0, device)
    inv = number(0.5, device)
    with NoSynchronisation():
        getattr(ops, op)(grads, found, inv)
