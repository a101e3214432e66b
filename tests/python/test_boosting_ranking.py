"""Learning to rank: lambdas and NDCG by hand and by definition, queries, threads, files."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from tilewright._C import lambdarank_gradients, ndcg
from tilewright.trees import GradientBoostingRanker, GradientBoostingRegressor


def queries_of(sizes):
    return torch.tensor([0, *np.cumsum(sizes)])


def ranking(queries=120, seed=0):
    """Queries of 1 to 30 rows, relevances 0 to 4: X, y, sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 31, queries)
    x = rng.standard_normal((sizes.sum(), 6)).astype(np.float32)
    offset = np.repeat(rng.standard_normal(queries) * 2, sizes)  # says nothing about the order
    x[:, 5] += offset
    hidden = x[:, 0] + np.sin(2 * x[:, 1]) + x[:, 2] * (x[:, 3] > 0)
    hidden += 0.5 * rng.standard_normal(len(x))
    return x, np.digitize(hidden, [-1.0, 0.0, 1.0, 2.0]).astype(np.float32), sizes


def test_lambdas_by_hand():
    labels = torch.tensor([2.0, 1.0, 0.0])
    g, h = lambdarank_gradients(torch.zeros(3), labels, queries_of([3]), 0, True, False)
    # Gains 3, 1, 0; discounts 1, 1 / log2(3), 1 / 2; the best order's gain 3 + 1 / log2(3).
    second = 1 / math.log2(3)
    best = 3 + second
    top, ends, low = 2 * (1 - second) / best, 3 * 0.5 / best, (second - 0.5) / best
    # All p are a half: gradients are halves of the changes, hessians 2 / 4 of them.
    assert g[0].tolist() == pytest.approx([-(top + ends) / 2, (top - low) / 2, (ends + low) / 2])
    assert h[0].tolist() == pytest.approx([(top + ends) / 2, (top + low) / 2, (ends + low) / 2])
    # The sum of lambdas, twice, is top + ends + low.
    sum_ = top + ends + low
    scaled, _ = lambdarank_gradients(torch.zeros(3), labels, queries_of([3]), 0, True, True)
    torch.testing.assert_close(scaled, g * math.log2(1 + sum_) / sum_)
    # Pairs of the first place alone.
    first, _ = lambdarank_gradients(torch.zeros(3), labels, queries_of([3]), 1, True, False)
    best = 3
    assert first[0].tolist() == pytest.approx(
        [-(2 * (1 - second) + 1.5) / best / 2, (1 - second) / best, 0.25]
    )


def lambdas_by_definition(scores, labels, sizes, truncation, exp_gain, normalize):
    g, h = np.zeros(len(labels)), np.zeros(len(labels))
    begin = 0
    for size in sizes:
        s, y = scores[begin : begin + size], labels[begin : begin + size]
        gain = 2**y - 1 if exp_gain else y
        place = np.empty(size, dtype=int)
        place[np.argsort(-s, kind="stable")] = np.arange(size)
        top = truncation or size
        best = (np.sort(gain)[::-1][:top] / np.log2(np.arange(2, size + 2))[:top]).sum()
        sum_ = 0.0
        own_g, own_h = g[begin : begin + size], h[begin : begin + size]
        begin += size
        for i in range(size):
            for j in range(size):
                if y[i] <= y[j] or min(place[i], place[j]) >= top:
                    continue
                discounts = 1 / np.log2(place[[i, j]] + 2.0)
                change = (gain[i] - gain[j]) * abs(discounts[0] - discounts[1]) / best
                if normalize and s.max() != s.min():
                    change /= abs(s[i] - s[j]) + 0.01
                p = 1 / (1 + np.exp(s[j] - s[i]))
                own_g[i] -= (1 - p) * change
                own_g[j] += (1 - p) * change
                own_h[i] += 2 * p * (1 - p) * change
                own_h[j] += 2 * p * (1 - p) * change
                sum_ += 2 * (1 - p) * change
        if normalize and sum_ > 0:
            own_g *= np.log2(1 + sum_) / sum_
            own_h *= np.log2(1 + sum_) / sum_
    return g, h


@pytest.mark.parametrize("truncation", [0, 1, 7])
@pytest.mark.parametrize("exp_gain", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_lambdas_are_those_by_definition(truncation, exp_gain, normalize):
    _, y, sizes = ranking(20)
    scores = torch.randn(len(y)).round(decimals=1)  # some are equal
    options = (truncation, exp_gain, normalize)
    g, h = lambdarank_gradients(scores, torch.from_numpy(y), queries_of(sizes), *options)
    expected = lambdas_by_definition(scores.double().numpy(), y.astype(np.float64), sizes, *options)
    np.testing.assert_allclose(g[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(h[0], expected[1], atol=1e-12)


def test_ndcg_by_hand_and_by_scikit_learn():
    # Of the order 1, 3, 0: 1 + 7 / log2(3), of the best one 7 + 1 / log2(3).
    y = torch.tensor([3.0, 1.0, 0.0])
    score = ndcg(torch.tensor([0.2, 0.9, 0.1]), y, None, queries_of([3]), 0, True)
    second = 1 / math.log2(3)
    assert score == pytest.approx((1 + 7 * second) / (7 + second))
    assert ndcg(torch.tensor([0.2, 0.9, 0.1]), y, None, queries_of([3]), 1, True) == pytest.approx(
        1 / 7
    )
    assert ndcg(torch.randn(4), torch.zeros(4), None, queries_of([1, 3]), 0, True) == 1
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 5, (9, 11)).astype(np.float32), rng.random((9, 11))
    for k in (3, 11):
        found = ndcg(
            torch.from_numpy(scores.ravel()),
            torch.from_numpy(labels.ravel()),
            None,
            queries_of([11] * 9),
            k,
            False,
        )
        assert found == pytest.approx(ndcg_score(labels, scores, k=k), abs=1e-6)
    weight = torch.tensor([3.0, 3.0, 1.0, 0.0])
    mixed = ndcg(
        torch.tensor([1.0, 0.0, 0.0, 1.0]),
        torch.tensor([0.0, 1.0, 0.0, 1.0]),
        weight,
        queries_of([2, 2]),
        0,
        True,
    )
    assert mixed == pytest.approx((3 * second + 0.5) / 3.5)


def test_it_learns_the_order_within_queries():
    x, y, sizes = ranking(200)
    test_x, test_y, test_sizes = ranking(100, seed=1)
    model = GradientBoostingRanker(n_estimators=60, max_depth=4, at=10, early_stopping_rounds=60)
    model.fit(x, y, group=sizes, eval_set=(test_x, test_y), eval_group=test_sizes)
    assert model.evals_result_[model.n_iter_ - 1] == max(model.evals_result_)
    assert list(model.eval_history_[0]) == ["ndcg@10"]
    score = model.score(test_x, test_y, group=test_sizes)
    assert score == pytest.approx(max(model.evals_result_), abs=1e-6)
    random = ndcg(
        torch.rand(len(test_y)), torch.from_numpy(test_y), None, queries_of(test_sizes), 10, True
    )
    assert score > random + 0.5 * (1 - random)
    plain = GradientBoostingRegressor(n_estimators=60, max_depth=4).fit(x, y)
    by_regression = ndcg(
        torch.from_numpy(plain.predict(test_x)).float(),
        torch.from_numpy(test_y),
        None,
        queries_of(test_sizes),
        10,
        True,
    )
    assert score > by_regression - 0.02


def test_sizes_and_ids_of_queries_are_the_same():
    x, y, sizes = ranking(40)
    qid = np.repeat(np.random.default_rng(0).permutation(40) * 7, sizes)
    by_size = GradientBoostingRanker(n_estimators=4).fit(
        x, y, group=sizes, eval_set=[(x, y)], eval_group=[sizes]
    )
    by_id = GradientBoostingRanker(n_estimators=4).fit(
        x, y, qid=torch.from_numpy(qid), eval_set=(x, y), eval_qid=qid
    )
    assert (by_size.predict(x) == by_id.predict(x)).all()
    assert by_size.evals_result_ == by_id.evals_result_
    assert by_size.score(x, y, group=sizes) == by_id.score(x, y, qid=qid)


def test_weights_are_of_queries():
    x, y, sizes = ranking(40)
    weight = np.arange(40) % 3
    rows = np.split(np.arange(len(x)), np.cumsum(sizes)[:-1])
    again = np.repeat(np.arange(40), weight)
    index = np.concatenate([rows[q] for q in again])
    model = GradientBoostingRanker(n_estimators=4)
    model.fit(x, y, group=sizes, query_weight=weight, eval_set=(x, y, weight), eval_group=sizes)
    other = GradientBoostingRanker(n_estimators=4)
    other.fit(x[index], y[index], group=sizes[again], eval_set=(x, y), eval_group=sizes)
    np.testing.assert_allclose(model.predict(x), other.predict(x), atol=1e-4)
    score = model.score(x, y, group=sizes, query_weight=weight)
    assert score == pytest.approx(model.score(x[index], y[index], group=sizes[again]), abs=1e-6)
    assert model.evals_result_[-1] == pytest.approx(score, abs=1e-2)
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(x, y, group=sizes, query_weight=np.ones(len(x)))


@pytest.mark.parametrize("queries", [150, 2400])  # exact pairs, words
def test_the_number_of_threads_does_not_show(queries):
    x, y, sizes = ranking(queries)
    models, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        models.append(GradientBoostingRanker(n_estimators=4).fit(x, y, group=sizes))
    torch.set_num_threads(before)
    for model in models[1:]:
        for name, array in models[0].arrays_.items():
            assert torch.equal(array, model.arrays_[name]), name


def test_files(tmp_path):
    x, y, sizes = ranking(40)
    path = tmp_path / "m.json"
    model = GradientBoostingRanker(
        n_estimators=5, truncation=9, ndcg_exp_gain=False, normalize=False
    ).fit(x, y, group=sizes)
    model.save_model(path)
    objective = json.loads(path.read_text())["learner"]["objective"]
    assert objective["name"] == "rank:ndcg"
    again = GradientBoostingRanker().load_model(path)
    assert (again.predict(x) == model.predict(x)).all()
    assert (again.truncation, again.ndcg_exp_gain, again.normalize) == (9, False, False)
    with pytest.raises(ValueError, match="a model of lambdarank is no regressor's"):
        GradientBoostingRegressor().load_model(path)
    GradientBoostingRegressor(n_estimators=1).fit(x, y).save_model(path)
    with pytest.raises(ValueError, match="a model of squared_error is no ranker's"):
        GradientBoostingRanker().load_model(path)
    GradientBoostingRanker(truncation=None, n_estimators=1).fit(x, y).save_model(path)
    assert GradientBoostingRanker().load_model(path).truncation is None


def test_xgboost_ranks_the_same(tmp_path):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, y, sizes = ranking(300)
    test_x, test_y, test_sizes = ranking(200, seed=1)
    model = GradientBoostingRanker(n_estimators=50, max_depth=4).fit(x, y, group=sizes)
    model.save_model(tmp_path / "m.json")
    theirs = xgboost.Booster(model_file=tmp_path / "m.json").predict(xgboost.DMatrix(x))
    ours = model.predict(x)
    np.testing.assert_allclose(theirs, ours, atol=1e-6 * np.abs(ours).max())
    data = xgboost.DMatrix(x, y)
    data.set_group(sizes)
    options = {"objective": "rank:ndcg", "max_depth": 4, "eta": 0.1, "base_score": 0.0}
    booster = xgboost.train(options, data, 50)
    booster.save_model(tmp_path / "x.json")
    loaded = GradientBoostingRanker().load_model(tmp_path / "x.json")
    theirs = booster.predict(xgboost.DMatrix(test_x))
    np.testing.assert_allclose(loaded.predict(test_x), theirs, atol=1e-6 * np.abs(theirs).max())
    ours, theirs = (m.score(test_x, test_y, group=test_sizes) for m in (model, loaded))
    assert ours > theirs - 0.01


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group": [10, 9]}, r"group must add up to 20 rows, got 19"),
        ({"group": [10, 11]}, r"group must add up to 20 rows .* query 1 has 11, which leaves 10"),
        ({"group": [20, 0]}, r"query 1 has 0, which leaves 0"),
        ({"group": [10.0, 10.0]}, r"group must be integers of shape \(n_queries,\)"),
        ({"qid": [1] * 5 + [2] * 5 + [1] * 10}, "query 1 comes again at row 10"),
        ({"qid": [1] * 20, "group": [20]}, "group and qid say the same"),
        ({"qid": [1] * 19}, "group must add up to 20 rows, got 19"),
    ],
)
def test_what_is_no_query(given, message):
    x, y = torch.randn(20, 3), torch.arange(20) % 3
    with pytest.raises((ValueError, RuntimeError), match=message):
        GradientBoostingRanker(n_estimators=1).fit(x, y, **given)
    model = GradientBoostingRanker(n_estimators=1).fit(x, y)
    with pytest.raises(ValueError):
        model.score(x, y, **given)


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        (-1.0, {}, "y must not be negative nor, .* greater than 31; that of row 3 is -1"),
        (32.0, {}, "greater than 31; that of row 3 is 32"),
        (-1.0, {"ndcg_exp_gain": False}, "y must not be negative; that of row 3 is -1"),
        (float("nan"), {}, "y must be finite; that of row 3 is nan"),
        (0.0, {"truncation": -1}, "truncation must not be negative, got -1"),
    ],
)
def test_what_is_no_relevance(label, options, message):
    x, y = torch.randn(20, 3), torch.arange(20).float() % 3
    y[3] = label
    with pytest.raises(RuntimeError, match=message):
        GradientBoostingRanker(n_estimators=1, **options).fit(x, y)


def test_queries_without_an_order_teach_nothing():
    x = torch.randn(20, 3)
    model = GradientBoostingRanker(n_estimators=2).fit(x, torch.ones(20), group=[1] * 5 + [15])
    assert (model.predict(x) == 0).all()
    assert model.score(x, torch.ones(20)) == 1


@parametrize_with_checks([GradientBoostingRanker()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
