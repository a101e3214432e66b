"""What the twins of models that learn without labels share: checks, and files of weights."""

from torch import Tensor, nn

from tilewright import _C
from tilewright.models.checkpoint import read_checkpoint


def check_channels(model: str, name: str, x: Tensor, shape: str, dim: int, channels: int) -> None:
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


def tuple_of(shape: list[int]) -> str:
    """As C++ writes it."""
    words = ", ".join([str(size) for size in shape])
    return f"({words},)" if len(shape) == 1 else f"({words})"


class WeightsModule(nn.Module):
    """A module whose load_state_dict checks all before it writes any, and which loads files."""

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As torch.nn.Module's, but checked as a whole before anything is written."""
        return self._load(state_dict, "state dict", strict, assign)

    def load(self, path) -> "WeightsModule":
        """Loads a file of weights: see read_checkpoint. Every key and shape must fit."""
        self._load(read_checkpoint(path, "load_module"), str(path))
        return self

    def _load(self, state, source: str, strict: bool = True, assign: bool = False):
        own = {name: value.detach() for name, value in self.state_dict().items()}
        _C.check_state_dict(own, dict(state), source, strict)
        return super().load_state_dict(state, strict=False, assign=assign)
