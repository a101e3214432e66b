"""The losses of XGBoost's JSON models: their names, their parameters, base scores behind links."""

import torch

from tilewright.trees.json_reader import read_floats

# Ours: XGBoost's name, its parameters' place and name where it has one.
OBJECTIVES = {
    "squared_error": ("reg:squarederror", None, None),
    "absolute_error": ("reg:absoluteerror", None, None),
    "quantile": ("reg:quantileerror", "quantile_loss_param", "quantile_alpha"),
    "huber": ("reg:pseudohubererror", "pseudo_huber_param", "huber_slope"),
    "logistic": ("binary:logistic", None, None),
    "softmax": ("multi:softprob", None, None),
    "poisson": ("count:poisson", "poisson_regression_param", "max_delta_step"),
    "gamma": ("reg:gamma", None, None),
    "tweedie": ("reg:tweedie", "tweedie_regression_param", "tweedie_variance_power"),
    "lambdarank": ("rank:ndcg", "lambdarank_param", "lambdarank_num_pair_per_sample"),
}
READ = {names[0]: ours for ours, names in OBJECTIVES.items()} | {"multi:softmax": "softmax"}
LOGARITHMIC = ("poisson", "gamma", "tweedie")


def write_objective(ensemble):
    name, place, parameter = OBJECTIVES[ensemble.objective]
    objective = {"name": name}
    if ensemble.objective == "softmax":
        objective["softmax_multiclass_param"] = {"num_class": str(ensemble.base_score.numel())}
    elif place is not None:
        param = ensemble.objective_param
        text = f"[{param}]" if ensemble.objective == "quantile" else str(param)
        objective[place] = ensemble.parameters | {parameter: text}
    else:
        objective["reg_loss_param"] = {"scale_pos_weight": "1"}
    return objective


def read_objective(objective):
    """Of a Reader: our name, its parameter, XGBoost's parameters beside it."""
    name = objective["name"].text()
    if name not in READ:
        objective["name"].fail(f"must be one of {sorted(READ)}, got {name[:40]!r}")
    _, place, parameter = OBJECTIVES[READ[name]]
    if place is None:
        return READ[name], 0.0, {}
    param = read_floats(objective[place][parameter], (1,))[0].item()
    return READ[name], param, objective[place].value


def behind_link(ensemble):
    """The base score (K,) float64 as files have it."""
    base = ensemble.base_score.double()
    if ensemble.objective == "logistic":
        return base.sigmoid()
    if ensemble.objective in LOGARITHMIC:
        return base.exp()
    if ensemble.objective == "softmax" and ensemble.linear is not None:
        return torch.zeros_like(base)
    return base


def read_base_score(reader, objective, outputs, linear):
    """The inverse: (outputs,) float32, of a Reader."""
    base = read_floats(reader, (1, outputs)).expand(outputs)
    must = "lie within float32's range"
    if objective == "logistic":
        base, must = base.logit(), "lie between 0 and 1"
    elif objective in LOGARITHMIC:
        base, must = base.log(), "be positive"
    elif objective == "softmax" and linear is not None:
        base = torch.zeros_like(base)
    if not base.float().isfinite().all():
        reader.fail(f"must {must}")
    return base.float()
