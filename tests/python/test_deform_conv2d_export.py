"""deform_conv2d as others call it, bad input, and the module: opcheck, TorchScript, torch.export,
torch.compile, autocast, state dicts."""

import pytest
import torch
from checks import NoSynchronisation, compile_and_run, export_and_run, opcheck, script_round_trip
from torch import nn
from torchvision.ops import DeformConv2d as TorchvisionDeformConv2d

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


def tensors(device="cpu", dtype=torch.float32, batch=2, requires_grad=False):
    """(input, weight, offset, mask, bias): 4 channels to 6, 3 x 3, padding 1, two offset groups."""
    sizes = [(batch, 4, 6, 7), (6, 4, 3, 3), (batch, 36, 6, 7), (batch, 18, 6, 7), (6,)]
    return [torch.randn(size).to(dtype).to(device).requires_grad_(requires_grad) for size in sizes]


NUMBERS = ([1, 1], [1, 1], [1, 1], 1, 2)


def convolve(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor):
    return tilewright.deform_conv2d(x, offset, weight, None, 1, (1, 1), 1, mask)


@pytest.mark.smoke
@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(device, dtype, requires_grad):
    x, weight, offset, mask, bias = tensors(device, dtype, requires_grad=requires_grad)
    opcheck(ops.deform_conv2d.default, (x, weight, offset, mask, bias, *NUMBERS))
    last = x.detach().contiguous(memory_format=torch.channels_last)
    opcheck(ops.deform_conv2d.default, (last, weight, offset.float(), None, None, *NUMBERS))
    grad = torch.randn(2, 6, 6, 7).to(dtype).to(device)
    x, weight, offset, mask = (t.detach() for t in (x, weight, offset, mask))
    for needs in ([True] * 5, [False, True, False, False, True]):
        opcheck(
            ops._deform_conv2d_backward.default, (grad, x, weight, offset, mask, *NUMBERS, needs)
        )


@pytest.mark.smoke
@kernels
def test_script_export_compile(device):
    x, weight, offset, mask, _ = tensors(device)
    given = (x, offset, weight, mask)
    expected = convolve(*given)
    assert torch.equal(script_round_trip(convolve, *given), expected)
    assert torch.equal(export_and_run(convolve, *given), expected)
    assert torch.equal(compile_and_run(convolve, *given), expected)


@kernels
def test_export_with_a_dynamic_batch(device):
    x, weight, offset, mask, _ = tensors(device)
    batch = torch.export.Dim("batch", min=1)
    shapes = ({0: batch}, {0: batch}, {}, {0: batch})
    others = tensors(device, batch=3)
    other = (others[0], others[2], weight, others[3])
    out = export_and_run(
        convolve, x, offset, weight, mask, dynamic_shapes={"args": shapes}, other_args=other
    )
    assert torch.equal(out, convolve(*other))


@kernels
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.unchecked)]
)
def test_compiled_gradient(device, backend):
    x, weight, offset, mask, _ = tensors(device, requires_grad=True)
    given = (x, offset, weight, mask)
    plain = torch.autograd.grad(convolve(*given).square().sum(), given)
    compiled = torch.compile(convolve, fullgraph=True, backend=backend)
    found = torch.autograd.grad(compiled(*given).square().sum(), given)
    for a, b in zip(plain, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@kernels
def test_autocast_keeps_the_digits_of_offsets(device):
    x, weight, offset, mask, _ = tensors(device)
    with torch.autocast(device.type, torch.bfloat16):
        out = convolve(x, offset, weight, mask)
        assert out.dtype == torch.bfloat16
    expected = convolve(x.bfloat16(), offset, weight.bfloat16(), mask)
    assert torch.equal(out, expected)


@kernels
def test_it_asks_the_device_for_nothing(device):
    given = tensors(device, requires_grad=True)
    with NoSynchronisation():
        ops.deform_conv2d(*given, *NUMBERS).sum().backward()


@pytest.mark.no_launch
@kernels
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("input", lambda t: t[0], r"input must have shape \(N, C, H, W\)"),
        ("input", lambda t: t[:, :0], r"input must have channels, got \(2, 0, 6, 7\)"),
        ("input", lambda t: t.int(), "input must be float64, float32, float16 or bfloat16"),
        ("weight", lambda t: t[:, :3], r"weight must have shape .* C / groups = 4"),
        ("weight", lambda t: t.double(), r"weight must have input's dtype \(Float\), got Double"),
        ("weight", lambda t: t[:, :, :0], "kernel of at least 1 x 1"),
        ("weight", lambda t: t.repeat(1, 1, 3, 1), "the kernel reaches beyond the padded input"),
        ("offset", lambda t: t[:, :35], r"offset must have shape .* = \(2, 36, 6, 7\), got"),
        ("offset", lambda t: t[:, :, 1:], r"offset must have shape .* got \(2, 36, 5, 7\)"),
        ("offset", lambda t: t.half(), r"offset must have input's dtype \(Float\), got Half"),
        ("mask", lambda t: t[:1], r"mask must have shape .* got \(1, 18, 6, 7\)"),
        ("bias", lambda t: t[:5], r"bias must have shape \(C_out,\) = \(6,\), got \(5,\)"),
        ("stride", lambda _: [0, 1], "stride must be at least 1, got 0"),
        ("padding", lambda _: [-1, 1], "padding must be at least 0, got -1"),
        ("dilation", lambda _: [1, 0], "dilation must be at least 1, got 0"),
        ("groups", lambda _: 3, r"groups \(3\) must divide input's channels \(4\)"),
        ("groups", lambda _: 0, "groups must be positive, got 0"),
        ("offset_groups", lambda _: 3, r"offset_groups \(3\) must divide input's channels \(4\)"),
    ],
)
def test_shapes_and_numbers_are_named(device, name, change, message):
    names = ["input", "weight", "offset", "mask", "bias"]
    names += ["stride", "padding", "dilation", "groups", "offset_groups"]
    given = dict(zip(names, [*tensors(device), *NUMBERS], strict=True))
    given[name] = change(given[name])
    with pytest.raises(RuntimeError, match=f"tilewright::deform_conv2d: .*{message}"):
        ops.deform_conv2d(**given)


def test_what_the_function_cannot_tell():
    x, weight, offset, _, _ = tensors()
    with pytest.raises(ValueError, match="a multiple of 18, got 35"):
        tilewright.deform_conv2d(x, offset[:, :35], weight)
    with pytest.raises(ValueError, match=r"second size \(3\) must divide input's channels \(4\)"):
        tilewright.deform_conv2d(x, offset, weight[:, :3])
    with pytest.raises(ValueError, match="four dimensions"):
        tilewright.deform_conv2d(x[0], offset, weight)


def test_the_module_begins_as_half_a_convolution():
    layer = tilewright.DeformConv2d(4, 6, 3, padding=1)
    x = torch.randn(2, 4, 6, 7)
    plain = nn.functional.conv2d(x, layer.weight, None, padding=1) * 0.5
    torch.testing.assert_close(layer(x), plain + layer.bias[:, None, None])
    one = tilewright.DeformConv2d(4, 6, 3, padding=1, modulated=False)
    plain = nn.functional.conv2d(x, one.weight, one.bias, padding=1)
    torch.testing.assert_close(one(x), plain)
    assert torch.equal(torch.jit.script(layer)(x), layer(x))
    layer(x).sum().backward()
    assert layer.conv_offset.weight.grad.abs().sum() > 0


def test_state_dicts_of_others():
    theirs = TorchvisionDeformConv2d(4, 6, 3, padding=1)
    layer = nn.Sequential(tilewright.DeformConv2d(4, 6, 3, padding=1))
    layer.load_state_dict({f"0.{k}": v for k, v in theirs.state_dict().items()})
    x, _, offset, _, _ = tensors()
    mask = torch.rand(2, 9, 6, 7)
    torch.testing.assert_close(
        layer[0](x, offset[:, :18], mask), theirs(x, offset[:, :18], mask), rtol=1e-4, atol=1e-4
    )
    # mmcv's.
    weights = nn.Conv2d(4, 27, 3, padding=1).state_dict()
    own = {f"0.{k}": v for k, v in theirs.state_dict().items()}
    layer.load_state_dict(own | {f"0.conv_offset.{k}": v for k, v in weights.items()})
    found = nn.functional.conv2d(x, weights["weight"], weights["bias"], padding=1)
    first, second, logits = found.chunk(3, 1)  # as mmcv takes them apart
    expected = theirs(x, torch.cat([first, second], 1), logits.sigmoid())
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="conv_offset"):  # what does not fit is no match
        layer.load_state_dict(own | {"0.conv_offset.weight": torch.zeros(18, 4, 3, 3)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, r"groups \(3\) must divide in_channels \(4\)"),
        ({"offset_groups": 3}, r"offset_groups \(3\) must divide in_channels \(4\)"),
    ],
)
def test_options_of_the_module(options, message):
    with pytest.raises(ValueError, match=message):
        tilewright.DeformConv2d(4, 6, 3, **options)
    with pytest.raises(ValueError, match="mask needs an offset"):
        tilewright.DeformConv2d(4, 6, 3)(torch.randn(1, 4, 5, 5), mask=torch.ones(1, 9, 3, 3))
