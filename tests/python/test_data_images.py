"""Images as files hold them: each mode by its documented rule, and each damage by name."""

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image", reason="pip install pillow")

from tilewright.data.images import ImageError, image_size, read_image  # noqa: E402

# Four corners of four colours, wider than high, so that a turn or a swap is seen.
COLOURS = np.zeros((2, 4, 3), dtype=np.uint8)
COLOURS[0, :2], COLOURS[0, 2:], COLOURS[1, :2], COLOURS[1, 2:] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (250, 250, 250),
)


def save(path, image, **options):
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def expected(pixels):
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp", "gif"])
def test_colours_come_in_order(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", COLOURS, **options)
    assert torch.equal(read_image(path, torch.uint8), expected(COLOURS))
    image = read_image(path)
    assert image.dtype == torch.float32 and image.is_contiguous()
    assert torch.equal(image, expected(COLOURS) / 255)
    assert read_image(path, torch.float64).dtype == torch.float64


def test_jpeg_is_close(tmp_path):
    smooth = np.full((16, 24, 3), (200, 100, 50), dtype=np.uint8)
    image = read_image(save(tmp_path / "a.jpg", smooth, quality=95), torch.uint8)
    assert (image.int() - expected(smooth).int()).abs().max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    """EXIF says by which turn or mirror of the upright picture the stored one came about."""
    upright = COLOURS
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    assert torch.equal(read_image(path, torch.uint8), expected(upright))
    assert torch.equal(read_image(path, torch.uint8, turn=False), expected(stored))
    assert image_size(path) == (stored.shape[1], stored.shape[0], orientation >= 5)


GREY = np.array([[0, 100, 255]], dtype=np.uint8)


def test_grey_gets_three_channels(tmp_path):
    image = read_image(save(tmp_path / "a.png", GREY), torch.uint8)
    assert image.tolist() == [[[0, 100, 255]]] * 3
    bits = Image.fromarray(GREY > 50)
    assert bits.mode == "1"
    assert read_image(save(tmp_path / "b.png", bits), torch.uint8)[1].tolist() == [[0, 255, 255]]


def test_palettes_become_colours(tmp_path):
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([2, 0, 1])
    wanted = [[[70, 10, 40]], [[80, 20, 50]], [[90, 30, 60]]]
    assert read_image(save(tmp_path / "a.png", palette), torch.uint8).tolist() == wanted
    seen_through = save(tmp_path / "b.png", palette, transparency=0)
    assert read_image(seen_through, torch.uint8).tolist() == wanted


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped(tmp_path, mode):
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(0)
    read = read_image(save(tmp_path / "a.png", image), torch.uint8)
    assert read.tolist() == [[[0, 100, 255]]] * 3


def test_cmyk_is_converted(tmp_path):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for path in (save(tmp_path / "a.tiff", cyan), save(tmp_path / "a.jpg", cyan, quality=95)):
        red, green, blue = read_image(path).mean(dim=(1, 2)).tolist()
        assert red < 0.05 and green > 0.95 and blue > 0.95


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_keep_their_range(tmp_path, suffix):
    """A plain conversion would cut everything above 255 to white."""
    wide = np.array([[0, 257, 1000, 32768, 65535]], dtype=np.uint16)
    path = save(tmp_path / f"a.{suffix}", wide)
    image = read_image(path)
    assert torch.allclose(image[2], torch.from_numpy(wide / 65535.0).float(), atol=1e-7)
    assert read_image(path, torch.uint8)[0].tolist() == [[0, 1, 4, 128, 255]]


def test_floats_are_taken_as_they_are(tmp_path):
    floats = np.array([[0.0, 0.25, 1.0]], dtype=np.float32)
    path = save(tmp_path / "a.tiff", floats)
    assert read_image(path).tolist() == [[[0.0, 0.25, 1.0]]] * 3
    for bad in (1.5, np.nan):
        path = save(tmp_path / "b.tiff", np.array([[0, bad]], dtype=np.float32))
        with pytest.raises(ImageError, match=r"b\.tiff: its 32-bit floats are not all in \[0, 1\]"):
            read_image(path)


def test_wide_integers_are_bounded(tmp_path):
    good = save(tmp_path / "a.tiff", np.array([[0, 65535]], dtype=np.int32))
    assert read_image(good)[0].tolist() == [[0.0, 1.0]]
    bad = save(tmp_path / "b.tiff", np.array([[-5, 70000]], dtype=np.int32))
    with pytest.raises(ImageError, match="its integers reach from -5 to 70000, not 0 to 65535"):
        read_image(bad)


def test_the_first_of_several_pictures_is_read(tmp_path):
    first = Image.fromarray(COLOURS)
    second = Image.fromarray(COLOURS[::-1].copy())
    path = tmp_path / "a.tiff"
    first.save(path, save_all=True, append_images=[second])
    assert torch.equal(read_image(path, torch.uint8), expected(COLOURS))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: there is no such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.jpg").write_text("no image")
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=r"text\.jpg: not an image that Pillow can read"):
            read(tmp_path / "text.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path / "whole.png", noise).read_bytes()
    short = tmp_path / "short.png"
    short.write_bytes(whole[: len(whole) // 2])
    assert image_size(short) == (64, 64, False)  # the header is whole
    with pytest.raises(ImageError, match=r"short\.png: the image is damaged"):
        read_image(short)
    with pytest.raises(ImageError, match="not an image that Pillow can read"):
        read_image(tmp_path)


def test_a_dtype_without_a_rule_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"dtype must be uint8 or floating, got torch\.int32"):
        read_image(save(tmp_path / "a.png", COLOURS), torch.int32)
