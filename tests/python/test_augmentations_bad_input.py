"""Augmentations: settings and images that cannot be are named, and their own views never are."""

import pytest
import torch
from checks import EPS
from test_augmentations import CALLS, FLOATS, call, every_augmentation, images

import tilewright


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("random_resized_crop", ([0.0, 1.0], [1.0, 1.0]), "scale must be two positive numbers"),
        ("random_resized_crop", ([0.5, 1.5], [1.0, 1.0]), "that not above 1, got"),
        ("random_resized_crop", ([0.5, 1.0], [2.0, 1.0]), "ratio must be two positive numbers"),
        ("random_resized_crop", ([0.5, 1.0], [1.0, 1.0], [0, 3]), "size must be two positive"),
        ("random_affine", (-1.0,), r"degrees must lie in \[0, 360\], got -1"),
        ("random_affine", (5.0, 1.5), r"translate must lie in \[0, 1\], got 1.5"),
        ("random_affine", (5.0, 0.1, [0.0, 1.0]), "zoom must be two positive numbers"),
        ("random_horizontal_flip", (1.5,), r"p must lie in \[0, 1\], got 1.5"),
        ("color_jitter", (-0.1,), "brightness must not be negative, and finite, got -0.1"),
        ("color_jitter", (0.1, float("inf")), "contrast must not be negative, and finite, got inf"),
        ("color_jitter", (0.1, 0.1, 0.1, 0.6), r"hue must lie in \[0, 0.5\], got 0.6"),
        ("random_grayscale", (float("nan"),), r"p must lie in \[0, 1\], got nan"),
        ("random_blur", (4,), "kernel_size must be a positive odd number, got 4"),
        ("random_blur", (3, [0.0, 1.0]), "sigma must be two positive numbers"),
        ("random_erasing", ([0.1, 0.2], [1.0, 1.0], 2.0), r"p must lie in \[0, 1\], got 2"),
        ("random_erasing", ([0.1, 0.2], [1.0, 1.0], 0.5, float("nan")), "value must be finite"),
        ("random_noise", (-0.5,), "sigma must not be negative, and finite, got -0.5"),
    ],
)
def test_bad_settings_are_named(name, settings, message):
    with pytest.raises(RuntimeError, match=f"tilewright::{name}: .*{message}"):
        call(name, images(), *settings)


@pytest.mark.parametrize("name", CALLS)
def test_bad_images_are_named(name):
    for given, message in (
        (torch.rand(3, 8, 8), r"images must have shape \(N, C, H, W\), got \(3, 8, 8\)"),
        (torch.ones(2, 3, 8, 8, dtype=torch.uint8), "images must be float64, float32, .*got Byte"),
        (torch.rand(2, 3, 0, 8), r"images must have channels and pixels, got \(2, 3, 0, 8\)"),
    ):
        with pytest.raises(RuntimeError, match=f"tilewright::{name}: {message}"):
            call(name, given, *CALLS[name])
    if name in ("color_jitter", "random_grayscale"):
        with pytest.raises(RuntimeError, match=r"images must have 1 or 3 channels, got \(2, 4"):
            call(name, images(2, 4), *CALLS[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_images_out_of_range_are_named(name, dtype):
    x = images(dtype=dtype)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0, 1
    nan = x.clone()
    nan[2, 0, 0, 0] = float("nan")
    for given, got in ((x * 255, "0 to 255"), (x - 1, "-1 to 0"), (nan, "nan to nan")):
        if name not in ("color_jitter", "random_noise"):  # normalised images are theirs, too
            assert call(name, given, *CALLS[name]).shape == x.shape
            continue
        message = rf"images must lie in \[0, 1\], got {got} \(divide images in 0..255 by 255, and"
        with pytest.raises(RuntimeError, match=f"tilewright::{name}: {message}"):
            call(name, given, *CALLS[name])
    rounded = x * 1.004  # a bfloat16 next to 1, as other programs' resizing leaves
    assert rounded.max() > 1
    call(name, rounded, *CALLS[name])


@pytest.mark.parametrize("dtype", FLOATS)
def test_views_of_views_stay_images(dtype):
    """However often: what a chain rounds never counts as an image out of range."""
    x = images(8, dtype=dtype).round()  # pixels at the ends of the range
    x[0], x[1] = 0, 1
    for _ in range(20):
        x = every_augmentation(x)
        assert x.min() >= 0 and x.max() <= 1
        x = tilewright.random_resized_crop(tilewright.random_affine(x, 20.0), [0.3, 0.6], [0.8, 1])
        assert x.min() >= -EPS[dtype] and x.max() <= 1 + EPS[dtype]
