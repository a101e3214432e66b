"""Files of xgboost 3.2, one of each kind (seeds/), and what reading says of damaged ones."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tilewright.trees import (
    GradientBoostingClassifier,
    GradientBoostingRanker,
    GradientBoostingRegressor,
)

SEEDS = sorted((Path(__file__).parent / "seeds").glob("xgboost_*.json"))
KINDS = {
    "binary": GradientBoostingClassifier,
    "softmax": GradientBoostingClassifier,
    "ranking": GradientBoostingRanker,
}
WRONG = [
    -1,
    1e400,
    99999999999,
    2**31,
    "x",
    "",
    [],
    {},
    None,
    True,
    0.5,
    0,
    [0] * 3,
    "-1",
    "1e9",
    "--5",
    "5-",
]
BYTES = ["-1", "1e400", "99999999999", '"x"', "[]", "{}", "null", "true", "0.5", "", "\x00"]


def loaded(seed, path):
    kind = KINDS.get(seed.stem.removeprefix("xgboost_"), GradientBoostingRegressor)
    return kind().load_model(path)


def table(features, rows=30):
    x = np.random.default_rng(1).normal(size=(rows, features)).astype(np.float32)
    x[::7, 0] = np.nan
    if features == 4:  # the last column of the seed with categories
        x[:, 3] = np.arange(rows) % 6
    return x


def places(value, path=()):
    """Where the values of a document stand, containers too."""
    yield path
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        yield from places(child, (*path, key))


def with_values(text, rng):
    """The document with one to three values that are something else, or missing."""
    document = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        *path, last = rng.choice(list(places(document))[1:])
        place = document
        for key in path:
            place = place[key]
        if rng.random() < 0.2:
            del place[last]
        else:
            place[last] = rng.choice(WRONG)
    return json.dumps(document)


def with_bytes(text, rng):
    """The text with other characters at one to three places, or its beginning alone."""
    broken = list(text)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(broken))
        broken[place : place + rng.randint(0, 6)] = rng.choice(BYTES)
    return "".join(broken[: rng.randrange(len(broken))] if rng.random() < 0.1 else broken)


def test_there_are_seeds():
    assert len(SEEDS) == 9


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.stem)
def test_seeds_predict_what_xgboost_predicts(seed):
    xgboost = pytest.importorskip("xgboost")
    model = loaded(seed, seed)
    x = table(model.n_features_in_)
    theirs = xgboost.Booster(model_file=str(seed))
    kinds = ["float"] * 3 + ["c"] if model.n_features_in_ == 4 else None
    expected = theirs.predict(
        xgboost.DMatrix(x, feature_types=kinds, enable_categorical=kinds is not None)
    )
    found = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
    if found.ndim > expected.ndim:
        found = found[:, 1]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("damage", [with_values, with_bytes])
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.stem)
def test_damaged_files_are_errors_or_models(seed, damage, tmp_path):
    rng = random.Random(seed.stem)
    text, path = seed.read_text(), tmp_path / "model.json"
    refused = 0
    for _ in range(150):
        path.write_text(broken := damage(text, rng))
        try:
            model = loaded(seed, path)
        except ValueError as error:
            assert str(error), broken
            refused += 1
            continue
        x = np.zeros((3, min(model.n_features_in_, 100)), np.float32)
        if x.shape[1] < model.n_features_in_:
            continue
        answer = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
        assert not np.isnan(answer).any(), broken
    assert refused > 30
