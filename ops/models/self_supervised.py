"""What the twins of models that learn without labels check alike."""

from torch import Tensor

from tilewright._arguments import check_tensor


def check_channels(model: str, name: str, x: Tensor, shape: str, dim: int, channels: int) -> None:
    check_tensor(f"tilewright::{model}: {name}", x, shape)
    if x.dim() != dim:
        raise RuntimeError(
            f"tilewright::{model}: {name} must have shape {shape}, got {tuple_of(x.shape)}"
        )
    if not x.is_floating_point():
        raise RuntimeError(
            f"tilewright::{model}: {name} must be of a floating dtype; bytes are divided by 255"
        )
    if x.shape[1] != channels:
        raise RuntimeError(
            f"tilewright::{model}: {name} must have {channels} channels, got {tuple_of(x.shape)}"
        )


def check_some(model: str, images: Tensor) -> None:
    """The mean loss of no images would be NaN."""
    check_tensor(f"tilewright::{model}: images", images, "(N, C, H, W)")
    if images.numel() == 0:
        raise RuntimeError(
            f"tilewright::{model}: images must not be empty, got {tuple_of(images.shape)}"
        )


def tuple_of(shape: list[int]) -> str:
    """As C++ writes it."""
    words = ", ".join([str(size) for size in shape])
    return f"({words},)" if len(shape) == 1 else f"({words})"
