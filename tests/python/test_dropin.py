"""accelerate(): operators of torchvision and torch under their own names, while it stands."""

import threading

import pytest
import torch
import torchvision  # noqa: F401
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile
from torchvision import ops

import tilewright

kernels = pytest.mark.kernels
SIZE, SCALE = (3, 2), 0.5


def calls_of_ours(function, *args):
    """Names of this library's operators that a call runs."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        function(*args)
    return {event.name for event in seen.events() if event.name.startswith("tilewright::")}


def rois(device="cpu", reach=1.0):
    corners = torch.rand(9, 2, device=device) * 12
    image = torch.randint(0, 2, (9, 1), device=device).float()
    sides = torch.cat([corners, corners + 1 + 8 * torch.rand(9, 2, device=device)], 1)
    return torch.cat([image, sides * reach], 1)


def boxes(count=200):
    corners = torch.rand(count, 2) * 40
    return torch.cat([corners, corners + 1 + 20 * torch.rand(count, 2)], 1), torch.rand(count)


def pooling(function, channels, *args, reach=1.0):
    def call(x):
        return function(x, rois(x.device, reach), *args)

    return torch.randn(2, channels, 9, 11), call


def deformable(mask, groups):
    weight, bias = torch.randn(8, 6 // groups, 3, 2), torch.randn(8)
    offset = torch.randn(2, 2 * 3 * 3 * 2, 5, 11)
    given = [weight, offset, bias, *([torch.rand(2, 3 * 3 * 2, 5, 11)] if mask else [])]
    for tensor in given:
        tensor.requires_grad_()

    def call(x):
        w, o, b, *m = (t.to(x.device) for t in given)
        out = ops.deform_conv2d(x, o, w, b, stride=(2, 1), padding=1, mask=m[0] if m else None)
        parts = [out]
        if x.requires_grad:
            parts += torch.autograd.grad(out.cos().sum(), given, retain_graph=True)
        return parts

    return torch.randn(2, 6, 9, 10), call


CASES = {
    "roi_align": lambda: pooling(ops.roi_align, 5, SIZE, SCALE, 2, True),
    "roi_align as detectors call it": lambda: pooling(ops.roi_align, 5, SIZE, SCALE, -1, False),
    "roi_pool": lambda: pooling(ops.roi_pool, 5, SIZE, SCALE),
    "ps_roi_align": lambda: pooling(ops.ps_roi_align, 12, SIZE, SCALE, 2),
    # Inside the map, whose last row and column torchvision's backward knows and its forward not.
    "ps_roi_pool": lambda: pooling(ops.ps_roi_pool, 12, SIZE, SCALE, reach=0.7),
    "deform_conv2d": lambda: deformable(mask=False, groups=1),
    "deform_conv2d with a mask and groups": lambda: deformable(mask=True, groups=2),
}


def results_of(call, x, seed=3):
    """Everything that a call and its backward give."""
    torch.manual_seed(seed)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    given = call(leaf)
    parts = list(given) if isinstance(given, list | tuple) else [given]
    parts[0].sin().sum().backward()
    return [part.detach() for part in parts] + [leaf.grad]


@kernels
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_results_with_the_same_layout(device, name, layout, dtype):
    x, call = CASES[name]()
    x = x.to(device).contiguous(memory_format=layout)
    if dtype == torch.float64 and "deform" not in name:
        inner = call

        def call(x):
            return inner(x.float()).double()

    before = results_of(call, x)
    with tilewright.accelerate():
        assert calls_of_ours(results_of, call, x)
        during = results_of(call, x)
    assert not calls_of_ours(results_of, call, x)
    for ours, theirs in zip(during, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)
        assert ours.stride() == theirs.stride()


@kernels
def test_nms(device):
    given, scores = (t.to(device) for t in boxes())
    idxs = torch.arange(len(scores), device=device) % 3
    before = ops.nms(given, scores, 0.4), ops.batched_nms(given, scores, idxs, 0.4)
    with tilewright.accelerate("torchvision::nms") as active:
        assert all(name.startswith("torchvision::nms on") for name in active.replaced)
        assert "tilewright::nms" in calls_of_ours(ops.nms, given, scores, 0.4)
        assert torch.equal(ops.nms(given, scores, 0.4), before[0])
        assert torch.equal(ops.batched_nms(given, scores, idxs, 0.4), before[1])
    assert not calls_of_ours(ops.nms, given, scores, 0.4)


def attention_inputs(form="heads", head=16, dtype=torch.float32, keys=33):
    """Of the two layouts that models have: (B, H, S, D), and views of (B, S, H, D)."""
    shapes = [(2, 4, 20, head), (2, 4, keys, head), (2, 4, keys, head)]
    if form == "heads":
        return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    given = [torch.randn(b, s, h, d).to(dtype).requires_grad_() for b, h, s, d in shapes]
    return [leaf.transpose(1, 2) for leaf in given]


def attention_results(inputs, grad, **options):
    out = scaled_dot_product_attention(*inputs, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad, retain_graph=True)]


MASKS = {
    "none": lambda: {},
    "causal": lambda: {"is_causal": True},
    "boolean": lambda: {"attn_mask": (torch.rand(20, 33) > 0.3).logical_or(torch.eye(20, 33) > 0)},
    "added, scaled": lambda: {"attn_mask": torch.randn(2, 1, 20, 33), "scale": 0.3},
}


@kernels
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("form", ["heads", "rows"])
def test_attention(mask, form):
    inputs, grad = attention_inputs(form), torch.randn(2, 4, 20, 16)
    options = MASKS[mask]()
    before = attention_results(inputs, grad, **options)
    with tilewright.accelerate():
        ran = calls_of_ours(lambda: attention_results(inputs, grad, **options))
        assert ran == {"tilewright::flash_attention", "tilewright::_flash_attention_backward"}
        during = attention_results(inputs, grad, **options)
    for ours, theirs in zip(during, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert ours.stride() == theirs.stride()


@kernels
def test_attention_in_16_bits_and_grads_across_the_switch():
    inputs, grad = attention_inputs(dtype=torch.bfloat16), torch.randn(2, 4, 20, 16).bfloat16()
    exact = attention_results([t.detach().double().requires_grad_() for t in inputs], grad.double())
    with tilewright.accelerate():
        out = scaled_dot_product_attention(*inputs)
        assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out, inputs, grad)  # by the original's backward
    for ours, reference in zip([out, *grads], exact, strict=True):
        torch.testing.assert_close(ours.double(), reference, rtol=0.03, atol=0.03)


def dropped():
    return scaled_dot_product_attention(*attention_inputs(), dropout_p=0.5)


def wide_heads():
    return scaled_dot_product_attention(*attention_inputs(head=288))


def many_samples():
    return ops.roi_align(torch.randn(2, 3, 9, 11), rois(), 1, SCALE, 1025)


def no_share():
    return ops.nms(*boxes(), 1.5)


@pytest.mark.parametrize("call", [dropped, wide_heads, many_samples, no_share])
def test_what_is_not_covered_goes_to_the_original(call):
    torch.manual_seed(1)
    before = call()
    with tilewright.accelerate():
        torch.manual_seed(1)
        assert torch.equal(call(), before)
        assert not calls_of_ours(call)


def test_gradients_of_many_samples_are_the_originals():
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    box = torch.tensor([[0, 0, 0, 3.0, 3.0]])
    with tilewright.accelerate():
        assert not calls_of_ours(lambda: ops.roi_align(x, box, 1, 1.0, 1025).sum().backward())


def test_accelerations_nest_and_stay_until_undone():
    given = boxes()
    outer = tilewright.accelerate()
    names = outer.replaced
    assert "torchvision::nms on cpu" in names
    assert len([name for name in names if name.endswith(" on cpu")]) == 13
    with tilewright.accelerate(["torchvision::nms"]) as inner:
        assert "torchvision::nms on cpu" in repr(inner)
    assert inner.replaced == [] and "nothing" in repr(inner)
    assert calls_of_ours(ops.nms, *given, 0.5)
    outer.undo()
    outer.undo()
    assert not calls_of_ours(ops.nms, *given, 0.5)
    tilewright.accelerate()  # nobody keeps what it returns
    assert calls_of_ours(ops.nms, *given, 0.5)
    tilewright.accelerate(torch.ops.torchvision.roi_align, torch.device("cpu"))
    assert len(tilewright.dropin.active()) == 2
    assert tilewright.dropin.active()[1].replaced == ["torchvision::roi_align on cpu"]
    tilewright.dropin.undo_all()
    assert tilewright.dropin.active() == []
    assert not calls_of_ours(ops.nms, *given, 0.5)


def test_undone_after_an_error():
    with pytest.raises(ZeroDivisionError), tilewright.accelerate():
        raise ZeroDivisionError
    assert not calls_of_ours(ops.nms, *boxes(), 0.5)


def test_toggled_while_other_threads_call():
    given = boxes(20)
    tilewright.accelerate("torchvision::nms").undo()
    expected, stop, wrong = ops.nms(*given, 0.5), threading.Event(), []

    def call():
        while not stop.is_set():
            if not torch.equal(ops.nms(*given, 0.5), expected):
                wrong.append(1)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for _ in range(300):
        with tilewright.accelerate("torchvision::nms"):
            ops.nms(*given, 0.5)
    stop.set()
    for caller in callers:
        caller.join()
    assert not wrong


def test_devices():
    with tilewright.accelerate(devices="cpu") as active:
        assert active.replaced and all(name.endswith(" on cpu") for name in active.replaced)
    with pytest.raises(RuntimeError, match="none of these operators has kernels on cuda"):
        tilewright.accelerate("aten::_scaled_dot_product_flash_attention_for_cpu", devices=["cuda"])
    with pytest.raises(RuntimeError, match="devices may be of cpu and cuda, got tpu"):
        tilewright.accelerate(devices=["tpu"])
    with pytest.raises(RuntimeError, match="was undone"), active:
        pass


def test_names_that_are_none():
    with pytest.raises(RuntimeError, match=r"operators may be of .*roi_align.*got.*soft"):
        tilewright.accelerate(["torchvision::soft_nms"])
    with pytest.raises(ValueError, match="at least one"):
        tilewright.accelerate([])
    for wrong in (torch.nn.functional.relu, [None], 3):
        with pytest.raises(
            TypeError, match="operators must be names such as 'torchvision::nms', or"
        ):
            tilewright.accelerate(wrong)
    with pytest.raises(
        TypeError, match="devices must be 'cpu' or 'cuda', or a list of them; got 0"
    ):
        tilewright.accelerate(devices=0)
    assert not calls_of_ours(ops.nms, *boxes(), 0.5)


def test_bad_input_says_what_was_expected():
    call = torch.ops.torchvision.roi_align
    with tilewright.accelerate():
        with pytest.raises(RuntimeError, match=r"rois must have shape \(K, 5\), got \(9, 4\)"):
            call(torch.randn(2, 3, 9, 11), rois()[:, 1:], 1.0, 2, 2, 2, False)
        # The original reads beyond the batch.
        outside = rois()
        outside[3, 0] = 7
        with pytest.raises(RuntimeError, match="7"):
            call(torch.randn(2, 3, 9, 11), outside, 1.0, 2, 2, 2, False)


def model_of_operators(x: torch.Tensor, given: torch.Tensor, scores: torch.Tensor):
    kept = ops.nms(given[:, 1:], scores, 0.5)
    pooled = ops.roi_align(x, given[kept], 2, 0.5, 2)
    return scaled_dot_product_attention(pooled, pooled, pooled)


@kernels
def test_torchscript():
    args = torch.randn(2, 4, 9, 11), rois(), torch.rand(9)
    scripted = torch.jit.script(model_of_operators)
    before = scripted(*args)
    with tilewright.accelerate():
        assert len(calls_of_ours(scripted, *args)) == 3
        torch.testing.assert_close(scripted(*args), before)


@kernels
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_graphs_run_what_stands_when_they_are_called(backend):
    def loss(x, given, query):
        pooled = ops.roi_align(x, given, 2, 0.5, 2)
        moved = ops.deform_conv2d(pooled, offset, weight)
        return scaled_dot_product_attention(query, query, query).sum() + moved.square().sum()

    offset, weight = torch.randn(9, 8, 1, 1), torch.randn(3, 4, 2, 2)
    x = torch.randn(2, 4, 9, 11).contiguous(memory_format=torch.channels_last).requires_grad_()
    query = torch.randn(2, 20, 4, 16).transpose(1, 2).requires_grad_()
    args = x, rois(), query
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    before = torch.autograd.grad(compiled(*args), (x, query))

    def step():
        return torch.autograd.grad(compiled(*args), (x, query))

    with tilewright.accelerate():
        assert len(calls_of_ours(step)) == 6
        torch.testing.assert_close(step(), before, rtol=1e-4, atol=1e-4)
    assert not calls_of_ours(step)


@kernels
def test_autocast_has_the_originals_dtypes():
    x, given = torch.randn(2, 4, 9, 11), rois()
    conv = torch.nn.Conv2d(4, 4, 1)

    def call():
        with torch.autocast("cpu", torch.bfloat16):
            features = conv(x)
            return ops.roi_align(features, given, 2), ops.roi_pool(features.float(), given, 2)

    before = [t.dtype for t in call()]
    with tilewright.accelerate():
        assert [t.dtype for t in call()] == before
