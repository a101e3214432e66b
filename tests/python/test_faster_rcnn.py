"""Faster R-CNN: the C++ module, its scriptable twin and torchvision's model agree."""

import inspect

import pytest
import torch
from torch.testing import assert_close

from tilewright.models import FasterRCNN, FasterRCNNCpp

pytestmark = pytest.mark.usefixtures("one_thread")
LOSSES = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
SMALL = {
    "min_size": 96,
    "max_size": 160,
    "fpn_channels": 32,
    "representation_size": 64,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
    "rpn_pre_nms_top_n_train": 300,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 60,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 32,
    "box_score_thresh": 0.3,
    "box_detections_per_img": 20,
}


def spread(model):
    """Weights under which scores and boxes differ well, so that no choice hangs on a rounding."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cls_logits.weight" in name or "cls_score.weight" in name:
                parameter.mul_(20)
            if name.endswith("bbox_pred.weight"):
                parameter.mul_(3)
    return model


def python_model(device, **options):
    torch.manual_seed(0)
    return spread(FasterRCNN(4, **{**SMALL, **options})).to(device)


def cpp_model(model, device, dtype=torch.float32, **options):
    twin = FasterRCNNCpp(4, **{**SMALL, **options}).to(device, dtype)
    twin.load_state_dict(model.state_dict())
    return twin


def images_and_targets(device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for size in ((60, 90), (110, 70))]
    targets = [
        {
            "boxes": torch.tensor([[10.0, 10, 40, 50], [50, 5, 85, 55], [30, 30, 42, 44]]),
            "labels": torch.tensor([1, 2, 3]),
        },
        {"boxes": torch.tensor([[5.0, 20, 60, 90]]), "labels": torch.tensor([2])},
    ]
    return (
        [image.to(device, dtype) for image in images],
        [{key: value.to(device) for key, value in target.items()} for target in targets],
    )


def run(model, training, images, targets):
    model.train(training)
    torch.manual_seed(3)
    with torch.set_grad_enabled(training):
        return model(images, targets if training else None)


def assert_equal_outputs(got, expected, exact=True):
    """Exact on the CPU, where both twins make the same calls; convolutions on CUDA may differ."""
    exact = exact and all(loss.is_cpu for loss in expected[0].values())
    limits = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-4}
    assert set(got[0]) == set(expected[0])
    for name, loss in expected[0].items():
        assert_close(got[0][name], loss, **limits)
    assert len(got[1]) == len(expected[1])
    for one, other in zip(got[1], expected[1], strict=True):
        assert set(one) == {"boxes", "labels", "scores"}
        assert torch.equal(one["labels"], other["labels"])
        assert_close(one["scores"], other["scores"], **limits)
        assert_close(one["boxes"], other["boxes"], rtol=limits["rtol"], atol=limits["atol"] * 100)


# --- the twins ----------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twins_agree(device, dtype, tmp_path):
    model = python_model(device).to(dtype)
    twin = cpp_model(model, device, dtype)
    for name, value in twin.state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype, name
    torch.jit.script(model).save(tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    images, targets = images_and_targets(device, dtype)
    # Evaluation first: a training step moves the running statistics.
    for training in (False, True):
        expected = run(model, training, images, targets)
        assert list(expected[0]) == (LOSSES if training else [])
        assert [len(x["boxes"]) > 3 for x in expected[1]] == ([] if training else [True, True])
        assert_equal_outputs(run(twin, training, images, targets), expected)
        assert_equal_outputs(run(loaded, training, images, targets), expected)


@pytest.mark.smoke
@pytest.mark.kernels
def test_gradients_of_the_twins_agree(device):
    model = python_model(device)
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    for each in (model, twin):
        losses, _ = run(each, True, images, targets)
        sum(losses.values()).backward()
    ours = dict(model.named_parameters())
    theirs = twin.named_parameters()
    assert list(ours) == list(theirs)
    for name, parameter in theirs.items():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
        assert_close(parameter.grad, ours[name].grad, rtol=1e-4, atol=1e-5)
    assert list(dict(model.named_buffers())) == list(twin.named_buffers())


@pytest.mark.smoke
def test_export(device):
    """The number of proposals and detections depends on data; the sizes of images are fixed."""
    model = python_model(device).eval()
    images, _ = images_and_targets(device)
    program = torch.export.export(model, (images,)).module()
    for given in (images, [1 - image for image in images]):
        assert_equal_outputs(program(given), run(model, False, given, None))


def test_options_are_the_same():
    parameters = inspect.signature(FasterRCNN).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("num_classes", "backbone")
    }

    def listed(value):
        return [listed(x) for x in value] if isinstance(value, (list, tuple)) else value

    options = FasterRCNNCpp(7).options
    assert options.pop("num_classes") == 7
    assert options == {name: listed(value) for name, value in defaults.items()}


def test_options_are_torchvisions():
    detection = pytest.importorskip("torchvision.models.detection")
    theirs = inspect.signature(detection.FasterRCNN).parameters
    options = FasterRCNNCpp(7).options
    for name in options:
        if name in theirs and theirs[name].default is not None:
            assert options[name] == theirs[name].default, name


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast(device, dtype):
    model = python_model(device)
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    with torch.autocast(device.type, dtype):
        for each in (model, twin):
            losses, _ = run(each, True, images, targets)
            sum(losses.values()).backward()
            assert all(loss.isfinite() for loss in losses.values())
            for detection in run(each, False, images, targets)[1]:
                assert detection["boxes"].dtype == torch.float32


# --- torchvision --------------------------------------------------------------------------------


class SharedNoise:
    """torchvision's sampler replaced by ours, which draws in the same order as our models do."""

    def __init__(self, size, fraction):
        self.size, self.fraction = size, fraction

    def __call__(self, labels):
        masks = [
            torch.ops.tilewright.sample_balanced(
                label.long(),
                torch.rand(label.shape, dtype=torch.float32, device=label.device),
                self.size,
                self.fraction,
            )
            for label in labels
        ]
        return [positive for positive, _ in masks], [negative for _, negative in masks]


def torchvision_model(device, **options):
    detection = pytest.importorskip("torchvision.models.detection")
    options = dict(options)
    channels = options.pop("fpn_channels", 256)
    width = options.pop("representation_size", 1024)
    sizes = options.pop("anchor_sizes", ((32,), (64,), (128,), (256,), (512,)))
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
    )
    if channels != 256:
        fpn = detection.backbone_utils.BackboneWithFPN
        returned = {f"layer{i}": str(i - 1) for i in range(1, 5)}
        backbone = fpn(backbone.body, returned, [64, 128, 256, 512], channels)
    model = detection.FasterRCNN(
        backbone,
        num_classes=None,
        rpn_anchor_generator=detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        box_head=detection.faster_rcnn.TwoMLPHead(channels * 49, width),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(width, 4),
        **options,
    )
    model.rpn.fg_bg_sampler = SharedNoise(options.get("rpn_batch_size_per_image", 256), 0.5)
    model.roi_heads.fg_bg_sampler = SharedNoise(options.get("box_batch_size_per_image", 512), 0.25)
    model.transform.torch_choice = lambda sizes: sizes[
        0
    ]  # else it draws a number to pick one of one
    return model.to(device)


def test_parameters_have_torchvisions_names_and_shapes():
    theirs = {name: value.shape for name, value in torchvision_model("cpu").state_dict().items()}
    assert {name: value.shape for name, value in FasterRCNN(4).state_dict().items()} == theirs
    state = FasterRCNNCpp(4).state_dict()
    assert {name: value.shape for name, value in state.items()} == theirs
    assert list(state) == list(theirs)


@pytest.mark.kernels
def test_same_numbers_as_torchvision(device, monkeypatch):
    boxes = pytest.importorskip("torchvision.ops.boxes")
    # Its way of shifting classes apart rounds the boxes, which now and then flips a suppression.
    monkeypatch.setattr(boxes, "_batched_nms_coordinate_trick", boxes._batched_nms_vanilla)
    theirs = torchvision_model(device, **SMALL)
    model = python_model(device)
    theirs.load_state_dict(model.state_dict())
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    expected = run(theirs, False, images, targets)
    for each in (model, twin):
        assert_equal_outputs(run(each, False, images, targets), ({}, expected), exact=False)
    expected = run(theirs, True, images, targets)
    for each in (model, twin):
        assert_equal_outputs(run(each, True, images, targets), (expected, []), exact=False)


def test_initialisation(device):
    """Both twins start from the distributions that torchvision starts from."""
    theirs = torchvision_model(device).state_dict()
    for model in (FasterRCNN(4), FasterRCNNCpp(4)):
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.numel() > 1000:
                ratio = value.std() / theirs[name].std()
                assert 0.9 < ratio < 1.1, name
            elif value.is_floating_point() and not name.startswith("roi_heads"):
                assert torch.equal(value, theirs[name].cpu()) or "cls_logits" in name, name


# --- training and saving ------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("face", ["python", "cpp"])
def test_loss_falls(device, face):
    torch.manual_seed(0)
    model = (FasterRCNN if face == "python" else FasterRCNNCpp)(4, **SMALL).to(device)
    model.train()
    images, targets = images_and_targets(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    history = []
    for _ in range(10):
        torch.manual_seed(1)  # the same samples in each step
        optimizer.zero_grad()
        total = sum(model(images, targets)[0].values())
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.7 * history[0], history


@pytest.mark.smoke
def test_save_and_load(device, tmp_path):
    model = python_model(device)
    twin = cpp_model(model, device)
    images, targets = images_and_targets(device)
    expected = run(twin, False, images, targets)
    twin.save(str(tmp_path / "model.pt"))
    other = FasterRCNNCpp(4, **SMALL).to(device)
    other.load(str(tmp_path / "model.pt"))
    assert_equal_outputs(run(other, False, images, targets), expected)
    torch.jit.script(model).save(tmp_path / "scripted.pt")
    another = FasterRCNNCpp(4, **SMALL).to(device)
    another.load(str(tmp_path / "scripted.pt"))
    assert_equal_outputs(run(another, False, images, targets), expected)


def test_moves_to_a_dtype():
    model = FasterRCNNCpp(4, **SMALL)
    images, _ = images_and_targets("cpu", torch.float64)
    model.to(torch.float64).eval()
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert model(images)[1][0]["boxes"].dtype == torch.float64
    with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype, got <class 'str'>"):
        model.to("cpu", "float64")


def test_loads_weights_of_frozen_batch_norm():
    """They lack the counter of batches."""
    source = FasterRCNNCpp(4, **SMALL).state_dict()
    state = {name: value for name, value in source.items() if "num_batches" not in name}
    assert len(state) < len(source)
    model = FasterRCNNCpp(4, **SMALL)
    model.load_state_dict(state)
    assert_close(
        model.state_dict()["backbone.body.conv1.weight"], state["backbone.body.conv1.weight"]
    )


def test_deviation_of_images_must_be_positive():
    model = FasterRCNNCpp(4, **SMALL, image_std=(0.2, 0.0, 0.2)).eval()
    with pytest.raises(RuntimeError, match="std must be positive, got 0"):
        model([torch.rand(3, 40, 40)])


def test_errors_of_loading(tmp_path):
    model = FasterRCNNCpp(4, **SMALL)
    path = str(tmp_path / "model.pt")
    with pytest.raises(RuntimeError, match=r"tilewright::load_module: no file .*model\.pt"):
        model.load(path)
    (tmp_path / "text.pt").write_text("not an archive")
    with pytest.raises(RuntimeError, match=r"text\.pt is not a torch archive"):
        model.load(str(tmp_path / "text.pt"))
    with pytest.raises(RuntimeError, match=r"save_module: cannot write .*nowhere/model\.pt"):
        model.save(str(tmp_path / "nowhere" / "model.pt"))
    FasterRCNNCpp(7, **SMALL).save(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError) as error:
        model.load(path)
    message = str(error.value)
    assert (
        f"{path}: roi_heads.box_predictor.cls_score.weight must have shape (4, 64), got (7, 64)"
        in message
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # nothing was written
    state = dict(model.state_dict())
    state["extra.weight"] = state.pop("rpn.head.cls_logits.bias")
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(state)
    assert "key rpn.head.cls_logits.bias is missing" in str(error.value)
    assert "key extra.weight is not in the model" in str(error.value)


# --- edges and errors ---------------------------------------------------------------------------


def both(device, **options):
    model = python_model(device, **options)
    return model, cpp_model(model, device, **options)


@pytest.mark.kernels
def test_image_without_objects(device):
    images, targets = images_and_targets(device)
    targets[1] = {
        "boxes": torch.zeros(0, 4, device=device),
        "labels": torch.zeros(0, dtype=torch.int64, device=device),
    }
    for given in (targets, [targets[1], targets[1]]):
        outputs = [run(model, True, images, given) for model in both(device)]
        assert all(loss.isfinite() for loss in outputs[0][0].values())
        assert_equal_outputs(outputs[1], outputs[0])
        sum(outputs[0][0].values()).backward()


def test_no_detections(device):
    images, targets = images_and_targets(device)
    for model in both(device, box_score_thresh=1.0):
        _, detections = run(model, False, images, targets)
        assert [x["boxes"].shape for x in detections] == [(0, 4), (0, 4)]
        assert [x["labels"].dtype for x in detections] == [torch.int64] * 2


def test_other_backbone(device):
    class Single(torch.nn.Module):
        """One map at stride 16, for proposals and for boxes."""

        def __init__(self):
            super().__init__()
            self.out_channels, self.num_levels, self.roi_strides = 8, 1, [16]
            self.layer = torch.nn.Conv2d(3, 8, 16, stride=16)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.layer(images)]

    model = FasterRCNN(4, **{**SMALL, "anchor_sizes": ((16, 32, 64),)}, backbone=Single())
    model = torch.jit.script(model).to(device)
    images, targets = images_and_targets(device)
    losses, _ = run(model, True, images, targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert len(run(model, False, images, targets)[1]) == 2


BAD_TARGETS = [
    (None, "targets must be given in training mode"),
    ([], "targets must have one entry for each of 2 images, got 0"),
    ([{}, {"labels": [1]}], "targets[1] must have boxes and labels"),
    ([{}, {"boxes": [[1, 2, 3]]}], "boxes[1] must have shape (G, 4), got (1, 3)"),
    ([{}, {"boxes": [1, 2, 3, 4]}], "boxes[1] must have shape (G, 4), got (4,)"),
    (
        [{}, {"boxes": [[1, 1, 5, 5], [4, 4, 4, 9]]}],
        "boxes[1] must hold finite boxes with x2 > x1 and y2 > y1, got box 1: (4, 4, 4, 9)",
    ),
    (
        [{"boxes": [[float("nan"), 1, 5, 5]]}, {}],
        "boxes[0] must hold finite boxes with x2 > x1 and y2 > y1, got box 0: (nan, 1, 5, 5)",
    ),
    ([{}, {"boxes": [[1, 1, 5, 5]], "labels": [4]}], "labels[1] must lie in [1, 4)"),
    ([{"boxes": [[1, 1, 5, 5]], "labels": [0]}, {}], "labels[0] must lie in [1, 4)"),
    ([{}, {"boxes": [[1, 1, 5, 5]], "labels": [1, 2]}], "labels[1] must have shape (G,)"),
    ([{}, {"boxes": [[1, 1, 5, 5]], "labels": [1.0]}], "labels[1] must be int64, got Float"),
]


def build_targets(description):
    """Missing parts are filled in with what fits, unless labels stand alone."""
    if description is None:
        return None
    targets = []
    for given in description:
        target = {}
        if "boxes" in given or not given:
            target["boxes"] = torch.tensor(given.get("boxes", [[1, 1, 9, 9]]), dtype=torch.float32)
        if "labels" in given:
            target["labels"] = torch.tensor(given["labels"])
        elif "boxes" in target:
            target["labels"] = torch.ones(len(target["boxes"]), dtype=torch.int64)
        targets.append(target)
    return targets


@pytest.mark.parametrize(("description", "message"), BAD_TARGETS)
def test_bad_targets_are_named(description, message):
    images, _ = images_and_targets("cpu")
    model, twin = both("cpu")
    for each in (model, twin, torch.jit.script(model)):
        with pytest.raises((RuntimeError, ValueError, torch.jit.Error)) as error:
            each.train()
            each(images, build_targets(description))
        assert message in str(error.value)
        assert "tilewright::" in str(error.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(20, 30), "images[1] must have shape (3, H, W) and not be empty, got (20, 30)"),
        (torch.rand(1, 20, 30), "images[1] must have shape (3, H, W)"),
        (torch.rand(3, 0, 30), "images[1] must have shape (3, H, W)"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), "images[1] must be float64, float32, float16"),
    ],
)
def test_bad_images_are_named(image, message):
    for model in both("cpu"):
        model.eval()
        with pytest.raises(RuntimeError) as error:
            model([torch.rand(3, 20, 30), image])
        assert message in str(error.value)
        with pytest.raises(RuntimeError, match="images must hold at least one image"):
            model([])


def test_bad_options_are_named():
    for face in (FasterRCNN, FasterRCNNCpp):
        with pytest.raises((ValueError, RuntimeError), match="must be at least 2, got 1"):
            face(1)
        with pytest.raises((ValueError, RuntimeError), match="one list for each of the 5 levels"):
            face(3, anchor_sizes=[[8], [16]])
        with pytest.raises((ValueError, RuntimeError), match="as many sizes at each level"):
            face(3, anchor_sizes=[[8], [16], [32], [64], [128, 256]])
        with pytest.raises(TypeError, match="bogus"):
            face(3, bogus=1)
    with pytest.raises(TypeError, match="min_size has the wrong type"):
        FasterRCNNCpp(3, min_size="large")
