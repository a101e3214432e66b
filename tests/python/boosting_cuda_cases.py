"""Fits that tests of machines compare; run as a program, it saves the CPU's to the file that it is
given."""

import sys

import torch

from tilewright.trees import GradientBoostingClassifier, GradientBoostingRegressor


def table(rows=400, features=5, missing=0.1, seed=0):
    """x (rows, features) with missing values, and a signal (rows,) that asks for its products."""
    g = torch.Generator().manual_seed(seed + rows)
    x = torch.randn(rows, features, generator=g)
    signal = x[:, 0] * x[:, 1] + torch.sin(3 * x[:, -1])
    signal += 0.2 * torch.randn(rows, generator=g)
    x[torch.rand(x.shape, generator=g) < missing] = float("nan")
    return x, signal


def options(**given):
    common = {"n_estimators": 4, "max_depth": 3, "max_bin": 32, "learning_rate": 0.3}
    return common | {"random_state": 3} | given


def found(model, x):
    """What a fit leaves, on the CPU."""
    kept = dict(model.arrays_) | {"base_score": model.base_score_}
    if isinstance(model, GradientBoostingClassifier):
        kept["predicted"] = model.predict_proba(x)
        kept["classes"] = model.predict(x)
    else:
        kept["predicted"] = model.predict(x)
    assert all(array.device.type == "cpu" for array in model.arrays_.values())
    assert kept["predicted"].device == x.device
    for s, values in enumerate(model.eval_history_):
        for name, by_round in values.items():
            kept[f"{name} of set {s}"] = torch.tensor(by_round)
    kept["rounds"] = torch.tensor(model.n_iter_)
    return {name: value.detach().cpu() for name, value in kept.items()}


def regression(device, rows=400, features=5, missing=0.1, weight=False, label=None, **given):
    x, y = (t.to(device) for t in table(rows, features, missing))
    y = y if label is None else label(y)
    weights = (torch.arange(rows, device=device) % 4).float() if weight else None
    return found(GradientBoostingRegressor(**options(**given)).fit(x, y, weights), x)


def classification(device, classes=2, **given):
    x, y = (t.to(device) for t in table())
    labels = (y > 0).long() if classes == 2 else (y > -0.5).long() + (y > 0.5)
    return found(GradientBoostingClassifier(**options(**given)).fit(x, labels), x)


def evaluated(device, **given):
    """Early stopping: labels of noise, which more trees do not learn."""
    x, y = (t.to(device) for t in table(500))
    labels = ((y > 0) ^ (torch.arange(500, device=device) % 3 == 0)).long()
    sets = [(x[:300], labels[:300]), (x[300:], labels[300:], y[300:].abs())]
    model = GradientBoostingClassifier(
        **options(n_estimators=25, learning_rate=0.8, early_stopping_rounds=2, **given),
        eval_metric=["auc", share_right, "error", "logloss"],
    )
    kept = found(model.fit(x[:300], labels[:300], eval_set=sets), x)
    assert kept["rounds"] < 23
    return kept


def share_right(y, predictions):
    return ((predictions > 0.5) == y).mean()


def continued(device, **given):
    """Two rounds, then two more; and as many after a model of the first."""
    x, y = (t.to(device) for t in table())
    first = GradientBoostingRegressor(**options(n_estimators=2, **given)).fit(x, y)
    other = GradientBoostingRegressor(**options(n_estimators=2, **given))
    other.fit(x, y, init_model=first)
    first.set_params(warm_start=True, n_estimators=4).fit(x, y)
    kept = found(first, x)
    if "booster" not in given:  # DART: to the rounding of scores
        assert all(torch.equal(kept[name], value) for name, value in found(other, x).items())
    return kept


def own_loss(scores, y):
    return torch.cosh(scores - y).log()


# Of the first ones every machine rounds gradients alike.
EXACT = {
    "squared error": lambda d: regression(d),
    "weights": lambda d: regression(d, weight=True, reg_alpha=0.3, reg_lambda=2.0),
    "nothing missing": lambda d: regression(d, missing=0.0, gamma=0.5, max_delta_step=0.4),
    "wide codes": lambda d: regression(d, max_bin=300, min_child_weight=3.0),
    "words": lambda d: regression(d, 33001, 2, max_depth=2, n_estimators=2),
    "words of some rows": lambda d: regression(d, 33001, 2, max_depth=2, subsample=0.4),
    "subsample": lambda d: regression(d, subsample=0.5),
    "hardly a row": lambda d: regression(d, subsample=1e-9),
    "colsample": lambda d: regression(d, colsample_bytree=0.5, subsample=0.8),
    "monotone": lambda d: regression(d, monotonic_cst=[1, -1, 0, 0, 1]),
    "goss": lambda d: regression(d, sampling_method="goss", top_rate=0.2, other_rate=0.3),
    "dart": lambda d: regression(d, booster="dart", rate_drop=0.6, n_estimators=6),
    "continued": continued,
    "continued with draws": lambda d: continued(d, subsample=0.6, colsample_bytree=0.6),
    "continued dart": lambda d: continued(d, booster="dart", rate_drop=0.9),
}
ROUNDED = {
    "logistic": lambda d: classification(d),
    "softmax": lambda d: classification(d, 3, colsample_bytree=0.7),
    "softmax with goss": lambda d: classification(d, 3, sampling_method="goss"),
    "balanced": lambda d: classification(d, 3, class_weight="balanced", subsample=0.7),
    "poisson": lambda d: regression(d, label=lambda y: y.exp().round(), loss="poisson"),
    "gamma": lambda d: regression(d, label=lambda y: y.exp(), loss="gamma"),
    "tweedie": lambda d: regression(d, label=torch.relu, loss="tweedie", alpha=1.5),
    "huber": lambda d: regression(d, loss="huber", weight=True),
    "a function": lambda d: regression(d, loss=own_loss),
    "a function, bounded": lambda d: regression(d, loss=own_loss, hessian=1.0),
    "early stopping": evaluated,
    "early stopping of dart": lambda d: evaluated(d, booster="dart", rate_drop=0.3),
}
CASES = EXACT | ROUNDED

if __name__ == "__main__":
    torch.save({name: fit("cpu") for name, fit in CASES.items()}, sys.argv[1])
