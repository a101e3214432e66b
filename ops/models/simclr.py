"""SimCLR in Python, thin and scriptable: the twin of ``csrc/models/simclr.cpp``."""

import torch
from torch import Tensor, nn

from tilewright import _C
from tilewright._arguments import check_tensor
from tilewright.models.image_encoder import ConvEncoder, ResNetEncoder
from tilewright.models.self_supervised import check_channels, tuple_of
from tilewright.models.weights_module import WeightsModule


class SimCLR(WeightsModule):
    """Chen et al. 2020 (arXiv:2002.05709): two random views of an image are to be told apart from
    the views of all other images of the batch.

    An encoder makes features of a view, a small network projects them, and NT-Xent compares the
    projections: ``forward(first, second)`` is that loss, one number, of two views (N, C, H, W) of
    N > 1 images. What is kept afterwards is the encoder: ``represent(images)`` gives its features,
    (N, F). ``project(images)`` gives what the loss compares. Batch norm sees both views as one
    batch in training mode. Two calls of Augmentation make the views.

    Args:
        encoder: "conv", "resnet", or a module from (N, C, H, W) to (N, out_features), with that
            attribute; then the options of encoders have no effect.
        in_channels: of the images; 1, or 3 as well with a ResNet.
        widths: of "conv", a ConvEncoder: channels of its layers; (32, 64, 128).
        resnet_depth: 18, 34, 50 or 101.
        small_images: the ResNet's stem is one 3x3 convolution that keeps the sides, as SimCLR has
            it for images of 32x32; True.
        projection_layers: linear layers of the projection, 2; all but the last are followed by
            batch norm and ReLU.
        projection_hidden: their units, 128.
        projection_features: those of the last, 64.
        temperature: by which NT-Xent divides similarities; 0.2.
    """

    def __init__(self, encoder: str | nn.Module = "conv", **options):
        super().__init__()
        own = isinstance(encoder, nn.Module)
        if not own and not isinstance(encoder, str):
            raise TypeError(
                f"tilewright::SimCLR: encoder must be 'conv', 'resnet' or a module, got {encoder!r}"
            )
        options = _C.simclr_options(**options, **({} if own else {"encoder": encoder}))
        if own:
            self.encoder = encoder
        elif options["encoder"] == "conv":
            self.encoder = ConvEncoder(options["in_channels"], options["widths"])
        else:
            self.encoder = ResNetEncoder(
                options["resnet_depth"], small_images=options["small_images"]
            )
        self.in_channels: int = options["in_channels"]
        self.temperature: float = options["temperature"]
        features, hidden = self.encoder.out_features, options["projection_hidden"]
        layers: list[nn.Module] = []
        for _ in range(options["projection_layers"] - 1):
            layers += [nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
            features = hidden
        layers.append(nn.Linear(features, options["projection_features"]))
        self.projection = nn.Sequential(*layers)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        check_channels("SimCLR", "first", first, "(N, C, H, W)", 4, self.in_channels)
        check_tensor("tilewright::SimCLR: second", second, "(N, C, H, W)")
        if first.shape != second.shape:
            raise RuntimeError(
                f"tilewright::SimCLR: second must have first's shape {tuple_of(first.shape)}, got "
                f"{tuple_of(second.shape)}"
            )
        if first.dtype != second.dtype:
            raise RuntimeError(
                f"tilewright::SimCLR: second must have first's dtype {first.dtype}, got "
                f"{second.dtype}"
            )
        views = self.project(torch.cat([first, second])).chunk(2)
        return torch.ops.tilewright.nt_xent(views[0], views[1], self.temperature)

    @torch.jit.export
    def represent(self, images: Tensor) -> Tensor:
        check_channels("SimCLR", "images", images, "(N, C, H, W)", 4, self.in_channels)
        return self.encoder(images)

    @torch.jit.export
    def project(self, images: Tensor) -> Tensor:
        return self.projection(self.represent(images))
