"""Recipes of augmentations, scriptable: the twin of ``csrc/models/augmentation_options.cpp``."""

import torch
from torch import Tensor, nn

from tilewright import _C


def _varies(factors: list[float]) -> bool:
    return factors[0] != 1.0 or factors[1] != 1.0


class Augmentation(nn.Module):
    """Makes a random view of each image: ``Augmentation("digits")(images)``.

    Images are (N, C, H, W) in [0, 1]; a view has their shape and dtype. Called twice it gives the
    two views of SimCLR. What is 0, or goes from 1 to 1, is left out.

    Args:
        recipe: "digits" (turned, moved, cropped, lit differently, parts erased, noise), for grey
            signs; "photographs" (cropped, mirrored, colours turned), SimCLR's for small images;
            "none", to set all one by one.
        options: what is to differ from the recipe, in the order in which it is done:
            ``degrees``, ``translate``, ``zoom`` of random_affine; ``crop_scale``, ``crop_ratio`` of
            random_resized_crop; ``flip``, the chance of a mirror; ``brightness``, ``contrast``,
            ``saturation``, ``hue`` of color_jitter, and ``jitter``, its chance; ``grayscale``, the
            chance; ``blur``, the chance, ``blur_size`` and ``blur_sigma``; ``erase``, the chance,
            ``erase_scale`` and ``erase_ratio``; ``noise``.
    """

    def __init__(self, recipe: str = "digits", **options):
        super().__init__()
        if not isinstance(recipe, str):
            raise TypeError(
                "tilewright::Augmentation: recipe must be 'digits', 'photographs' or 'none', got "
                f"{recipe!r}"
            )
        o = _C.augmentation_options(recipe, **options)
        self.degrees, self.translate, self.zoom = o["degrees"], o["translate"], o["zoom"]
        self.crop_scale, self.crop_ratio = o["crop_scale"], o["crop_ratio"]
        self.flip, self.jitter = o["flip"], o["jitter"]
        self.brightness, self.contrast = o["brightness"], o["contrast"]
        self.saturation, self.hue = o["saturation"], o["hue"]
        self.grayscale = o["grayscale"]
        self.blur, self.blur_size, self.blur_sigma = o["blur"], o["blur_size"], o["blur_sigma"]
        self.erase, self.erase_scale, self.erase_ratio = (
            o["erase"],
            o["erase_scale"],
            o["erase_ratio"],
        )
        self.noise = o["noise"]
        self.moves = self.degrees > 0 or self.translate > 0 or _varies(self.zoom)
        self.crops = _varies(self.crop_scale) or _varies(self.crop_ratio)
        self.colours = self.brightness + self.contrast + self.saturation + self.hue > 0

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.moves:
            x = torch.ops.tilewright.random_affine(x, self.degrees, self.translate, self.zoom)
        if self.crops:
            x = torch.ops.tilewright.random_resized_crop(x, self.crop_scale, self.crop_ratio)
        if self.flip > 0:
            x = torch.ops.tilewright.random_horizontal_flip(x, self.flip)
        if self.colours:
            x = torch.ops.tilewright.color_jitter(
                x, self.brightness, self.contrast, self.saturation, self.hue, self.jitter
            )
        if self.grayscale > 0:
            x = torch.ops.tilewright.random_grayscale(x, self.grayscale)
        if self.blur > 0:
            x = torch.ops.tilewright.random_blur(x, self.blur_size, self.blur_sigma, self.blur)
        if self.erase > 0:
            x = torch.ops.tilewright.random_erasing(
                x, self.erase_scale, self.erase_ratio, self.erase
            )
        if self.noise > 0:
            x = torch.ops.tilewright.random_noise(x, self.noise)
        return x
