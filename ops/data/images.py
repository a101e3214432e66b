"""Image files as a detector takes them: upright RGB, whatever the file holds, or an error by name.

What a file may hold and what becomes of it:

- EXIF orientation is applied, so that the image is upright (in a PNG, where it stands before the
  pixels).
- Grey images (1, 8, 16 bits) get three equal channels; palettes become their colours; CMYK, YCbCr,
  LAB and HSV are converted by Pillow; transparency is dropped, the colour beneath it stays.
- 16-bit grey is read at its full range, 65535 being white (8-bit results round value / 257), and so
  are 32-bit integers from 0 to 65535. 16-bit colour loses its lower 8 bits in Pillow.
- 32-bit floats must lie in [0, 1].
- Of a file with several pictures the first one is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # EXIF's number for it
_TURNS = {  # its values, and the names of Pillow's operations that make the image upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_SIDEWAYS = (5, 6, 7, 8)  # those that swap width and height


class ImageError(ValueError):
    """An image file that is missing, damaged, or holds values that have no meaning as a picture."""


def read_image(path: str | Path, dtype: torch.dtype = torch.float32, turn: bool = True) -> Tensor:
    """Reads an image file by the rules above.

    Args:
        path: a file of any format that Pillow knows.
        dtype: torch.uint8 for 0..255, or a floating type for [0, 1].
        turn: whether the EXIF orientation is applied.

    Returns:
        (3, H, W) of `dtype`.

    Raises:
        ImageError: naming the file and the reason.
    """
    if dtype != torch.uint8 and not dtype.is_floating_point:
        raise TypeError(f"tilewright.data: dtype must be uint8 or floating, got {dtype}")
    with _opened(path) as image:
        try:
            operation = _TURNS.get(_orientation(image)) if turn else None
            image.load()
            if operation is not None:
                from PIL import Image

                image = image.transpose(Image.Transpose[operation])
            pixels = _rgb(image)  # (H, W, 3) uint8, or float32 where the file has more digits
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None
        except Exception as error:  # decoders raise whatever they meet in a damaged file
            raise ImageError(f"{path}: the image is damaged ({_said(error)})") from error
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if dtype == torch.uint8:
        if tensor.dtype != torch.uint8:
            tensor = (tensor * 255.0).round_().to(torch.uint8)
        return tensor
    return tensor.to(dtype) / 255.0 if tensor.dtype == torch.uint8 else tensor.to(dtype)


def image_size(path: str | Path) -> tuple[int, int, bool]:
    """Width and height as stored, from the file's header alone, and whether its EXIF orientation
    swaps the two; ImageError where they cannot be had."""
    with _opened(path) as image:
        try:
            sideways = _orientation(image) in _SIDEWAYS
        except Exception as error:
            raise ImageError(f"{path}: the image is damaged ({_said(error)})") from error
        return image.width, image.height, sideways


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole image to look behind its pixels
    return image.getexif().get(_ORIENTATION, 1)


def _opened(path: str | Path) -> Image.Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "tilewright.data: images are read by Pillow, which is not installed; run "
            "`pip install pillow`"
        ) from error
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except Exception as error:
        raise ImageError(f"{path}: not an image that Pillow can read ({_said(error)})") from error


def _rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3): uint8, or float32 in [0, 1] where uint8 would lose digits."""
    if image.mode == "F":
        grey = np.asarray(image, dtype=np.float32)
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
            raise ImageError("its 32-bit floats are not all in [0, 1]")
    elif image.mode.startswith("I"):  # I;16, I;16B, and 16 bits that Pillow keeps in 32
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(
                f"its integers reach from {wide.min()} to {wide.max()}, not 0 to 65535"
            )
        grey = (wide / 65535.0).astype(np.float32)
    else:
        if image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
            image = image.convert("RGBA")  # Pillow warns of anything else
        return np.array(image.convert("RGB"))
    return np.repeat(grey[:, :, None], 3, axis=2)


def _said(error: Exception) -> str:
    """What a foreign exception says, in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
