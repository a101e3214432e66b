"""The box operators and the steps of a detector as others call them: opcheck, TorchScript,
torch.export, torch.compile, and what they read back from a device."""

import importlib.util

import pytest
import torch
from samples import CLIP, HEAD_WEIGHTS, detection_inputs, proposal_inputs, random_boxes
from torch._subclasses import FakeTensorMode
from torch.library import opcheck
from torch.testing import assert_close
from torch.utils._pytree import tree_map_only

import tilewright

ops = torch.ops.tilewright


def calls(device):
    """One call of every operator: the operator and its arguments."""
    boxes, other = random_boxes(6, device, seed=1), random_boxes(5, device, seed=2)
    features = [torch.rand(1, 12, 4, 5, device=device), torch.rand(1, 12, 2, 3, device=device)]
    (objectness, deltas, anchors), level_sizes = proposal_inputs(device)
    scores, class_boxes = detection_inputs(device)
    labels = torch.randint(-1, 3, (40,), generator=torch.Generator().manual_seed(0)).to(device)
    images = [torch.rand(3, 20, 30, device=device), torch.rand(3, 25, 15, device=device)]
    truth = torch.ones(6, dtype=torch.int64, device=device)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    return {
        "box_area": (boxes,),
        "box_iou": (boxes, other),
        "generalized_box_iou": (boxes, other),
        "clip_boxes": (boxes, 50, 60),
        "resize_boxes": (boxes, [50, 60], [70, 90]),
        "boxes_to_rois": ([boxes, other],),
        "encode_boxes": (boxes, boxes + 1, HEAD_WEIGHTS),
        "decode_boxes": (torch.rand(6, 8, device=device), boxes, HEAD_WEIGHTS, CLIP),
        "grid_anchors": (features, [32.0, 64.0], [0.5, 1.0, 0.5, 1.0], 40, 50),
        "flatten_predictions": (features, 4),
        "match_boxes": (torch.rand(3, 40, device=device), 0.7, 0.3, True),
        "assign_targets": (boxes, truth, random_boxes(30, device, seed=3), 0.5, 0.3, True),
        "sample_balanced": (labels, torch.rand(40, device=device), 16, 0.5),
        "generate_proposals": (objectness, deltas, anchors, level_sizes, 90, 110, 20, 15),
        "postprocess_detections": (scores, class_boxes, 90, 110),
        "resize_images": (images, mean, std, 24, 40),
        "pad_images": (images, 16),
        "gather_patches": (features, torch.tensor([0, 25, 8], device=device)),
        "prepare_targets": ([boxes, other], [truth, truth[:5]], images, images, 3),
    }


DIFFERENTIABLE = ["box_area", "box_iou", "generalized_box_iou", "clip_boxes", "encode_boxes"]
DATA_DEPENDENT = ["generate_proposals", "postprocess_detections"]
LOOKING = ["gather_patches", "prepare_targets"]
NAMES = list(calls("cpu"))


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device, name):
    arguments = calls(device)[name]
    operator = getattr(ops, name).default
    opcheck(operator, arguments)
    if name in DIFFERENTIABLE:
        tracked = [x.requires_grad_() if isinstance(x, torch.Tensor) else x for x in arguments]
        opcheck(operator, tuple(tracked))


def is_tensors(x):
    return isinstance(x, torch.Tensor) or (isinstance(x, list) and isinstance(x[0], torch.Tensor))


def as_module(name, arguments):
    """A module whose forward takes the tensors among the arguments and knows the others."""
    takes = [is_tensors(x) for x in arguments]
    operator = getattr(ops, name)

    class Call(torch.nn.Module):
        def forward(self, *tensors):
            given = iter(tensors)
            filled = [next(given) if t else x for t, x in zip(takes, arguments, strict=True)]
            return operator(*filled)

    return Call(), tuple(x for x in arguments if is_tensors(x))


def as_script(name, arguments, folder):
    """The same in TorchScript, from a source file, which is where scripting reads from."""
    parameters, passed = [], []
    for i, x in enumerate(arguments):
        if is_tensors(x):
            kind = "Tensor" if isinstance(x, torch.Tensor) else "list[Tensor]"
            parameters.append(f"x{i}: {kind}")
            passed.append(f"x{i}")
        else:
            passed.append(repr(x))
    source = folder / f"script_{name}.py"
    source.write_text(
        "import torch\nfrom torch import Tensor\n\nclass Call(torch.nn.Module):\n"
        f"    def forward(self, {', '.join(parameters)}):\n"
        f"        return torch.ops.tilewright.{name}({', '.join(passed)})\n"
    )
    spec = importlib.util.spec_from_file_location(source.stem, source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return torch.jit.script(module.Call())


def assert_same(got, expected):
    got = [got] if isinstance(got, torch.Tensor) else list(got)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", tilewright.boxes.__all__)
def test_sugar_is_scriptable(name):
    torch.jit.script(getattr(tilewright, name))


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_torchscript_file(device, name, tmp_path):
    arguments = calls(device)[name]
    as_script(name, arguments, tmp_path).save(tmp_path / "call.pt")
    loaded = torch.jit.load(tmp_path / "call.pt")
    assert f"tilewright::{name}" in str(loaded.graph)
    tensors = [x for x in arguments if is_tensors(x)]
    assert_same(loaded(*tensors), getattr(ops, name)(*arguments))


@pytest.mark.parametrize("name", NAMES)
def test_export_and_compile(device, name):
    arguments = calls(device)[name]
    module, tensors = as_module(name, arguments)
    expected = getattr(ops, name)(*arguments)
    assert_same(torch.export.export(module, tensors).module()(*tensors), expected)
    # What depends on data breaks the graph, unless dynamo is told to capture it.
    compiled = torch.compile(module, backend="aot_eager", fullgraph=name not in DATA_DEPENDENT)
    assert_same(compiled(*tensors), expected)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        assert_same(compiled(*tensors), expected)
    torch._dynamo.reset()


def test_export_with_any_number_of_boxes(device):
    class Steps(torch.nn.Module):
        def forward(self, truths, labels, boxes, noise):
            label, matched = ops.assign_targets(truths, labels, boxes, 0.5, 0.3, True)
            positive, negative = ops.sample_balanced(label, noise, 16, 0.5)
            codes = ops.encode_boxes(matched, ops.clip_boxes(boxes, 80, 90), HEAD_WEIGHTS)
            return positive, negative, codes, ops.generalized_box_iou(truths, boxes)

    def inputs(truths, boxes):
        labels = torch.ones(truths, dtype=torch.int64, device=device)
        noise = torch.rand(boxes, device=device)
        return random_boxes(truths, device), labels, random_boxes(boxes, device, seed=1), noise

    count, many = torch.export.Dim("count"), torch.export.Dim("many")
    program = torch.export.export(
        Steps(), inputs(5, 40), dynamic_shapes=({0: count}, {0: count}, {0: many}, {0: many})
    )
    for sizes in ((5, 40), (2, 9), (11, 100)):
        arguments = inputs(*sizes)
        assert_same(program.module()(*arguments), Steps()(*arguments))


def test_nothing_is_read_back_from_the_device(device):
    """What would synchronise a GPU with the host must not occur in the training steps."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Guard(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function)
            assert not any(bad in name for bad in ("_local_scalar", "nonzero", "unique")), name
            return function(*args, **(kwargs or {}))

    arguments = calls(device)
    with Guard():
        for name in NAMES:
            if name not in (*DATA_DEPENDENT, *LOOKING):
                getattr(ops, name)(*arguments[name])
    # These look at the numbers of CPU tensors, and of no others: fake ones have none to read.
    for name in LOOKING:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = tree_map_only(torch.Tensor, mode.from_tensor, arguments[name])
            getattr(ops, name)(*fake)
