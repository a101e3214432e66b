"""nade and nade_sample: likelihoods that add up to 1, gradients against fp64, samples, limits."""

import pytest
import torch
from checks import assert_close_to_fp64, assert_same_bits, opcheck, script_round_trip
from conftest import DTYPES, MACHINE
from reference_density import all_states, nade, nade_in_logits
from torch.autograd import gradcheck, gradgradcheck

import tilewright

ops = torch.ops.tilewright
# N, D, H; the last has few tiles of units, whose work is shared by samples.
SIZES = [(1, 1, 1), (3, 7, 5), (9, 33, 16), (17, 65, 40), (5, 100, 270), (100, 40, 9)]
pytestmark = pytest.mark.kernels


def weights_of(d, h, dtype=torch.float64, spread=0.5, device="cpu"):
    sizes = (h, d), (h,), (d, h), (d,)
    return [(torch.randn(s) * spread).to(device, dtype).requires_grad_() for s in sizes]


def binary(n, d, dtype=torch.float64, device="cpu"):
    return (torch.rand(n, d) < 0.4).to(device, dtype)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_likelihood_and_gradients(device, size, dtype):
    n, d, h = size
    x, given = binary(n, d, dtype, device), weights_of(d, h, dtype, device=device)
    results = []
    for run, to in ((tilewright.nade, dtype), (nade_in_logits, dtype), (nade, torch.float64)):
        w = [t.detach().to(to).requires_grad_() for t in given]
        log_prob = run(x.to(to), *w)
        if not results:
            grad = torch.randn(n, dtype=log_prob.dtype, device=device)
        grads = torch.autograd.grad(  # of one pixel, weight_in is used nowhere
            log_prob, w, grad.to(log_prob.dtype), materialize_grads=True
        )
        results.append((log_prob, grads))
    ours, plain, exact = results
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    assert ours[0].dtype == sums and ours[0].shape == (n,)
    assert_close_to_fp64(*(r[0].detach() for r in results))
    for a, b, c in zip(ours[1], plain[1], exact[1], strict=True):
        assert a.dtype == dtype
        assert_close_to_fp64(a, b, c, gradient=True)


@pytest.mark.smoke
def test_probabilities_of_all_states_add_up_to_one(device):
    x = all_states(10).to(device)
    for spread in (0.1, 1.0, 10.0):
        log_prob = tilewright.nade(x, *weights_of(10, 6, spread=spread, device=device))
        assert abs(log_prob.exp().sum().item() - 1) < 1e-12


def test_saturated_units_and_far_pixels(device):
    """Weights of 1e4 make every unit and every pixel certain; nothing overflows, and pixels that
    cannot be cost as much as they should."""
    x = binary(20, 30, device=device)
    for dtype in (torch.float64, torch.float32):
        w = weights_of(30, 18, dtype, spread=1e4, device=device)
        log_prob = tilewright.nade(x.to(dtype), *w)
        log_prob.sum().backward()
        exact = nade_in_logits(x, *(t.detach().double() for t in w))
        torch.testing.assert_close(log_prob.double(), exact, rtol=1e-6, atol=1e-6)
        assert all(t.grad.isfinite().all() for t in w)


def test_early_pixels_survive_a_later_one_of_huge_weight(device):
    """The backward walks down from the last pixel: what it has to undo must not cost digits."""
    x = torch.ones(9, 50, device=device)
    w = weights_of(50, 20, torch.float32, spread=0.1, device=device)
    with torch.no_grad():
        w[0][:, -2] = 1e9
    ours = torch.autograd.grad(tilewright.nade(x, *w).sum(), w)
    wide = [t.detach().double().requires_grad_() for t in w]
    exact = torch.autograd.grad(nade_in_logits(x.double(), *wide).sum(), wide)
    torch.testing.assert_close(ours[0][:, :20].double(), exact[0][:, :20], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[2][:20].double(), exact[2][:20], rtol=1e-4, atol=1e-5)


def test_nan_stays_nan(device):
    w = weights_of(5, 3, torch.float32, device=device)
    with torch.no_grad():
        w[0][1, 2] = float("nan")
    assert tilewright.nade(torch.ones(2, 5, device=device), *w).isnan().all()


def test_derivatives(device):
    x = binary(5, 4, device=device)
    w = weights_of(4, 3, device=device)
    assert gradcheck(lambda *w: tilewright.nade(x, *w), w)
    assert gradgradcheck(lambda *w: tilewright.nade(x, *w), w)
    log_prob = tilewright.nade(x, w[0].detach(), *w[1:])
    first = torch.autograd.grad(log_prob.sum(), w[1:], create_graph=True)
    assert first[0].requires_grad
    with pytest.raises(RuntimeError, match="_nade_backward: is not differentiable"):
        logits = ops._nade(x, *w)[1]
        grads = ops._nade_backward(torch.ones_like(log_prob.detach()), x, *w, logits)
        grads[0].sum().backward()


def test_weights_that_need_no_gradient(device):
    x, w = binary(6, 9, device=device), weights_of(9, 5, device=device)
    whole = torch.autograd.grad(tilewright.nade(x, *w).sum(), w)
    for i in range(4):
        given = [t.detach().requires_grad_(j == i) for j, t in enumerate(w)]
        tilewright.nade(x, *given).sum().backward()
        assert torch.equal(given[i].grad, whole[i])
    with torch.no_grad():
        assert not tilewright.nade(x, *w).requires_grad


@pytest.mark.skipif(MACHINE != "cpu", reason="a promise of the CPU")
@pytest.mark.parametrize("size", [(70, 50, 300), (300, 60, 20), (33, 40, 130)])
def test_same_bits_for_any_number_of_threads(size):
    n, d, h = size
    x, w = binary(n, d, torch.float32), weights_of(d, h, torch.float32)

    def run():
        torch.manual_seed(3)
        log_prob = tilewright.nade(x, *w)
        return [log_prob, *torch.autograd.grad(log_prob.sum(), w), tilewright.nade_sample(n, *w)]

    assert_same_bits(run, (2, 3))


def test_same_bits_in_every_run(device, another_order):
    x = binary(40, 20, torch.float32, device)
    w = weights_of(20, 70, torch.float32, device=device)

    def run():
        log_prob = tilewright.nade(x, *w)
        return [log_prob, *torch.autograd.grad(log_prob.sum(), w)]

    first = run()
    for _ in range(3):
        another_order()
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_more_units_than_shared_memory_holds(device):
    x = binary(2, 3, torch.float32, device)
    w = weights_of(3, 13000, torch.float32, 0.02, device)
    exact = nade(x.double(), *(t.detach().double() for t in w))
    torch.testing.assert_close(tilewright.nade(x, *w).double(), exact, rtol=1e-5, atol=1e-5)


def test_other_strides(device):
    x, w = binary(6, 9, device=device), weights_of(9, 5, device=device)
    expected = tilewright.nade(x, *w)
    grads = torch.autograd.grad(expected.sum(), w)
    turned = [t.detach().t().contiguous().t() if t.dim() == 2 else t.detach() for t in w]
    turned[1] = torch.stack([turned[1], turned[1]], 1)[:, 0]
    turned = [t.requires_grad_() for t in turned]
    wide = torch.zeros(6, 18, dtype=x.dtype, device=device)
    wide[:, ::2] = x
    found = tilewright.nade(wide[:, ::2], *turned)
    assert torch.equal(found, expected)
    weights = torch.ones(1, dtype=x.dtype, device=device).expand(6)  # a gradient without strides
    for a, b in zip(torch.autograd.grad(found, turned, weights), grads, strict=True):
        assert torch.equal(a, b)


@pytest.mark.no_launch
def test_no_rows(device):
    w = weights_of(4, 3, torch.float32, device=device)
    log_prob = tilewright.nade(torch.zeros(0, 4, device=device), *w)
    assert log_prob.shape == (0,)
    log_prob.sum().backward()
    assert all(t.grad is not None and not t.grad.any() for t in w)
    assert tilewright.nade_sample(0, *w).shape == (0, 4)


@pytest.mark.smoke
def test_samples_have_the_probabilities_of_the_model(device):
    w = [t.detach() for t in weights_of(4, 5, spread=1.0, device=device)]
    states = all_states(4).to(device)
    probability = tilewright.nade(states, *w).exp().cpu()
    n = 20000 if MACHINE != "simt" else 2000
    drawn = tilewright.nade_sample(n, *w)
    place = (drawn.long() @ torch.tensor([8, 4, 2, 1], device=device)).cpu()
    counts = torch.bincount(place, minlength=16)
    chi_square = ((counts - n * probability) ** 2 / (n * probability)).sum().item()
    assert chi_square < 37.7  # of 15 degrees of freedom: passed by one seed in a thousand
    # Those whose first two pixels are 1 and 0, as Bayes has it.
    given = torch.tensor([[1.0, 0.0]], dtype=torch.float64, device=device).expand(n, 2)
    drawn = tilewright.nade_sample(n, *w, given=given)
    assert torch.equal(drawn[:, :2], given)
    place = (drawn[:, 2:].long() @ torch.tensor([2, 1], device=device)).cpu()
    expected = n * probability[8:12] / probability[8:12].sum()
    counts = torch.bincount(place, minlength=4)
    assert ((counts - expected) ** 2 / expected).sum().item() < 16.3


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_follow_their_uniform_numbers(device, dtype):
    n, d, h = 19, 40, 21
    w = [t.detach() for t in weights_of(d, h, dtype, spread=0.4, device=device)]
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator(device).manual_seed(5)
    uniform = torch.rand(n, d, dtype=sums, generator=generator, device=device)
    given = binary(n, 3, dtype, device)
    drawn = tilewright.nade_sample(n, *w, given=given, generator=generator.manual_seed(5))
    assert drawn.dtype == dtype and torch.equal(drawn[:, :3], given)
    wide = [t.double() for t in w]
    activation = wide[1].expand(n, -1)
    for i in range(d):
        p = torch.sigmoid(wide[3][i] + torch.sigmoid(activation) @ wide[2][i])
        clear = (uniform[:, i] - p).abs() > 1e-5
        agree = drawn[:, i].double() == (uniform[:, i] < p)
        assert (agree | ~clear | (i < 3)).all()
        activation = activation + drawn[:, i : i + 1].double() * wide[0][:, i]


def test_all_pixels_given(device):
    w = [t.detach() for t in weights_of(6, 4, device=device)]
    given = binary(3, 6, device=device)
    assert torch.equal(tilewright.nade_sample(3, *w, given=given), given)
    assert not tilewright.nade_sample(2, *weights_of(6, 4, device=device)).requires_grad


def test_script_export_compile_and_opcheck(device):
    x, w = binary(6, 9, device=device), weights_of(9, 5, device=device)
    expected = tilewright.nade(x, *w)
    assert torch.equal(script_round_trip(tilewright.nade, x, *w), expected)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(
        _Nade(), (x, *w), dynamic_shapes=({0: rows}, None, None, None, None)
    )
    torch.testing.assert_close(program.module()(x[:3], *w), expected[:3])
    compiled = torch.compile(tilewright.nade, fullgraph=True, backend="aot_eager")(x, *w)
    assert torch.equal(compiled, expected)
    for a, b in zip(*(torch.autograd.grad(y.sum(), w) for y in (compiled, expected)), strict=True):
        assert torch.equal(a, b)
    opcheck(ops._nade.default, (x, *w))
    plain = [t.detach() for t in w]
    logits = ops._nade(x, *plain)[1]
    opcheck(ops._nade_backward.default, (torch.ones_like(expected.detach()), x, *plain, logits))
    certain = [*plain[:3], plain[3].sign() * 1e9]  # no draw can turn out otherwise
    opcheck(ops.nade_sample.default, (6, *certain))
    opcheck(ops.nade_sample.default, (6, *certain, x[:, :4]))
    drawn = script_round_trip(_draw, *certain)
    assert torch.equal(drawn[:1], (plain[3] > 0).to(drawn)[None])


class _Nade(torch.nn.Module):
    def forward(self, x, weight_in, bias_in, weight_out, bias_out):
        return tilewright.nade(x, weight_in, bias_in, weight_out, bias_out)


def _draw(w: torch.Tensor, c: torch.Tensor, v: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return tilewright.nade_sample(2, w, c, v, b)


def test_autocast_computes_in_float32(device):
    x = binary(6, 9, torch.float32, device)
    w = weights_of(9, 5, torch.float32, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        log_prob = tilewright.nade(x.bfloat16(), *w)
    assert torch.equal(log_prob, tilewright.nade(x, *w))
    log_prob.sum().backward()
    assert w[0].grad.dtype == torch.float32
