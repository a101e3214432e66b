"""deform_aggregate as others call it, and bad input: opcheck, TorchScript, torch.export,
torch.compile, autocast."""

import pytest
import torch
from checks import NoSynchronisation, compile_and_run, export_and_run, opcheck, script_round_trip

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def tensors(device="cpu", dtype=torch.float32, batch=2, requires_grad=False):
    """(input, offset, mask): 8 channels in two groups, 3 x 3, padding 1."""
    sizes = [(batch, 6, 7, 8), (batch, 6, 7, 36), (batch, 6, 7, 18)]
    return [torch.randn(size).to(dtype).to(device).requires_grad_(requires_grad) for size in sizes]


NUMBERS = ([3, 3], [1, 1], [1, 1], [1, 1], 2)


def aggregate(x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor):
    return tilewright.deform_aggregate(
        x, offset, mask, 3, padding=(1, 1), groups=2, offset_scale=0.5
    )


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(device, dtype, requires_grad):
    x, offset, mask = tensors(device, dtype, requires_grad=requires_grad)
    opcheck(ops.deform_aggregate.default, (x, offset, mask, *NUMBERS))
    opcheck(ops.deform_aggregate.default, (x, offset.float(), mask.float(), *NUMBERS, 0.5))
    given = [t.detach() for t in (x, offset, mask)]
    grad = torch.randn(2, 6, 7, 8).to(dtype).to(device)
    for needs in ([True] * 3, [False, True, False]):
        opcheck(ops._deform_aggregate_backward.default, (grad, *given, *NUMBERS, 1.0, needs))


@pytest.mark.smoke
@kernels
def test_script_export_compile(device):
    given = tensors(device)
    expected = aggregate(*given)
    assert torch.equal(script_round_trip(aggregate, *given), expected)
    assert torch.equal(export_and_run(aggregate, *given), expected)
    assert torch.equal(compile_and_run(aggregate, *given), expected)


@kernels
def test_export_with_dynamic_sizes(device):
    batch, height = torch.export.Dim("batch", min=1), torch.export.Dim("height", min=3)
    shapes = ({0: batch, 1: height},) * 3
    x, offset, mask = tensors(device, batch=3)
    other = [t[:, :5] for t in (x, offset, mask)]
    out = export_and_run(
        aggregate, *tensors(device), dynamic_shapes={"args": shapes}, other_args=other
    )
    assert torch.equal(out, aggregate(*other))


@kernels
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.unchecked)]
)
def test_compiled_gradient(device, backend):
    given = tensors(device, requires_grad=True)
    plain = torch.autograd.grad(aggregate(*given).square().sum(), given)
    compiled = torch.compile(aggregate, fullgraph=True, backend=backend)
    found = torch.autograd.grad(compiled(*given).square().sum(), given)
    for a, b in zip(plain, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@kernels
def test_autocast_keeps_the_digits_of_offsets(device):
    x, offset, mask = tensors(device)
    with torch.autocast(device.type, torch.bfloat16):
        out = aggregate(x, offset, mask)
        assert out.dtype == torch.bfloat16
        # 16-bit ones beside features of another dtype are widened.
        mixed = aggregate(x, offset.half(), mask.bfloat16())
    assert torch.equal(out, aggregate(x.bfloat16(), offset, mask))
    widened = aggregate(x.bfloat16(), offset.half().float(), mask.bfloat16().float())
    assert torch.equal(mixed, widened)


@kernels
def test_it_asks_the_device_for_nothing(device):
    given = tensors(device, requires_grad=True)
    with NoSynchronisation():
        ops.deform_aggregate(*given, *NUMBERS).sum().backward()


@pytest.mark.no_launch
@kernels
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("input", lambda t: t[0], r"input must have shape \(N, H, W, C\), got \(6, 7, 8\)"),
        ("input", lambda t: t[..., :0], r"input must have channels, got \(2, 6, 7, 0\)"),
        ("input", lambda t: t.int(), "input must be float64, float32, float16 or bfloat16"),
        (
            "offset",
            lambda t: t[..., :35],
            r"offset must have shape \(N, output height, output width, groups \* kernel height "
            r"\* kernel width \* 2\) = \(2, 6, 7, 36\), got \(2, 6, 7, 35\)",
        ),
        ("offset", lambda t: t[:, 1:], r"offset must have shape .* got \(2, 5, 7, 36\)"),
        ("offset", lambda t: t.half(), r"offset must have input's dtype \(Float\), got Half"),
        ("mask", lambda t: t[:1], r"mask must have shape .* = \(2, 6, 7, 18\), got \(1, 6, 7, 18"),
        ("mask", lambda t: t.double(), r"mask must have input's dtype \(Float\), got Double"),
        ("mask", lambda t: t.long(), "mask must be float64, float32, float16 or bfloat16"),
        ("kernel", lambda _: [0, 3], "kernel must be at least 1, got 0"),
        ("kernel", lambda _: [3, 10], "the kernel reaches beyond the padded input"),
        ("kernel", lambda _: [2, 3], r"offset must have shape .* = \(2, 7, 7, 24\)"),
        ("stride", lambda _: [0, 1], "stride must be at least 1, got 0"),
        ("padding", lambda _: [-1, 1], "padding must be at least 0, got -1"),
        ("dilation", lambda _: [1, 0], "dilation must be at least 1, got 0"),
        ("groups", lambda _: 3, r"groups \(3\) must divide input's channels \(8\)"),
        ("groups", lambda _: 0, "groups must be positive, got 0"),
        ("offset_scale", lambda _: float("nan"), "offset_scale must be finite, got nan"),
    ],
)
def test_what_does_not_fit_is_named(device, name, change, message):
    names = ["input", "offset", "mask", "kernel", "stride", "padding", "dilation", "groups"]
    given = dict(zip(names, [*tensors(device), *NUMBERS], strict=True)) | {"offset_scale": 1.0}
    given[name] = change(given[name])
    with pytest.raises(RuntimeError, match=f"tilewright::deform_aggregate: .*{message}"):
        ops.deform_aggregate(**given)


@pytest.mark.no_launch
@kernels
def test_the_backward_operator_checks_too(device):
    x, offset, mask = tensors(device)
    needs = [True, True, True]
    with pytest.raises(RuntimeError, match=r"grad must have shape .* = \(2, 6, 7, 8\), got"):
        ops._deform_aggregate_backward(x[:, 1:], x, offset, mask, *NUMBERS, 1.0, needs)
    with pytest.raises(RuntimeError, match=r"grad must have input's dtype \(Float\), got Double"):
        ops._deform_aggregate_backward(x.double(), x, offset, mask, *NUMBERS, 1.0, needs)
