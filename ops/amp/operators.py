"""The room's operators as functions."""

from typing import List, Optional  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor


def unscale_(
    grads: List[Tensor],  # noqa: UP006
    found_inf: Tensor,
    inv_scale: Tensor,
    first_bad: Optional[Tensor] = None,  # noqa: UP045
    write: bool = True,
) -> None:
    """Multiplies gradients by ``inv_scale`` in place and looks through them for inf and NaN, in one
    pass (arXiv:1710.03740).

    Args:
        grads: any number of dense tensors, float64 to float16, on one device; no two share memory.
        found_inf: one float32 on that device, set to 1 where a gradient is inf or NaN before or
            after the product, else left as it is.
        inv_scale: one float32 on that device. 1 writes nothing.
        first_bad: one int64, lowered to the index of the first such gradient.
        write: or gradients stay as they are, and the products are only looked at.

    Raises:
        RuntimeError: for sparse gradients (give their coalesced values), and gradients that require
            grad while grad mode is on, are expanded or share memory.
    """
    torch.ops.tilewright.unscale_(grads, found_inf, inv_scale, first_bad, write)


def unscale_and_norm_(
    grads: List[Tensor],  # noqa: UP006
    found_inf: Tensor,
    inv_scale: Tensor,
    first_bad: Optional[Tensor] = None,  # noqa: UP045
    write: bool = True,
) -> Tensor:
    """:func:`unscale_`, and the 2-norm of all results together: one float32, float64 where a
    gradient is. Squares are added in float64 (of float32 a few in float32 before, where it holds
    them), in an order that depends on shapes alone."""
    return torch.ops.tilewright.unscale_and_norm_(grads, found_inf, inv_scale, first_bad, write)


def update_scale_(
    scale: Tensor,
    growth_tracker: Tensor,
    found_inf: Tensor,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
    min_scale: float = 0.0,
    max_scale: Optional[float] = None,  # noqa: UP045
    hysteresis_tracker: Optional[Tensor] = None,  # noqa: UP045
    hysteresis: int = 1,
) -> None:
    """The next loss scale, where it lies (arXiv:1710.03740, section 3.2).

    A clean step counts, and the ``growth_interval``-th multiplies ``scale`` by ``growth_factor``,
    up to ``max_scale``, unless it would be infinite. A step with inf or NaN begins counting again
    and multiplies it by ``backoff_factor``, down to ``min_scale``; with a ``hysteresis`` of H only
    the H-th in a row does, and those after it.

    Args:
        scale: one float32.
        growth_tracker: one int32, the clean steps since the scale last changed.
        found_inf: one float32, not 0 where a gradient was inf or NaN.
        hysteresis_tracker: one int32, H at first; needed where H is more than 1.
    """
    torch.ops.tilewright.update_scale_(
        scale,
        growth_tracker,
        found_inf,
        growth_factor,
        backoff_factor,
        growth_interval,
        min_scale,
        max_scale,
        hysteresis_tracker,
        hysteresis,
    )


def gradient_exponents(grads: List[Tensor]) -> Tensor:  # noqa: UP006
    """How many elements have each exponent of float32: (256,) int64, by the exponent's bits.

    Entry e counts magnitudes in [2^(e - 127), 2^(e - 126)), entry 0 those that are 0 or below
    2^-126, entry 255 inf, NaN and what is 2^128 or beyond.

    Args:
        grads: at least one dense tensor, float64 to float16, all on one device.
    """
    return torch.ops.tilewright.gradient_exponents(grads)


def stochastic_round_(
    outputs: List[Tensor],  # noqa: UP006
    inputs: List[Tensor],  # noqa: UP006
    rng_state: Tensor,
) -> None:
    """Rounds float32 to bfloat16 up or down by chance, so that the expectation is the input
    (arXiv:1502.02551). What bfloat16 holds stays as it is, inf and NaN too; finite stays finite.

    Args:
        outputs: bfloat16, written in place.
        inputs: float32, of the same shapes.
        rng_state: (2,) int64, seed and offset. Chance depends on them, on the tensor's number and
            on the place in it alone, on the CPU as on CUDA.
    """
    torch.ops.tilewright.stochastic_round_(outputs, inputs, rng_state)
