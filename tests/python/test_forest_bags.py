"""The bags of forests: how many rows are drawn, in which proportion, and what is left out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score
from test_forest import table

from tilewright.trees import RandomForestClassifier, RandomForestRegressor


def bags(model, rows):
    """How often each tree of a fitted model counts each row, from the root's cover alone."""
    return model.arrays_["cover"][model.arrays_["tree_ptr"][:-1]]


def test_bags_hold_as_many_rows_as_are_drawn():
    x, y, _ = table(300)
    assert (bags(RandomForestClassifier(n_estimators=9).fit(x, y), 300) == 300).all()
    for share in (77, 77 / 300 + 1e-6):
        model = RandomForestClassifier(n_estimators=9, max_samples=share).fit(x, y)
        assert (bags(model, 300) == 77).all()


def test_out_of_bag_by_definition():
    # Each tree is grown to single rows, so that a row is in the bag where its tree knows its value.
    rows = 40
    x = torch.arange(rows).float()[:, None]
    y = torch.randperm(rows).double() ** 2
    model = RandomForestRegressor(n_estimators=60, oob_score=True, random_state=0).fit(x, y)
    whole_arrays, trees = model.arrays_, 60
    expected, asked = torch.zeros(rows).double(), torch.zeros(rows)
    pointers = whole_arrays["tree_ptr"]
    in_bag_share = []
    for t in range(trees):
        answer = answers_of(whole_arrays, pointers[t].item(), x) * trees
        out = (answer - y).abs() > 1e-3 * y.abs() + 1e-3
        in_bag_share.append(1 - out.float().mean().item())
        expected[out] += answer[out]
        asked[out] += 1
    # 1 - 1/e
    assert np.mean(in_bag_share) == pytest.approx(0.632, abs=0.03)
    np.testing.assert_allclose(model.oob_prediction_, (expected / asked).numpy(), rtol=1e-4)
    assert model.oob_score_ == pytest.approx(r2_score(y, model.oob_prediction_))


def answers_of(arrays, first, x):
    """The leaf values of one tree, row by row."""
    out = []
    for row in x:
        node = first
        while arrays["left"][node] >= 0:
            left = row[arrays["feature"][node]] < arrays["threshold"][node]
            node = first + arrays["left" if left else "right"][node].item()
        out.append(arrays["value"][node].double())
    return torch.stack(out)


def test_out_of_bag_scores():
    x, y, _ = table(400)
    model = RandomForestClassifier(n_estimators=80, oob_score=True, random_state=0)
    model.fit(x[:300], y[:300])
    assert model.oob_decision_function_.shape == (300, 3)
    np.testing.assert_allclose(model.oob_decision_function_.sum(1), 1, rtol=1e-6)
    best = model.classes_[model.oob_decision_function_.argmax(1)]
    assert model.oob_score_ == accuracy_score(y[:300], best)
    assert model.oob_score_ == pytest.approx(
        (model.predict(x[300:]) == y[300:]).float().mean().item(), abs=0.12
    )
    with pytest.warns(UserWarning, match="Some inputs do not have OOB scores"):
        RandomForestClassifier(n_estimators=2, oob_score=True).fit(x, y)
    errors = RandomForestClassifier(
        n_estimators=50, oob_score=lambda truth, found: float((truth != found).mean())
    ).fit(x, y)
    assert 0 < errors.oob_score_ < 0.7


def test_rows_are_drawn_in_proportion_to_their_weight():
    x = torch.arange(4).float()[:, None]
    w = torch.tensor([1.0, 0.0, 3.0, 4.0])
    model = RandomForestRegressor(n_estimators=4000, random_state=0)
    model.fit(x, torch.eye(4), sample_weight=w)
    # The mean of means: what the trees' roots hold. Depth 0 is not offered, so predict far off.
    deep = RandomForestRegressor(n_estimators=4000, min_samples_leaf=4, random_state=0)
    deep.fit(x, torch.eye(4), sample_weight=w)
    assert deep.predict(x)[0].tolist() == pytest.approx([1 / 8, 0, 3 / 8, 4 / 8], abs=0.02)
    assert (model.arrays_["threshold"] != 0.5).all()  # a row of weight 0 is nowhere
