"""One call that has existing models run on this library's kernels."""

import importlib.util

from tilewright._C import Acceleration as _Acceleration

__all__ = ["Acceleration", "accelerate"]


_standing = set()  # accelerations stay until undone, whether or not anybody keeps them


class Acceleration:
    """What :func:`accelerate` returns: a record of what was replaced, and the way back.

    Attributes:
        replaced: names of operators and devices, such as "torchvision::nms on cpu"; empty once
            undone.
    """

    def __init__(self, operators, devices):
        self._of_library = _Acceleration(operators, devices)
        _standing.add(self)

    @property
    def replaced(self):
        return self._of_library.replaced()

    def undo(self):
        """Brings the originals back, where no other acceleration still stands for them."""
        self._of_library.undo()
        _standing.discard(self)

    def __enter__(self):
        if not self.replaced:
            raise RuntimeError("this acceleration was undone: call tilewright.accelerate() again")
        return self

    def __exit__(self, *error):
        self.undo()

    def __repr__(self):
        replaced = self.replaced
        if not replaced:
            return "Acceleration: nothing is replaced"
        return "Acceleration of\n" + "\n".join(f"  {name}" for name in replaced)


def accelerate(operators=None, devices=None):
    """Serves operators of torchvision and torch with this library's kernels, under their own names.

    Models that call them need no change: torchvision's ``roi_align``, ``roi_pool``,
    ``ps_roi_align``, ``ps_roi_pool``, ``nms`` and ``deform_conv2d`` with their backward on the CPU
    (on CUDA too where the library was built for it), and on the CPU the kernel behind
    ``torch.nn.functional.scaled_dot_product_attention``. Results are those of the originals, up to
    rounding; what is not covered goes to the originals (see docs/dropin.md).

    The replacement holds for the whole process, every thread of it, until it is undone:

        tilewright.accelerate()                 # from here on
        with tilewright.accelerate() as active: # or for a while
            print(active)
            model(images)

    Args:
        operators: names such as "torchvision::nms"; None for all. torchvision is imported where it
            is installed and one of its operators may be meant.
        devices: "cpu", "cuda" or both in a list; None for both.

    Returns:
        An :class:`Acceleration`: ``replaced``, ``undo()``, and a context manager.

    Raises:
        RuntimeError: a name that is not among those above, or whose operator is not registered.
        ValueError: an empty list.
    """
    names, places = _listed("operators", operators), _listed("devices", devices)
    vision = not names or any(str(name).startswith("torchvision::") for name in names)
    if vision and importlib.util.find_spec("torchvision") is not None:
        importlib.import_module("torchvision")
    return Acceleration(names, places)


def _listed(name, value):
    """Names as a list; empty for None."""
    names = [] if value is None else [value] if isinstance(value, str) else list(value)
    if value is not None and not names:
        raise ValueError(f"{name} must be None for all, or name at least one; got none")
    return names
