"""Mixed precision: a loss scaler that never applies an update of inf or NaN, and what gradients lose
in narrow formats."""

from tilewright.amp.formats import FORMATS, FloatFormat, format_of
from tilewright.amp.loss_scaler import LossScaleError, LossScaler
from tilewright.amp.operators import (
    gradient_exponents,
    unscale_,
    unscale_and_norm_,
    update_scale_,
)

__all__ = [
    "FORMATS",
    "FloatFormat",
    "LossScaleError",
    "LossScaler",
    "format_of",
    "gradient_exponents",
    "unscale_",
    "unscale_and_norm_",
    "update_scale_",
]
