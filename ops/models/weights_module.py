"""How the twins of C++ models take weights: as a whole or not at all."""

from torch import nn

from tilewright import _C
from tilewright.models.checkpoint import read_checkpoint


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
        # What the check lets pass beyond torch's: counters of batches that frozen batch norm lacks.
        return super().load_state_dict(state, strict=False, assign=assign)
