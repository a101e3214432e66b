"""Files of weights, whichever of torch's savers wrote them, as dicts of tensors."""

import os
import pickle
import zipfile

import torch
from torch import Tensor

from tilewright import _C


def read_checkpoint(path: str | os.PathLike, caller: str = "read_checkpoint") -> dict[str, Tensor]:
    """The named tensors, on the CPU, of a file of weights.

    Such a file comes from ``torch.save(model.state_dict(), path)``, ``torch.jit.save``, or the C++
    models' ``save``. No code of the file is run. Other files raise a RuntimeError that names them
    and the ``caller``.
    """
    path = os.fspath(path)
    if not _is_pickled(path):
        return _C.read_checkpoint(path, caller)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        problem = "holds other objects than tensors, or is damaged: save model.state_dict()"
        raise RuntimeError(f"tilewright::{caller}: {path} {problem}") from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise RuntimeError(
            f"tilewright::{caller}: {path} cannot be read as weights: {error}"
        ) from error
    if not isinstance(state, dict):
        raise RuntimeError(
            f"tilewright::{caller}: {path} must hold a dict of tensors, got a "
            f"{type(state).__name__}"
        )
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise RuntimeError(
                f"tilewright::{caller}: {path}: entry {key} must be a tensor, got a "
                f"{type(value).__name__} (of a checkpoint with more than weights, take the dict "
                "of weights)"
            )
    return dict(state)


def _is_pickled(path: str) -> bool:
    """Whether torch.save wrote the file, as far as one can tell; C++ looks at all others."""
    if not os.path.isfile(path):
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("/constants.pkl") for name in archive.namelist())
    with open(path, "rb") as file:
        return file.read(2) == b"\x80\x02"
