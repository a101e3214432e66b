"""Augmentations: what settings that change nothing leave, values against other formulas, and that
each image draws for itself."""

import colorsys

import pytest
import torch
import torch.nn.functional as F
from checks import EPS, compile_and_run, export_and_run, opcheck, script_round_trip

import tilewright

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# With settings that change every image; grey images suffer them all.
CALLS = {
    "random_resized_crop": ([0.3, 0.6], [0.75, 1.3]),
    "random_affine": (20.0, 0.1, [0.8, 1.2]),
    "random_horizontal_flip": (1.0,),
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "random_grayscale": (1.0,),
    "random_blur": (3, [0.5, 2.0], 1.0),
    "random_erasing": ([0.1, 0.3], [0.5, 2.0], 1.0),
    "random_noise": (0.2,),
}
# With settings that change none.
STILL = {
    "random_resized_crop": ([1.0, 1.0], [1.0, 1.0]),
    "random_affine": (0.0, 0.0, [1.0, 1.0]),
    "random_horizontal_flip": (0.0,),
    "color_jitter": (0.0, 0.0),
    "random_grayscale": (0.0,),
    "random_blur": (3, [0.5, 2.0], 0.0),
    "random_erasing": ([0.1, 0.3], [0.5, 2.0], 0.0),
    "random_noise": (0.0,),
}


def images(count=6, channels=3, height=9, width=9, dtype=torch.float32):
    return torch.rand(count, channels, height, width, dtype=torch.float64).to(dtype)


def call(name, x, *settings, **more):
    return getattr(tilewright, name)(x, *settings, **more)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CALLS)
def test_views_are_images(name, dtype):
    """Of the same shape and dtype, in [0, 1], other than the images, and of one seed the same."""
    for channels, height, width in ((3, 9, 12), (1, 8, 8)):
        x = images(16, channels, height, width, dtype)
        torch.manual_seed(3)
        view = call(name, x, *CALLS[name])
        assert view.shape == x.shape and view.dtype == dtype
        assert view.min() >= 0 and view.max() <= 1
        if name != "random_grayscale" or channels == 3:
            changed = (view != x).flatten(1).any(1)
            assert changed.all(), changed
        torch.manual_seed(3)
        assert torch.equal(call(name, x, *CALLS[name]), view)
        own = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
        drawn = [call(name, x, *CALLS[name], generator=generator) for generator in own]
        assert torch.equal(drawn[0], view) and torch.equal(drawn[1], view)
        if name not in ("random_horizontal_flip", "random_grayscale"):
            assert not torch.equal(drawn[2], view)


@pytest.mark.parametrize("name", STILL)
def test_settings_that_change_nothing(name):
    for x in (images(), images(4, 1, 8, 8)):
        torch.testing.assert_close(call(name, x, *STILL[name]), x, rtol=0, atol=1e-6)
    assert call(name, images(0), *CALLS[name]).shape == (0, 3, 9, 9)


@pytest.mark.parametrize("name", ["random_horizontal_flip", "random_grayscale", "random_blur"])
def test_chances(name):
    settings = {"random_blur": (3, [1.0, 2.0])}.get(name, ())
    x = images(400)
    changed = call(name, x, *settings, p=0.3).ne(x).flatten(1).any(1).float().mean()
    assert 0.2 < changed < 0.4


@pytest.mark.parametrize(
    "name", sorted(set(CALLS) - {"random_horizontal_flip", "random_grayscale"})
)
def test_each_image_draws_for_itself(name):
    x = images(1).expand(5, -1, -1, -1)
    view = call(name, x, *CALLS[name])
    for i in range(5):
        for j in range(i):
            assert not torch.equal(view[i], view[j]), (i, j)


def test_a_crop_is_an_enlarged_slice():
    """Half of the sides, and a picture that is linear in its place: anywhere the crop is linear
    too, at half the slope, and lies within the picture."""
    ramp = torch.linspace(0, 1, 16, dtype=torch.float64)
    x = torch.stack([ramp.expand(16, 16), ramp.view(16, 1).expand(16, 16)]).expand(8, 2, 16, 16)
    view = tilewright.random_resized_crop(x, [0.25, 0.25], [1.0, 1.0])
    step = view[:, 0, :, 1:] - view[:, 0, :, :-1]
    inner = step[:, :, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5 / 15))
    torch.testing.assert_close(view[:, 0], view[:, 0, :1].expand(8, 16, 16))
    torch.testing.assert_close(view[:, 1], view[:, 1, :, :1].expand(8, 16, 16))
    middle = view.mean((2, 3))
    assert middle.min() > 0.2 and middle.max() < 0.8 and middle.std() > 0.05


@pytest.mark.parametrize("size", [(5, 5), (20, 6), (10, 13)])
def test_the_whole_image_at_another_size(size):
    x = images(3, 2, 10, 13)
    found = tilewright.random_resized_crop(x, [1.0, 1.0], [1.3, 1.3], size)
    right = F.interpolate(x, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, right)


def test_turns_and_moves():
    """A quarter turn is rot90; sides differ, so the square in the middle is looked at."""
    x = images(1, 1, 9, 9)
    seen = set()
    for seed in range(400):
        torch.manual_seed(seed)
        angle = torch.rand(1).item() * 360 - 180  # what the operator draws first
        if abs(abs(angle) - 90) > 1:
            continue
        torch.manual_seed(seed)
        view = tilewright.random_affine(x, 180.0, 0.0, [1.0, 1.0])
        turned = torch.rot90(x, 1 if angle > 0 else -1, (2, 3))
        assert (view - turned).abs().mean() < 0.03
        seen.add(angle > 0)
    assert seen
    bright = torch.ones(200, 1, 20, 10)
    outside = 1 - tilewright.random_affine(bright, 0.0, 0.2, [1.0, 1.0]).mean((1, 2, 3))
    assert 0.1 < outside.mean() < 0.25 and outside.max() <= 1 - 0.8**2 + 1e-5
    inside = tilewright.random_affine(bright, 0.0, 0.0, [0.5, 0.5]).mean((1, 2, 3))
    torch.testing.assert_close(inside, torch.full((200,), 0.25), rtol=0, atol=0.02)
    # It moves by that share whatever it was enlarged by.
    dot = torch.zeros(100, 1, 41, 41)
    dot[:, :, 18:23, 18:23] = 1
    for zoom in (0.7, 2.0):
        view = tilewright.random_affine(dot, 90.0, 0.1, [zoom, zoom])
        places = torch.arange(41.0) - 20
        centre = (view * places).sum((1, 2, 3)) / view.sum((1, 2, 3))
        assert 0.08 * 41 < centre.abs().max() < 0.1 * 41 + 0.3
    # A disc stays one when the sides differ.
    y, z = torch.meshgrid(torch.arange(20) - 9.5, torch.arange(30) - 14.5, indexing="ij")
    disc = ((y**2 + z**2) < 64).float().expand(20, 1, 20, 30)
    assert (tilewright.random_affine(disc, 180.0, 0.0) - disc).abs().mean() < 0.04


def test_a_mirror():
    x = images()
    assert torch.equal(tilewright.random_horizontal_flip(x, 1.0), x.flip(3))


def test_hue_against_colorsys():
    x = images(3, 3, 2, 2, torch.float64)
    x[0, :, 0, 0] = 0.5  # grey has no hue
    x[1, :, 0, 0] = torch.tensor([1.0, 0.0, 0.0])
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, 1, 1, 1, dtype=torch.float64, generator=generator)  # which images are chosen
    turns = torch.rand(3, 1, 1, 1, dtype=torch.float64, generator=generator).flatten() * 0.6 - 0.3
    torch.manual_seed(5)
    found = tilewright.color_jitter(x, hue=0.3)
    for n in range(3):
        for row in range(2):
            for column in range(2):
                hue, saturation, value = colorsys.rgb_to_hsv(*x[n, :, row, column].tolist())
                right = colorsys.hsv_to_rgb((hue + turns[n].item()) % 1, saturation, value)
                right = torch.tensor(right, dtype=torch.float64)
                torch.testing.assert_close(found[n, :, row, column], right, rtol=0, atol=1e-9)


def grey(x):
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def test_brightness_contrast_and_saturation():
    """Each alone: what is left of one image lies on a line through the fixed point."""
    x = images() * 0.2 + 0.4  # nothing is cut
    view = tilewright.color_jitter(x, brightness=0.5)
    factor = view.mean((1, 2, 3), keepdim=True) / x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(view, x * factor)
    assert factor.min() >= 0.5 and factor.max() <= 1.5 and factor.std() > 0.05
    for settings, fixed in (
        ({"contrast": 0.5}, grey(x).mean((1, 2, 3), keepdim=True)),
        ({"saturation": 0.5}, grey(x)),
    ):
        view = tilewright.color_jitter(x, **settings)
        factor = (view - fixed).flatten(1).std(1) / (x - fixed).flatten(1).std(1)
        torch.testing.assert_close(view, fixed + (x - fixed) * factor.view(-1, 1, 1, 1))
        assert factor.min() >= 0.5 and factor.max() <= 1.5 and factor.std() > 0.05
    torch.testing.assert_close(tilewright.random_grayscale(x, 1.0), grey(x).expand_as(x))
    one = images(3, 1)
    assert torch.equal(tilewright.color_jitter(one, 0.0, 0.0, 0.5, 0.5), one)


def test_a_blur_is_a_convolution():
    x = images(2, 3, 8, 11)
    found = tilewright.random_blur(x, 5, [0.9, 0.9], 1.0)
    tap = torch.exp(-0.5 * (torch.arange(-2.0, 3) / 0.9) ** 2)
    tap = tap / tap.sum()
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate").flatten(0, 1).unsqueeze(1)
    right = F.conv2d(padded, torch.outer(tap, tap).view(1, 1, 5, 5)).view_as(x)
    torch.testing.assert_close(found, right)


def test_what_is_erased_is_a_rectangle():
    x = images(200, 2, 12, 10) * 0.5
    erased = tilewright.random_erasing(x, [0.1, 0.3], [0.5, 2.0], 0.9, 1.0) == 1
    assert torch.equal(erased[:, 0], erased[:, 1])
    share = erased.float().mean((1, 2, 3))
    assert 0.8 < (share > 0).float().mean() < 0.98
    for one in erased[share > 0, 0]:
        rows, columns = one.any(1), one.any(0)
        assert torch.equal(one, rows[:, None] & columns)
        for line in (rows, columns):
            where = line.nonzero()
            assert len(where) == where.max() - where.min() + 1
        assert 0.05 < one.float().mean() < 0.4
    everywhere = erased.float().mean((0, 1))
    assert everywhere.min() > 0


def test_noise_has_the_deviation_that_each_image_draws():
    x = torch.full((300, 1, 20, 20), 0.5)
    deviation = (tilewright.random_noise(x, 0.1) - x).flatten(1).std(1)
    assert deviation.max() < 0.12 and deviation.min() < 0.01
    assert abs(deviation.mean() - 0.05) < 0.01


@pytest.mark.parametrize("name", CALLS)
def test_gradients_reach_the_images(name):
    x = images(3, 3, 6, 6, torch.float64).requires_grad_()
    torch.manual_seed(1)
    call(name, x, *CALLS[name]).square().sum().backward()
    direction = torch.randn_like(x)
    values = []
    for step in (1e-6, -1e-6):
        torch.manual_seed(1)
        values.append(call(name, x.detach() + step * direction, *CALLS[name]).square().sum())
    slope = (values[0] - values[1]) / 2e-6
    torch.testing.assert_close((x.grad * direction).sum(), slope, rtol=1e-4, atol=1e-4)


def every_augmentation(x: torch.Tensor) -> torch.Tensor:
    x = tilewright.random_affine(x, 20.0, 0.1, [0.8, 1.2])
    x = tilewright.random_resized_crop(x, [0.3, 0.6], [0.75, 1.3])
    x = tilewright.random_horizontal_flip(x)
    x = tilewright.color_jitter(x, 0.4, 0.4, 0.4, 0.1)
    x = tilewright.random_grayscale(x, 0.3)
    x = tilewright.random_blur(x, 3, [0.5, 2.0])
    x = tilewright.random_erasing(x, [0.1, 0.3], [0.5, 2.0])
    return tilewright.random_noise(x, 0.1)


def test_script_export_and_compile():
    x = images(4)
    torch.manual_seed(2)
    right = every_augmentation(x)
    for run in (script_round_trip, export_and_run, compile_and_run):
        torch.manual_seed(2)
        torch.testing.assert_close(run(every_augmentation, x), right)
    batch = {0: torch.export.Dim("n", min=2, max=64)}
    other = images(7)
    torch.manual_seed(2)
    right = every_augmentation(other)
    torch.manual_seed(2)
    run = export_and_run(
        every_augmentation, x, dynamic_shapes={"args": (batch,)}, other_args=(other,)
    )
    torch.testing.assert_close(run, right)


@pytest.mark.parametrize("name", ["random_horizontal_flip", "random_grayscale"])
def test_opcheck(name):
    """Of those that give the same twice; the others are drawn."""
    opcheck(getattr(torch.ops.tilewright, name).default, (images(), 1.0))


@pytest.mark.parametrize("dtype", FLOATS)
def test_16_bits_are_computed_in_more(dtype):
    """The same numbers are drawn for 16 bits as for float32."""
    x = images(5, 3, 9, 9, dtype)
    wide = x if dtype == torch.float64 else x.float()
    for name, settings in CALLS.items():
        torch.manual_seed(4)
        found = call(name, x, *settings)
        torch.manual_seed(4)
        right = call(name, wide, *settings).to(dtype)
        torch.testing.assert_close(found, right, rtol=EPS[dtype], atol=EPS[dtype])
