"""Random views of images, for learning without labels: batched, each image draws for itself.

Images are (N, C, H, W), float64, float32, float16 or bfloat16 in [0, 1]; results have their shape
and dtype and are computed in float32 at least. Numbers come from ``generator``, of the images'
device, or from torch's: ``torch.manual_seed`` repeats them. ``p`` is the chance that an image is
changed at all. :func:`color_jitter` and :func:`random_noise` cut their results to [0, 1], and
images outside of it are a RuntimeError there, on the CPU.
"""

# Optional is spelled out: TorchScript of some torch versions knows no `|` in functions.
from typing import List, Optional  # noqa: UP035

import torch
from torch import Tensor

__all__ = [
    "color_jitter",
    "random_affine",
    "random_blur",
    "random_erasing",
    "random_grayscale",
    "random_horizontal_flip",
    "random_noise",
    "random_resized_crop",
]

Generator = Optional[torch.Generator]  # noqa: UP045


def random_resized_crop(
    images: Tensor,
    scale: List[float] = (0.08, 1.0),  # noqa: UP006
    ratio: List[float] = (3 / 4, 4 / 3),  # noqa: UP006
    size: Optional[List[int]] = None,  # noqa: UP006, UP045
    generator: Generator = None,
) -> Tensor:
    """A piece of each image, enlarged to ``size`` by bilinear interpolation.

    Args:
        images: (N, C, H, W).
        scale: least and largest share of the image's area.
        ratio: least and largest width over height, drawn evenly in the logarithm. Sides are cut to
            the image's, where torchvision draws again.
        size: rows and columns; the images' own where None. Nothing is smoothed where they get
            smaller.

    Raises:
        RuntimeError: on images of another shape or dtype, and on settings that cannot be.
    """
    return torch.ops.tilewright.random_resized_crop(images, scale, ratio, size, generator=generator)


def random_affine(
    images: Tensor,
    degrees: float = 0.0,
    translate: float = 0.0,
    zoom: List[float] = (1.0, 1.0),  # noqa: UP006
    generator: Generator = None,
) -> Tensor:
    """Turned, moved and enlarged around the centre, bilinearly; from outside comes 0.

    Args:
        images: (N, C, H, W).
        degrees: at most, either way.
        translate: at most, either way, as a share of the image's height and width.
        zoom: least and largest factor, drawn evenly in the logarithm.

    Raises:
        RuntimeError: as :func:`random_resized_crop`.
    """
    return torch.ops.tilewright.random_affine(images, degrees, translate, zoom, generator=generator)


def random_horizontal_flip(images: Tensor, p: float = 0.5, generator: Generator = None) -> Tensor:
    """Mirrored left to right, with chance p."""
    return torch.ops.tilewright.random_horizontal_flip(images, p, generator=generator)


def color_jitter(
    images: Tensor,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    p: float = 1.0,
    generator: Generator = None,
) -> Tensor:
    """Brightness, contrast and saturation times a factor of up to 1 +- each, and the hue turned by
    up to ``hue`` of a circle, in this order; cut to [0, 1] after each.

    Args:
        images: (N, C, H, W) of 1 or 3 channels; those of one have neither saturation nor hue.
        brightness, contrast, saturation: not negative. Contrast is the distance from the image's
            mean grey, saturation that from a pixel's own.
        hue: at most 0.5.

    Raises:
        RuntimeError: as :func:`random_resized_crop`, and on the CPU on images outside of [0, 1].
    """
    return torch.ops.tilewright.color_jitter(
        images, brightness, contrast, saturation, hue, p, generator=generator
    )


def random_grayscale(images: Tensor, p: float = 0.1, generator: Generator = None) -> Tensor:
    """Three equal channels of 0.299 R + 0.587 G + 0.114 B, with chance p; one channel stays."""
    return torch.ops.tilewright.random_grayscale(images, p, generator=generator)


def random_blur(
    images: Tensor,
    kernel_size: int = 3,
    sigma: List[float] = (0.1, 2.0),  # noqa: UP006
    p: float = 0.5,
    generator: Generator = None,
) -> Tensor:
    """Gaussian blur of kernel_size x kernel_size pixels (odd), of a sigma in pixels drawn from
    ``sigma``; beyond its edge an image goes on as the edge."""
    return torch.ops.tilewright.random_blur(images, kernel_size, sigma, p, generator=generator)


def random_erasing(
    images: Tensor,
    scale: List[float] = (0.02, 0.33),  # noqa: UP006
    ratio: List[float] = (0.3, 3.3),  # noqa: UP006
    p: float = 0.5,
    value: float = 0.0,
    generator: Generator = None,
) -> Tensor:
    """A rectangle of whole pixels set to ``value``, in [0, 1] (arXiv:1708.04896); its share of the
    area and width over height are drawn as :func:`random_resized_crop` draws them."""
    return torch.ops.tilewright.random_erasing(images, scale, ratio, p, value, generator=generator)


def random_noise(images: Tensor, sigma: float = 0.1, generator: Generator = None) -> Tensor:
    """Normal noise added to each pixel, its deviation drawn for each image from [0, sigma]; cut to
    [0, 1]. On the CPU images outside of [0, 1] are a RuntimeError."""
    return torch.ops.tilewright.random_noise(images, sigma, generator=generator)
