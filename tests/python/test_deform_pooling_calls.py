"""Deformable RoI pooling as others call it, and bad input: opcheck, TorchScript, torch.export,
torch.compile, autocast, the module."""

import math
from typing import List  # noqa: UP035  (TorchScript reads it)

import pytest
import torch
from checks import (
    NoSynchronisation,
    compile_and_run,
    export_and_run,
    opcheck,
    script_round_trip,
)
from conftest import MACHINE
from deform_pooling_cases import pooled, problem, ps_problem, roi_problem
from samples import leaf

import tilewright

ops = torch.ops.tilewright
kernels = pytest.mark.kernels


@pytest.mark.smoke
@kernels
@pooled
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(device, name, requires_grad):
    operator, _, (x, rois, offset, numbers) = problem(name, torch.float32)
    x, offset = x.to(device), offset.to(device)
    x.requires_grad_(requires_grad), offset.requires_grad_(requires_grad)
    opcheck(operator.default, (x, rois.to(device), offset, *numbers))
    last = x.detach().contiguous(memory_format=torch.channels_last)
    opcheck(operator.default, (last, rois.to(device), offset.detach(), *numbers))


@pytest.mark.smoke
@kernels
def test_script_export_compile(device):
    x, rois, offset, _ = roi_problem("sampled", torch.float32)
    ps = ps_problem("of classes", torch.float32)

    for call, given in (
        (call_roi_pool, (x, rois, offset)),
        (call_ps_roi_pool, ps[:3]),
    ):
        given = [t.to(device) for t in given]
        expected = call(*given)
        assert torch.equal(script_round_trip(call, *given), expected)
        assert torch.equal(export_and_run(call, *given), expected)
        assert torch.equal(compile_and_run(call, *given), expected)


def pyramid(device):
    maps = [torch.randn(2, 3, 40 >> level, 48 >> level, device=device) for level in range(3)]
    sides = torch.tensor([[4.0], [9], [20], [38], [0], [13]], device=device)
    corners = torch.rand(6, 2, device=device) * 6
    image = torch.arange(6, device=device)[:, None] % 2
    return maps, torch.cat([image, corners, corners + sides], 1)


@pytest.mark.parametrize("levels", [1, 3])
@kernels
def test_a_pyramid(device, levels):
    """Each box from the level of multiscale_roi_align, by what moves nothing; moves by hand."""
    maps, rois = pyramid(device)
    maps, scales = [m.requires_grad_() for m in maps[:levels]], [1.0, 0.5, 0.25][:levels]
    numbers = (scales, 2, 2, 2)
    still = torch.zeros(6, 2, 2, 2, device=device)
    expected = ops.multiscale_roi_align(maps, rois, *numbers, True, 10, 1)
    for offset in (None, still):
        found = ops.multiscale_deform_roi_pool(maps, rois, offset, *numbers, 0.1, 10, 1)
        torch.testing.assert_close(found, expected)
    moved = torch.randn(6, 2, 2, 2, device=device, requires_grad=True)
    found = ops.multiscale_deform_roi_pool(maps, rois, moved, *numbers, 0.1, 10, 1)
    # Which level: of maps that hold their level's number.
    counted = [torch.full_like(m, float(i)) for i, m in enumerate(maps)]
    level = ops.multiscale_roi_align(counted, rois.clamp(max=39), *numbers, True, 10, 1)
    level = level.amax((1, 2, 3)).round().long().tolist()
    assert levels == 1 or len(set(level)) == 3
    for k, at in enumerate(level):
        one = ops.deform_roi_pool(maps[at], rois[k : k + 1], moved[k : k + 1], scales[at], 2, 2, 2)
        torch.testing.assert_close(found[k : k + 1], one)
    found.square().sum().backward()
    assert all(m.grad.abs().max() > 0 for m in maps) and moved.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@kernels
def test_a_pyramid_takes_boxes_to_the_levels_of_roi_align(device, dtype):
    """At the bounds of levels, a little below and above them: of maps that hold their number."""
    maps = [torch.full((1, 1, 8, 8), float(i), dtype=dtype, device=device) for i in range(4)]
    sides = torch.tensor([7.0, 14, 28, 56, 112, 224])[:, None]
    sides = (sides * torch.tensor([0.999, 0.99999, 1, 1.00001, 1.001])).flatten().to(device, dtype)
    sides = torch.cat([sides, sides.new_tensor([0, -3, math.inf, math.nan])])
    rois = torch.zeros(len(sides), 5, dtype=dtype, device=device)
    rois[:, 3], rois[:, 4] = sides, sides
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    expected = ops.multiscale_roi_align(maps, rois, scales, 1, 1, 2, True, 56, 4)
    still = torch.zeros(len(sides), 2, 1, 1, dtype=dtype, device=device)
    found = ops.multiscale_deform_roi_pool(maps, rois, still, scales, 1, 1, 2, 0.1, 56, 4)
    assert torch.equal(found.round(), expected.round())
    assert len(expected.round().unique()) == 4


def call_pyramid(maps: List[torch.Tensor], rois: torch.Tensor, offset: torch.Tensor):  # noqa: UP006
    return tilewright.multiscale_deform_roi_pool(
        maps, rois, offset, 2, [1.0, 0.5, 0.25], 2, 0.1, 10, 1
    )


@kernels
def test_a_pyramid_in_script_and_export(device):
    given = (*pyramid(device), torch.randn(6, 2, 2, 2, device=device))
    expected = call_pyramid(*given)
    assert torch.equal(script_round_trip(call_pyramid, *given), expected)
    assert torch.equal(export_and_run(call_pyramid, *given), expected)
    assert torch.equal(compile_and_run(call_pyramid, *given), expected)


def test_bad_pyramids(device):
    maps, rois = pyramid(device)
    with pytest.raises(RuntimeError, match="expected one spatial scale per feature map"):
        tilewright.multiscale_deform_roi_pool(maps, rois, None, 2, [1.0, 0.5])
    with pytest.raises(RuntimeError, match=r"offset must have shape \(6, 2, 2, 2\), got"):
        ops.multiscale_deform_roi_pool(
            maps[:1], rois, torch.zeros(6, 2, 2, 3, device=device), [1.0], 2, 2
        )
    with pytest.raises(RuntimeError, match="multiscale_deform_roi_pool: rois must have shape"):
        ops.multiscale_deform_roi_pool(maps, rois[:, :4], None, [1.0, 0.5, 0.25], 2, 2)
    for rows in (1, 7):
        with pytest.raises(RuntimeError, match=r"offset must have shape \(6, 2, 2, 2\), got"):
            ops.multiscale_deform_roi_pool(
                maps, rois, torch.zeros(rows, 2, 2, 2, device=device), [1.0, 0.5, 0.25], 2, 2
            )


def test_bad_input_where_nothing_moves(device):
    x, rois, _, _ = roi_problem("sampled", torch.float32)
    x, rois = x.to(device), rois.to(device)
    for arguments, message in (
        ((x, rois[:, :4], None, 1.0, 2, 2), r"rois must have shape \(K, 5\)"),
        ((x[0], rois, None, 1.0, 2, 2), r"input must have shape \(N, C, H, W\)"),
        ((x, rois, None, math.nan, 2, 2), "spatial_scale must be"),
        ((x, rois, None, 1.0, 2, 2, -1, math.inf), "gamma must be finite"),
    ):
        with pytest.raises(RuntimeError, match="tilewright::deform_roi_pool: " + message):
            ops.deform_roi_pool(*arguments)


def test_pairs_of_the_operator_within(device):
    x, rois, offset, _ = roi_problem("sampled", torch.float32)
    for bins, parts in (([], [3, 2]), ([2, 2, 2], [3, 2]), ([3, 2], [3, 1, 1])):
        numbers = (1.0, bins, parts, 1, 2, 0.1, False)
        with pytest.raises(RuntimeError, match="must be pairs"):
            ops._deform_pool(x, rois, offset, *numbers)
        with pytest.raises(RuntimeError, match="must be pairs"), torch.inference_mode():
            ops._deform_pool(x, rois, offset, *numbers)  # the kernel itself
        with pytest.raises(RuntimeError, match="must be pairs"), torch.inference_mode():
            ops._deform_pool_backward(x, x, rois, offset, *numbers, [True, True])
    with pytest.raises(RuntimeError, match="group_size must lie in"):
        ops._deform_pool(x, rois, offset, 1.0, [3, 2], [3, 2], 0, 2, 0.1, False)


@kernels
def test_levels_without_boxes_are_differentiable_again(device):
    maps, rois = pyramid(device)
    maps = [m.requires_grad_() for m in maps]
    offset = torch.zeros(1, 2, 2, 2, device=device, requires_grad=True)
    out = ops.multiscale_deform_roi_pool(maps, rois[:1], offset, [1.0, 0.5, 0.25], 2, 2, 2)
    grads = torch.autograd.grad(out.sum(), (*maps, offset), create_graph=True)
    assert [g.shape for g in grads] == [t.shape for t in (*maps, offset)]


def call_roi_pool(x: torch.Tensor, rois: torch.Tensor, offset: torch.Tensor):
    return tilewright.deform_roi_pool(x, rois, offset, (3, 2), 0.5, 2)


def call_ps_roi_pool(x: torch.Tensor, rois: torch.Tensor, offset: torch.Tensor):
    return tilewright.deform_ps_roi_pool(x, rois, offset, 4, 4, 2, 2, 0.5, 3)


@kernels
@pytest.mark.skipif(MACHINE == "cpu", reason="the CPU looks at image indices")
def test_no_synchronisation(device):
    x, rois, offset, numbers = roi_problem("sampled", torch.float32)
    x, rois, offset = leaf(x, device), rois.to(device), leaf(offset, device)
    with NoSynchronisation():
        ops.deform_roi_pool(x, rois, offset, *numbers).sum().backward()


@kernels
def test_autocast(device):
    x, rois, offset, numbers = roi_problem("sampled", torch.float32)
    x, rois, offset = x.to(device).bfloat16(), rois.to(device), offset.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        out = ops.deform_roi_pool(x, rois, offset, *numbers)
        half = ops.deform_roi_pool(x.float(), rois.bfloat16(), offset.bfloat16(), *numbers)
    assert out.dtype == torch.bfloat16
    assert half.dtype == torch.float32


@kernels
def test_module(device):
    x, rois, _, _ = roi_problem("sampled", torch.float32)
    x, rois = x.to(device), rois.to(device)
    module = tilewright.DeformRoIPool(2, 0.5, 2, in_channels=5, fc_channels=7).to(device)
    assert set(module.state_dict()) == {
        f"offset_fc.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")
    }
    still = module(x, rois)  # begins where nothing moves
    torch.testing.assert_close(still, ops.roi_align(x, rois, 0.5, 2, 2, 2, True))
    still.square().sum().backward()
    assert module.offset_fc[4].weight.grad.abs().max() > 0
    with torch.no_grad():
        module.offset_fc[4].bias.normal_()
    moved = module(x, rois)
    assert not torch.equal(moved, still)
    offset = module.offset_fc[4].bias.view(1, 2, 2, 2).expand(len(rois), -1, -1, -1)
    torch.testing.assert_close(module(x, rois, offset), moved)
    torch.testing.assert_close(torch.jit.script(module)(x, rois), moved)
    boxes = [rois[rois[:, 0] == i, 1:] for i in range(2)]
    order = torch.argsort(rois[:, 0], stable=True)
    torch.testing.assert_close(module(x, boxes), moved[order])
    given = tilewright.DeformRoIPool((2, 3), 0.5)
    assert not given.state_dict()
    assert given(x, rois, torch.zeros(len(rois), 2, 2, 3, device=device)).shape[2:] == (2, 3)
    assert "gamma=0.1" in repr(given)


BAD_ROI = [
    ({"offset": torch.zeros(6, 2, 2, 2)}, r"offset must have shape \(6, 2, 3, 2\), got"),
    ({"offset": torch.zeros(6, 4, 3, 2)}, r"offset must have shape \(6, 2, 3, 2\), got"),
    ({"offset": torch.zeros(6, 2, 3, 2, dtype=torch.int64)}, "offset must be float32 or of"),
    ({"x": torch.zeros(5, 9, 8)}, r"input must have shape \(N, C, H, W\), got \(5, 9, 8\)"),
    ({"rois": torch.zeros(6, 4)}, r"rois must have shape \(K, 5\), got \(6, 4\)"),
    ({"numbers": (0.0, 3, 2, 2, 0.1)}, "spatial_scale must be positive and finite, got 0"),
    ({"numbers": (1.0, 3, 2, 1025, 0.1)}, "sampling_ratio must be at most 1024, got 1025"),
    ({"numbers": (1.0, 0, 2, 2, 0.1)}, "pooled_height and pooled_width must be positive"),
    ({"numbers": (1.0, 3, 2, 2, math.inf)}, "gamma must be finite, got inf"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_ROI)
def test_bad_input(device, wrong, message):
    x, rois, offset, numbers = roi_problem("sampled", torch.float32)
    given = {"x": x, "rois": rois, "offset": offset, "numbers": numbers} | wrong
    x, rois, offset = (given[name].to(device) for name in ("x", "rois", "offset"))
    with pytest.raises(RuntimeError, match=message):
        ops.deform_roi_pool(x, rois, offset, *given["numbers"])


BAD_PS = [
    ({"offset": torch.zeros(6, 3, 2, 2)}, r"offset must have shape \(6, 2 \* classes, 2, 2\), got"),
    ({"offset": torch.zeros(6, 6, 2, 2)}, r"classes of offset \(3\) must divide output_dim \(4\)"),
    ({"numbers": (0.5, 3, 2, 4, 2, 3, 0.1)}, r"output_dim \* group_size\^2 = 12, H, W\), got"),
    ({"numbers": (0.5, 4, 2, 1, 2, 3, 0.1)}, "group_size must lie in"),
    ({"numbers": (0.5, 4, 2, 4, 5, 3, 0.1)}, "part_size must lie in"),
    ({"numbers": (0.5, 4, 2, 4, 2, 0, 0.1)}, "sample_per_part must be positive, got 0"),
    ({"numbers": (0.5, 4, 2, 4, 2, 1025, 0.1)}, "sample_per_part must be at most 1024, got 1025"),
    ({"numbers": (0.5, 4, 2, 4, 2, 3, math.nan)}, "trans_std must be finite, got nan"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_PS)
def test_bad_position_sensitive_input(device, wrong, message):
    x, rois, offset, numbers = ps_problem("of classes", torch.float32)
    given = {"x": x, "rois": rois, "offset": offset, "numbers": numbers} | wrong
    x, rois, offset = (given[name].to(device) for name in ("x", "rois", "offset"))
    with pytest.raises(RuntimeError, match=message):
        ops.deform_ps_roi_pool(x, rois, offset, *given["numbers"])


@pytest.mark.parametrize("part_size", [0, 5])
def test_parts_of_nothing_that_moves(device, part_size):
    x, rois, _, _ = ps_problem("of classes", torch.float32)
    with pytest.raises(RuntimeError, match="deform_ps_roi_pool: part_size must lie in"):
        ops.deform_ps_roi_pool(x.to(device), rois.to(device), None, 0.5, 4, 2, 4, part_size, 3)


def test_what_is_no_tensor(device):
    x, rois = torch.zeros(2, 4, 8, 8, device=device), torch.zeros(1, 5, device=device)
    for pool in (
        lambda x, boxes: tilewright.roi_align(x, boxes, 2),
        lambda x, boxes: tilewright.deform_roi_pool(x, boxes, None, 2),
        lambda x, boxes: tilewright.deform_ps_roi_pool(x, boxes, None, 1, 2),
        lambda x, boxes: tilewright.DeformRoIPool(2)(x, boxes),
    ):
        assert pool(x, rois).shape[0] == 1
        with pytest.raises(ValueError, match="input must be a tensor, got NoneType"):
            pool(None, rois)
        for boxes, kind in ((None, "NoneType"), (rois.cpu().numpy(), "ndarray")):
            with pytest.raises(ValueError, match=rf"list of one \(n, 4\) .* got {kind}"):
                pool(x, boxes)
    with pytest.raises(ValueError, match="features must hold at least one feature map"):
        tilewright.multiscale_deform_roi_pool([], rois, None, 2, [])


def test_an_image_that_is_not_there(device, data_raises):
    x, rois, offset, numbers = roi_problem("sampled", torch.float32)
    rois[2, 0] = 2
    if data_raises:
        message = r"deform_roi_pool: the image index of rois\[2\] must lie in \[0, 2\)"
        for moves in (offset, None):
            with pytest.raises(RuntimeError, match="::" + message):
                ops.deform_roi_pool(x, rois, moves, *numbers)
            with pytest.raises(RuntimeError, match="multiscale_" + message):
                ops.multiscale_deform_roi_pool([x], rois, moves, numbers[:1], *numbers[1:])
        return
    out = ops.deform_roi_pool(x.to(device), rois.to(device), offset.to(device), *numbers)
    assert (out[2] == 0).all()
