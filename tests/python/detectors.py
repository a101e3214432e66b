"""Small detectors, their weights, images and the comparison of what they give, for the tests of
models; benchmarks/detector.py takes its weights from here."""

import torch
from torch.testing import assert_close

from tilewright.models import FasterRCNN, FasterRCNNCpp

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


def both(device, **options):
    model = python_model(device, **options)
    return model, cpp_model(model, device, **options)
