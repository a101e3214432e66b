"""Forests: trees by definition, limits, thresholds, weights of classes, threads, warm starts."""

import pytest
import torch
from reference_forest import check_tree

from tilewright.trees import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

CLASSIFIERS = [RandomForestClassifier, ExtraTreesClassifier]
REGRESSORS = [RandomForestRegressor, ExtraTreesRegressor]


def table(rows=150, features=4, classes=3, values=12, missing=False):
    """Few different values, so that nothing is lost in bins: x, labels, values (rows, 2)."""
    x = torch.randint(0, values, (rows, features)).float()
    z = (x[:, 0] - 5).abs() + x[:, 1] * (x[:, 2] > 4) + torch.rand(rows) * 3
    labels = torch.bucketize(z, z.quantile(torch.linspace(0, 1, classes + 1)[1:-1]))
    if missing:
        x[torch.rand(x.shape) < 0.2] = float("nan")
    return x, labels, torch.stack([z, z.sin()], 1).double()


def whole(kind, **options):
    """One tree of all rows and features."""
    return kind(n_estimators=1, bootstrap=False, max_features=None, random_state=0, **options)


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", ["no", "whole", "shares"])
@pytest.mark.parametrize(
    ("missing", "least", "depth"), [(False, 1, None), (True, 1, None), (True, 4, 3)]
)
def test_a_tree_is_the_one_by_definition(criterion, classes, weighted, missing, least, depth):
    x, y, _ = table(80, classes=classes, missing=missing)
    w = {
        "no": torch.ones(80),
        "whole": torch.randint(0, 4, (80,)),
        "shares": torch.rand(80) + 0.01,
    }[weighted].double()
    model = whole(
        RandomForestClassifier, criterion=criterion, min_samples_leaf=least, max_depth=depth
    ).fit(x, y, sample_weight=None if weighted == "no" else w)
    assert check_tree(model.arrays_, x, y, w, criterion, least, depth) > 7


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("missing", "least"), [(False, 1), (True, 3)])
@pytest.mark.parametrize("max_bin", [255, 300])
def test_a_tree_of_values_is_the_one_by_definition(outputs, weighted, missing, least, max_bin):
    x, _, y = table(80, missing=missing)
    w = torch.rand(80).double() + 0.01 if weighted else torch.ones(80).double()
    y = y[:, :outputs]
    model = whole(RandomForestRegressor, min_samples_leaf=least, max_bin=max_bin)
    model.fit(x, y if outputs > 1 else y[:, 0], sample_weight=w if weighted else None)
    assert check_tree(model.arrays_, x, y, w, "squared_error", least) > 7


def test_classes_with_wide_codes():
    x, y, _ = table(120)
    for labels in (y, (y > 0).long()):
        for criterion in ("gini", "entropy"):
            model = whole(RandomForestClassifier, criterion=criterion, max_bin=5000)
            model.fit(x, labels)
            check_tree(model.arrays_, x, labels, torch.ones(120).double(), criterion)


def test_a_split_worked_by_hand():
    # Of 3 and 1 rows gini is 3/8; the split in the middle leaves (0, 1/2): 3/8 - 1/4 = 1/8.
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    model = whole(RandomForestClassifier, max_depth=1).fit(x, torch.tensor([0, 0, 1, 0]))
    assert model.arrays_["threshold"][0] == 1.5
    assert model.arrays_["gain"][0].item() == pytest.approx(1 / 8)
    assert model.arrays_["cover"].tolist() == [4, 2, 2]
    assert model.predict_proba(x).tolist() == [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]]
    # Entropy of (3/4, 1/4) is 0.8113 bits, half of which (1/2, 1/2) leaves: 0.3113.
    model = whole(RandomForestClassifier, max_depth=1, criterion="entropy")
    model.fit(x, torch.tensor([0, 0, 1, 0]))
    assert model.arrays_["gain"][0].item() == pytest.approx(0.311278, abs=1e-6)


def test_thresholds_lie_in_the_middle_of_what_a_node_holds():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])[[0, 5, 5, 0]]
    more = torch.cat([x, torch.tensor([[1.0], [2.0], [3.0], [4.0]])])
    w = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
    model = whole(RandomForestClassifier).fit(
        more, torch.tensor([0, 1, 1, 0, 1, 0, 1, 0]), sample_weight=w
    )
    assert model.arrays_["threshold"][0] == 2.5


@pytest.mark.parametrize("leaves", [2, 5, 9])
def test_the_best_leaf_splits_first(leaves):
    x, y, _ = table(200)
    few = whole(RandomForestClassifier, max_leaf_nodes=leaves).fit(x, y)
    full = whole(RandomForestClassifier).fit(x, y)
    assert (few.arrays_["left"] < 0).sum() == leaves
    # The splits that a full tree would take, greatest decrease first among those within reach.
    arrays, reach, expected = full.arrays_, [0], []
    for _ in range(leaves - 1):
        best = max(reach, key=lambda n: arrays["gain"][n].item())
        expected.append(arrays["gain"][best].item())
        reach.remove(best)
        for side in ("left", "right"):
            child = arrays[side][best].item()
            if arrays["left"][child] >= 0:
                reach.append(child)
    found = few.arrays_["gain"][few.arrays_["left"] >= 0]
    assert sorted(found.tolist()) == pytest.approx(sorted(expected), abs=1e-6)


def test_limits_of_leaves():
    x, y, z = table(200)
    shares = whole(RandomForestClassifier, min_weight_fraction_leaf=0.1).fit(x, y)
    leaf = shares.arrays_["left"] < 0
    assert shares.arrays_["cover"][leaf].min() >= 20
    assert leaf.sum() > 3
    model = whole(RandomForestRegressor, min_impurity_decrease=0.05).fit(x, z[:, 0])
    assert 0.05 <= model.arrays_["gain"][model.arrays_["left"] >= 0].min() < 0.5
    split = whole(RandomForestClassifier, min_samples_split=0.2).fit(x, y)
    assert split.arrays_["cover"][split.arrays_["left"] >= 0].min() >= 40


def test_features_are_drawn_until_one_varies():
    x = torch.zeros(60, 30)
    x[:, 17] = torch.arange(60).remainder(7)
    y = (x[:, 17] > 2).long()
    for kind in CLASSIFIERS:
        model = kind(n_estimators=5, max_features=1, random_state=0).fit(x, y)
        split = model.arrays_["left"] >= 0
        assert split.sum() >= 5
        assert (model.arrays_["feature"][split] == 17).all()
        assert model.feature_importances_[17] == 1


def test_nodes_draw_all_features_alike():
    x = torch.randn(400, 9)
    y = torch.randint(0, 2, (400,))
    model = RandomForestClassifier(n_estimators=300, max_features=1, max_depth=1).fit(x, y)
    counts = torch.bincount(model.arrays_["feature"][model.arrays_["left"] >= 0], minlength=9)
    # 33 expected, with a deviation of 5.4.
    assert counts.min() > 10
    assert counts.max() < 60


def test_random_thresholds_fill_the_range():
    # A tree's only split lies anywhere between 0 and 10, in proportion to the gaps.
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0]]).repeat(5, 1)
    y = torch.arange(20).float()
    model = ExtraTreesRegressor(n_estimators=2000, max_depth=1, random_state=1).fit(x, y)
    thresholds = model.arrays_["threshold"][model.arrays_["left"] >= 0]
    assert thresholds.unique().tolist() == [0.5, 1.5, 6.0]
    share = (thresholds == 6.0).float().mean().item()
    assert share == pytest.approx(0.8, abs=0.04)


def test_missing_values_beside_random_thresholds():
    x, y, _ = table(300, missing=True)
    model = ExtraTreesClassifier(n_estimators=30, random_state=0).fit(x, y)
    assert (model.predict(x) == y).float().mean() > 0.97
    all_missing = torch.full((20, 1), float("nan"))
    all_missing[:10] = 1.0
    one = ExtraTreesRegressor(n_estimators=1).fit(all_missing, torch.arange(20) // 10)
    assert one.predict(all_missing).tolist() == [0.0] * 10 + [1.0] * 10


def test_class_weights():
    x, y, _ = table(300, classes=2)
    rare = torch.cat([torch.arange(300)[y == 0][:15], torch.arange(300)[y == 1]])
    x, y = x[rare], y[rare]
    plain = RandomForestClassifier(n_estimators=40, max_depth=2, random_state=0).fit(x, y)
    shares = {}
    for weight in ("balanced", "balanced_subsample", {0: len(y) / 30, 1: len(y) / 300}):
        model = RandomForestClassifier(
            n_estimators=40, max_depth=2, class_weight=weight, random_state=0
        ).fit(x, y)
        shares[str(weight)] = model.predict_proba(x)[:, 0].mean().item()
    assert all(s > 2 * plain.predict_proba(x)[:, 0].mean().item() for s in shares.values())
    assert max(shares.values()) - min(shares.values()) < 0.1
    # Without bags both ways of balancing are the weights (n / (2 count)) themselves.
    w = torch.where(y == 0, len(y) / (2 * (y == 0).sum()), len(y) / (2 * (y == 1).sum())).double()
    one = whole(RandomForestClassifier, class_weight="balanced_subsample").fit(x, y)
    check_tree(one.arrays_, x, y, w, "gini")


@pytest.mark.parametrize("kind", CLASSIFIERS + REGRESSORS)
def test_the_number_of_threads_does_not_show(kind):
    x, y, _ = table(2000, 9, values=1000, missing=True)
    models = []
    for jobs in (1, 2, 3):
        model = kind(n_estimators=7, random_state=3, n_jobs=jobs)
        models.append(model.fit(x, y))
    for model in models[1:]:
        for name, array in models[0].arrays_.items():
            assert torch.equal(array, model.arrays_[name]), name
    assert not torch.equal(
        models[0].arrays_["feature"],
        kind(n_estimators=7, random_state=4).fit(x, y).arrays_["feature"],
    )


def test_one_tree_by_many_threads():
    """Few trees are grown by one thread each all the same: nothing but the index counts."""
    x, y, _ = table(3000, 9, values=1000)
    ten = RandomForestClassifier(n_estimators=10, random_state=3).fit(x, y)
    one = RandomForestClassifier(n_estimators=1, random_state=3).fit(x, y)
    nodes = one.arrays_["feature"].numel()
    assert torch.equal(ten.arrays_["feature"][:nodes], one.arrays_["feature"])


@pytest.mark.parametrize("kind", CLASSIFIERS + REGRESSORS)
def test_warm_start_grows_what_is_missing(kind):
    x, y, _ = table(200)
    fresh = kind(n_estimators=9, random_state=5).fit(x, y)
    model = kind(n_estimators=4, random_state=5, warm_start=True).fit(x, y)
    model.set_params(n_estimators=9).fit(x, y)
    assert torch.equal(model.arrays_["threshold"], fresh.arrays_["threshold"])
    torch.testing.assert_close(model.arrays_["value"], fresh.arrays_["value"])
    with pytest.warns(UserWarning, match="grows no new trees"):
        model.fit(x, y)
    with pytest.raises(ValueError, match="must be larger or equal to the 9 trees"):
        model.set_params(n_estimators=5).fit(x, y)
