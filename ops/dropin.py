"""One call that has existing models run on this library's kernels."""

import importlib.util

import torch

from tilewright._C import Acceleration as _Acceleration

__all__ = ["Acceleration", "accelerate"]


_standing = []  # accelerations stay until undone, whether or not anybody keeps them


def active():
    """The accelerations that stand, in the order in which they were made."""
    return list(_standing)


def undo_all():
    """Brings all originals back, whoever replaced them."""
    for acceleration in reversed(active()):
        acceleration.undo()


class Acceleration:
    """What :func:`accelerate` returns: a record of what was replaced, and the way back.

    Attributes:
        replaced: names of operators and devices, such as "torchvision::nms on cpu"; empty once
            undone.
    """

    def __init__(self, operators, devices):
        self._of_library = _Acceleration(operators, devices)
        _standing.append(self)

    @property
    def replaced(self):
        return self._of_library.replaced()

    def undo(self):
        """Brings the originals back, where no other acceleration still stands for them."""
        self._of_library.undo()
        if self in _standing:
            _standing.remove(self)

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
        operators: names such as "torchvision::nms", or ``torch.ops.torchvision.nms``; None for all.
            torchvision is imported where it is installed and one of its operators may be meant. A
            backward operator is replaced where it is named too.
        devices: "cpu", "cuda" or both in a list; None for both.

    Returns:
        An :class:`Acceleration`: ``replaced``, ``undo()``, and a context manager. One that was not
        kept is found in ``tilewright.dropin.active()``; ``tilewright.dropin.undo_all()`` undoes
        all of them.

    Raises:
        RuntimeError: a name that is not among those above, or whose operator is not registered.
        TypeError: what is no name.
        ValueError: an empty list.
    """
    names = _listed("operators", operators, "names such as 'torchvision::nms'")
    places = _listed("devices", devices, "'cpu' or 'cuda'")
    vision = not names or any(str(name).startswith("torchvision::") for name in names)
    if vision and importlib.util.find_spec("torchvision") is not None:
        importlib.import_module("torchvision")
    return Acceleration(names, places)


def _listed(argument, value, wanted):
    """Names as a list; empty for None."""
    if value is None:
        return []
    single = isinstance(value, (str, torch.device, *_OPERATORS)) or not hasattr(value, "__iter__")
    names = [_name_of(argument, one, wanted) for one in ([value] if single else value)]
    if not names:
        raise ValueError(f"{argument} must be None for all, or name at least one; got none")
    return names


_OPERATORS = (torch._ops.OpOverloadPacket, torch._ops.OpOverload)


def _name_of(argument, value, wanted):
    if isinstance(value, _OPERATORS):
        schema = (
            value
            if isinstance(value, torch._ops.OpOverload)
            else getattr(value, value.overloads()[0])
        )
        return schema._schema.name
    if isinstance(value, torch.device):
        return value.type
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be {wanted}, or a list of them; got {value!r}")
    return value
