"""Small detectors, their weights, images and the comparison of what they give, for the tests of
models; benchmarks/detector.py takes its weights from here."""

import torch
from torch.testing import assert_close

from tilewright.models import RFCN, FasterRCNN, FasterRCNNCpp, RFCNCpp

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
# What R-FCN has in place of the pyramid and the box head.
SMALL_RFCN = {
    name: value
    for name, value in SMALL.items()
    if name not in ("fpn_channels", "representation_size")
} | {
    "anchor_sizes": ((16, 32, 64),),
    "box_score_thresh": 0.2,
    "head_channels": 48,
    "pooled_size": 3,
}


def spread(model):
    """Weights under which scores and boxes differ well, so that no choice hangs on a rounding."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_logits.weight", "cls_score.weight", "cls_score.maps.weight")):
                parameter.mul_(20)
            if name.endswith(("bbox_pred.weight", "bbox_pred.maps.weight")):
                parameter.mul_(3)
            if "conv_offset" in name:
                parameter.normal_(0, 0.05)
            if "offset_fc.4" in name or "offset_maps" in name:
                parameter.normal_(0, 0.1)  # bins that move
    return model


def randomise(model, class_factor=50):
    """Statistics that keep activations alive, and heads that tell boxes and classes apart."""
    factors = {
        "rpn.head.cls_logits.weight": 20,
        "roi_heads.box_predictor.cls_score.weight": class_factor,
    }
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.75, 1.25)
            elif name.endswith("running_mean"):
                value.normal_(0, 0.2)
            elif ("bn" in name or "downsample.1" in name) and name.endswith(".weight"):
                value.uniform_(0.5, 1)
            value.mul_(factors.get(name, 1))
    return model


def python_model(device, **options):
    torch.manual_seed(0)
    return spread(FasterRCNN(4, **{**SMALL, **options})).to(device)


def cpp_model(model, device, dtype=torch.float32, **options):
    twin = FasterRCNNCpp(4, **{**SMALL, **options}).to(device, dtype)
    twin.load_state_dict(model.state_dict())
    return twin


def rfcn_model(device, **options):
    torch.manual_seed(0)
    return spread(RFCN(4, **{**SMALL_RFCN, **options})).to(device)


def rfcn_cpp_model(model, device, dtype=torch.float32, **options):
    twin = RFCNCpp(4, **{**SMALL_RFCN, **options}).to(device, dtype)
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


def assert_same_everywhere(model, twin, images, targets, path):
    """The C++ twin, and the scripted model saved at `path` and loaded, give what the model does."""
    torch.jit.script(model).save(path)
    others = twin, torch.jit.load(path)
    # Evaluation first: a training step moves the running statistics.
    for training in (False, True):
        expected = run(model, training, images, targets)
        assert list(expected[0]) == (LOSSES if training else [])
        assert [len(x["boxes"]) > 3 for x in expected[1]] == ([] if training else [True, True])
        for other in others:
            assert_equal_outputs(run(other, training, images, targets), expected)


def assert_equal_gradients(model, twin, images, targets):
    """Of all parameters, after one step of training of each; none is 0 as a whole."""
    for each in (model, twin):
        losses, _ = run(each, True, images, targets)
        sum(losses.values()).backward()
    ours = dict(model.named_parameters())
    theirs = dict(twin.named_parameters())
    assert list(ours) == list(theirs)
    for name, parameter in theirs.items():
        if not ours[name].requires_grad:
            assert not parameter.requires_grad, name
            continue
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
        assert_close(parameter.grad, ours[name].grad, rtol=1e-4, atol=1e-5)
    assert list(dict(model.named_buffers())) == list(dict(twin.named_buffers()))


def loss_history(model, images, targets, rate=0.005, momentum=0.0, steps=10):
    """The total loss before each step of training, on the same samples."""
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=rate, momentum=momentum)
    history = []
    for _ in range(steps):
        torch.manual_seed(1)
        optimizer.zero_grad()
        total = sum(model(images, targets)[0].values())
        total.backward()
        optimizer.step()
        history.append(total.item())
    return history


def both(device, **options):
    model = python_model(device, **options)
    return model, cpp_model(model, device, **options)


def both_rfcn(device, **options):
    model = rfcn_model(device, **options)
    return model, rfcn_cpp_model(model, device, **options)
