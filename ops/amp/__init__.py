"""Mixed precision: a loss scaler that never applies an update of inf or NaN, and what gradients
lose in narrow formats."""

from tilewright.amp.formats import FORMATS, FloatFormat, format_of
from tilewright.amp.loss_scale import LossScaleError
from tilewright.amp.loss_scaler import LossScaler
from tilewright.amp.master_weights import MasterWeights
from tilewright.amp.operators import (
    gradient_exponents,
    stochastic_round_,
    unscale_,
    unscale_and_norm_,
    update_scale_,
)
from tilewright.amp.report import GradientReport, LayerReport, report

__all__ = [
    "FORMATS",
    "FloatFormat",
    "GradientReport",
    "LayerReport",
    "LossScaleError",
    "LossScaler",
    "MasterWeights",
    "format_of",
    "gradient_exponents",
    "report",
    "stochastic_round_",
    "unscale_",
    "unscale_and_norm_",
    "update_scale_",
]
