"""torchvision's Faster R-CNN under our options, for the tests that compare with it."""

from functools import partial

import pytest
import torch


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


def torchvision_model(device, num_classes=4, **options):
    """Of torchvision's parts, with the layers that our options of these names describe."""
    detection = pytest.importorskip("torchvision.models.detection")
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

    options = dict(options)
    channels = options.pop("fpn_channels", 256)
    width = options.pop("representation_size", 1024)
    sizes = options.pop("anchor_sizes", ((32,), (64,), (128,), (256,), (512,)))
    level = options.pop("feature_level", 0)
    norm = FrozenBatchNorm2d if options.pop("frozen_batch_norm", False) else torch.nn.BatchNorm2d
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name=f"resnet{options.pop('resnet_depth', 18)}",
        weights=None,
        norm_layer=partial(norm, eps=options.pop("batch_norm_eps", 1e-5)),
        trainable_layers=options.pop("trainable_backbone_layers", 5),
    )
    if level:
        widths = [block.in_channels for block in (m[0] for m in backbone.fpn.inner_blocks)]
        body = IntermediateLayerGetter(backbone.body, {f"layer{level}": "0"})
        backbone = torch.nn.Sequential()
        backbone.body = body
        backbone.out_channels = channels = widths[level - 1]
        options["box_roi_pool"] = MultiScaleRoIAlign(["0"], 7, 2)
    elif channels != 256:
        fpn = detection.backbone_utils.BackboneWithFPN
        returned = {f"layer{i}": str(i - 1) for i in range(1, 5)}
        backbone = fpn(backbone.body, returned, [64, 128, 256, 512], channels)
    ratios = ((0.5, 1.0, 2.0),) * len(sizes)
    model = detection.FasterRCNN(
        backbone,
        num_classes=None,
        rpn_anchor_generator=detection.anchor_utils.AnchorGenerator(sizes, ratios),
        box_head=detection.faster_rcnn.TwoMLPHead(channels * 49, width),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(width, num_classes),
        **options,
    )
    model.rpn.fg_bg_sampler = SharedNoise(options.get("rpn_batch_size_per_image", 256), 0.5)
    model.roi_heads.fg_bg_sampler = SharedNoise(options.get("box_batch_size_per_image", 512), 0.25)
    # Else it draws a number to pick one of one.
    model.transform.torch_choice = lambda sizes: sizes[0]
    return model.to(device)


def even_out_classes(model, images):
    """Moves the class biases so that over these images no class is likelier than another."""
    seen = []
    layer = model.roi_heads.box_predictor.cls_score
    hook = layer.register_forward_hook(lambda module, given, logits: seen.append(logits))
    with torch.no_grad():
        model.eval()(images)
        layer.bias.sub_(seen[0].mean(0))
    hook.remove()
    return model
