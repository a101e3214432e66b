"""What judges representations: linear probe, nearest neighbours, the map; against scikit-learn's
own, and against what must hold."""

import sys

import numpy as np
import pytest
import torch

from tilewright.train import embedding_map, knn_accuracy, linear_probe, optional
from tilewright.train.representation import some_rows

pytest.importorskip("sklearn", reason="pip install scikit-learn")
pytestmark = pytest.mark.usefixtures("one_thread")


def clusters(n=60, spread=0.3, features=5, classes=3, seed=0):
    """Rows around a centre for each class, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(classes, features) * 2
    labels = torch.arange(n) % classes
    return centres[labels] + spread * torch.randn(n, features, generator=generator), labels


def test_classes_that_lie_apart_are_found():
    train, test = clusters(seed=0), clusters(30, seed=1)
    assert linear_probe(*train, *test) == 1.0
    assert linear_probe(*train, *test, per_class=2) > 0.9
    assert knn_accuracy(*train, *test) == 1.0
    shuffled = train[1][torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert linear_probe(train[0], shuffled, *test) < 0.7
    assert knn_accuracy(train[0], shuffled, *test) < 0.7


def test_the_probe_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = clusters(spread=1.5, seed=2), clusters(200, spread=1.5, seed=3)
    for penalty in (1.0, 30.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty))
        model.fit(train[0].double().numpy(), train[1].numpy())
        expected = model.score(test[0].double().numpy(), test[1].numpy())
        assert linear_probe(*train, *test, penalty=penalty) == pytest.approx(expected)


def test_scale_and_constant_features_do_not_matter():
    (x, labels), (y, others) = clusters(spread=1.5), clusters(90, spread=1.5, seed=1)
    scale = torch.tensor([1e-6, 1.0, 1e5, 3.0, 0.5])
    wide = [torch.cat([v * scale + 7, torch.full((len(v), 2), 0.1)], dim=1) for v in (x, y)]
    plain = linear_probe(x, labels, y, others)
    assert linear_probe(wide[0].double(), labels, wide[1].double(), others) == pytest.approx(
        plain, abs=0.03
    )
    nothing = torch.ones(60, 3), torch.ones(90, 3)
    assert linear_probe(nothing[0], labels, nothing[1], others) == pytest.approx(1 / 3)


def test_few_labels_are_the_same_for_all_features():
    """Classes that have fewer give all they have; each choice depends on the labels alone."""
    (x, labels), test = clusters(spread=1.2), clusters(90, spread=1.2, seed=1)
    one = linear_probe(x, labels, *test, per_class=3)
    assert one == linear_probe(x, labels, *test, per_class=3)
    assert one < linear_probe(x, labels, *test)
    assert linear_probe(x, labels, *test, per_class=20, draws=2) == pytest.approx(
        linear_probe(x, labels, *test), abs=0.012
    ), "20 of each class are all"


def test_neighbours_vote_and_sums_decide_ties():
    train = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    query = torch.tensor([[1.0, 0.01], [0.0, -5.0]])

    def accuracy(k, *expected):
        return knn_accuracy(train, labels, query, torch.tensor(expected), k)

    assert accuracy(1, 0, 0) == 1.0  # (0, -1): the first and the last are as near, 0.6 is not
    assert accuracy(2, 0, 0) == 1.0  # of one vote each the nearer
    assert accuracy(3, 1, 0) >= 0.5  # two votes against one
    longer = train * torch.tensor([[1.0], [50.0], [0.1], [1.0]])
    assert knn_accuracy(longer, labels, query[:1], labels[:1], 1) == 1.0, "lengths count nowhere"


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_map_keeps_classes_together(method):
    x, labels = clusters(60, spread=0.1)
    places = embedding_map(x, method)
    assert places.shape == (60, 2) and places.dtype == torch.float32
    assert torch.equal(places, embedding_map(x, method))
    distance = torch.cdist(places, places).fill_diagonal_(float("inf"))
    assert (labels[distance.argmin(1)] == labels).float().mean() > 0.95
    assert embedding_map(x[:3, :1], method).shape == (3, 2)


@pytest.mark.parametrize("judge", [linear_probe, knn_accuracy])
def test_what_does_not_fit(judge):
    (x, labels), (y, others) = clusters(12), clusters(9)
    nan = y.clone()
    nan[0, 0] = float("nan")
    for given, message in [
        ((x.numpy(), labels, y, others), "train_features must be a tensor, got ndarray"),
        ((x, labels, y, None), "test_labels must be a tensor, got NoneType"),
        ((x[0], labels, y, others), r"train_features must have shape \(N, F\), N > 0"),
        ((x.long(), labels, y, others), r"train_features .* be floating, got .*int64"),
        ((x, labels, y[:0], others[:0]), r"test_features must have .* got \(0, 5\)"),
        ((x, labels[1:], y, others), r"train_labels must have shape \(12,\)"),
        ((x, labels, y, others.int()), r"test_labels must .* int64, got .*int32"),
        ((x, labels, nan, others), "test_features must be finite"),
        ((x, labels, y[:, 1:], others), "test_features must have 5 columns, .* got 4"),
    ]:
        with pytest.raises(ValueError, match=f"tilewright::{judge.__name__}: {message}"):
            judge(*given)


def test_neighbours_of_large_labels():
    features = torch.eye(4)
    labels = torch.tensor([10**9, 7, 10**9, 7])
    assert knn_accuracy(features, labels, features, labels, k=1) == 1.0
    assert knn_accuracy(features, labels, features, labels + 1, k=1) == 0.0


def test_numbers_out_of_range():
    train, test = clusters(12), clusters(9)
    with pytest.raises(ValueError, match=r"k must be in \[1, 12\], got 13"):
        knn_accuracy(*train, *test, k=13)
    with pytest.raises(ValueError, match="two classes, got one"):
        linear_probe(train[0], torch.zeros(12, dtype=torch.int64), *test)
    for name in ("per_class", "draws", "penalty"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            linear_probe(*train, *test, **{name: 0})
    for name in ("per_class", "draws"):
        for value in (2.5, 3.0, "few", True):
            with pytest.raises(ValueError, match=f"{name} must be an integer, got {value!r}"):
                linear_probe(*train, *test, **{name: value})
    assert linear_probe(*train, *test, per_class=np.int64(2)) > 0.5
    with pytest.raises(ValueError, match=r"knn_accuracy: k must be an integer, got 2\.5"):
        knn_accuracy(*train, *test, k=2.5)
    with pytest.raises(ValueError, match="features must be a tensor, got ndarray"):
        embedding_map(train[0].numpy())
    with pytest.raises(ValueError, match="method must be 'tsne' or 'pca', got 'umap'"):
        embedding_map(train[0], "umap")
    with pytest.raises(ValueError, match=r"shape \(N, F\), N > 2"):
        embedding_map(train[0][:2])


def test_a_choice_of_rows_is_always_the_same():
    assert some_rows(5, 5).tolist() == [0, 1, 2, 3, 4]
    some = some_rows(100, 10)
    assert len(set(some.tolist())) == 10 and torch.equal(some, some_rows(100, 10))
    assert torch.equal(some, some.sort().values)


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    train, test = clusters(12), clusters(9)
    told = "the linear probe is scikit-learn.s, and sklearn.linear_model .*pip install matplotlib"
    with pytest.raises(ImportError, match=told):
        linear_probe(*train, *test)
    assert optional.required("math", "numbers").pi > 3
