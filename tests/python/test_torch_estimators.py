"""Torch modules as estimators: a step worked by hand, seeds, weights, what is refused."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from reference_trees import table
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from tilewright.trees import TorchClassifier, TorchRegressor

pytestmark = pytest.mark.usefixtures("one_thread")  # the modules are small


def from_zero(n_features, n_outputs):
    layer = nn.Linear(n_features, n_outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def with_norm(n_features, n_outputs):
    return nn.Sequential(
        nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_outputs)
    )


def test_a_step_worked_by_hand():
    # From 0: errors -1 and -3; the gradient of the mean square is 2 * mean(error * x), and
    # 2 * mean(error) of the bias.
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0])
    model = TorchRegressor(from_zero, optimizer=torch.optim.SGD, lr=0.1, epochs=1).fit(x, y)
    assert model.loss_curve_ == [5.0]
    assert model.module_.weight.item() == pytest.approx(0.1 * 2 * (1 + 6) / 2)
    assert model.module_.bias.item() == pytest.approx(0.1 * 2 * (1 + 3) / 2)
    assert model.predict(x).tolist() == pytest.approx([1.1, 1.8])
    # Weights 3 and 1, as if the first row were there three times.
    model.fit(x, y, sample_weight=torch.tensor([3, 1]))
    assert model.loss_curve_ == [3.0]
    assert model.module_.bias.item() == pytest.approx(0.1 * 2 * (3 + 3) / 4)


def test_a_step_of_classes_worked_by_hand():
    # From 0 all probabilities are 1/3; the gradient of cross entropy is p - y.
    x = torch.tensor([[2.0], [0.0], [0.0]])
    model = TorchClassifier(from_zero, optimizer=torch.optim.SGD, lr=3.0, epochs=1)
    model.fit(x, np.array(["b", "c", "a"]))
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.loss_curve_ == pytest.approx([np.log(3)])
    expected = torch.tensor([[-2 / 3], [4 / 3], [-2 / 3]])
    torch.testing.assert_close(model.module_.weight.detach(), expected)
    torch.testing.assert_close(model.predict_proba(x), (x @ expected.T).softmax(1))
    assert model.predict(x[:1]).tolist() == ["b"]


def test_it_learns():
    x, y = table(2100, 4)
    model = TorchRegressor(random_state=0).fit(x[:1000], y[:1000])
    assert model.score(x[1000:].numpy(), y[1000:].numpy()) > 0.8
    classes = (y > 0).long()
    model = TorchClassifier(random_state=0).fit(x[:1000], classes[:1000])
    assert (model.predict(x[1000:]) == classes[1000:]).float().mean() > 0.85
    assert len(model.loss_curve_) == model.n_iter_ == 50
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 2


@pytest.mark.parametrize("module", [None, with_norm])
def test_the_seed_decides_and_torchs_generator_is_left_alone(module):
    x, y = table(257, 4)  # no multiple of a batch
    make = partial(TorchRegressor, module, epochs=3, batch_size=64)
    before = torch.get_rng_state()
    first = make(random_state=1).fit(x, y).predict(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(clone(make(random_state=1)).fit(x, y).predict(x), first)
    assert not torch.equal(make(random_state=2).fit(x, y).predict(x), first)


def test_dtypes_and_answers():
    x, y = table(50, 4)
    labels = y > 0
    model = TorchClassifier(epochs=2).fit(x.double(), labels)
    assert next(model.module_.parameters()).dtype == torch.float64
    assert model.predict_proba(x).dtype == torch.float64
    assert model.predict(x).dtype == torch.bool
    model.fit(x.bfloat16(), labels.numpy())
    assert next(model.module_.parameters()).dtype == torch.float32
    answer = model.predict_proba(x.numpy())
    assert isinstance(answer, np.ndarray) and answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(1), 1, rtol=1e-6)
    assert model.predict_proba(x[:0]).shape == (0, 2)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x.numpy()), answer)
    assert TorchRegressor(from_zero, epochs=1).fit(x, y).predict(x.double()).dtype == torch.float32


def test_batches_are_of_one_size():
    sizes = []

    class Watch(nn.Linear):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return super().forward(x)

    x, y = table(65, 4)
    TorchRegressor(Watch, epochs=2, batch_size=16).fit(x, y)
    assert sizes == [13] * 10
    TorchRegressor(with_norm, epochs=1, batch_size=64).fit(x, y)  # 33 + 32, not 64 + 1


def test_losses_of_the_callers():
    x, y = table(200, 4)
    y[::10] += 1000.0
    robust = TorchRegressor(loss=lambda out, y: (out - y).abs(), random_state=0, epochs=100)
    assert (robust.fit(x, y).predict(x) - y).abs().median() < 1
    smooth = nn.CrossEntropyLoss(label_smoothing=0.5, reduction="none")
    x[:, 0] = x[:, 0].sign()
    model = clone(TorchClassifier(loss=smooth, random_state=0)).fit(x, x[:, 0])
    # Half of the label is shared by both classes: the best probability is 3/4.
    assert model.predict_proba(x).amax(1).median().item() == pytest.approx(0.75, abs=0.02)


def test_parameters_are_searched_as_of_any_estimator():
    x, y = table(120, 4)
    search = GridSearchCV(TorchRegressor(epochs=20, random_state=0), {"lr": [1e-6, 1e-2]}, cv=3)
    assert search.fit(x.numpy(), y.numpy()).best_params_ == {"lr": 1e-2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, got 2.5"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"loss": lambda out, y: (out - y).abs().mean()}, r"one number a row, \(20,\), .* \(\)"),
        ({"module": lambda f, k: nn.Linear(f, 2)}, r"return \(20, 1\) for 20 rows, got \(20, 2\)"),
        ({"module": lambda f, k: nn.ReLU()}, "the module has no parameters"),
        ({"lr": 1e30, "optimizer": torch.optim.SGD}, "the loss became (nan|inf) in epoch"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TorchRegressor(**options).fit(torch.randn(20, 3), torch.randn(20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), r"not be empty, got \(0, 3\)"),
        (lambda x, y: (x[:, 0], y), r"must have shape \(n_samples, n_features\)"),
        (lambda x, y: (x / 0, y), "X must hold finite real numbers"),
        (lambda x, y: (x, y[:-1]), "inconsistent numbers of samples"),
        (lambda x, y: (x, y * float("nan")), "NaN"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = change(torch.randn(20, 3), torch.randn(20))
    with pytest.raises(ValueError, match=message):
        TorchRegressor().fit(x, y)


def test_predicting_is_checked_too():
    with pytest.raises(NotFittedError):
        TorchClassifier().predict(torch.randn(2, 3))
    model = TorchRegressor(epochs=1).fit(torch.randn(20, 3), torch.randn(20))
    with pytest.raises(ValueError, match="X has 4 features, but TorchRegressor is expecting 3"):
        model.predict(torch.randn(2, 4))
    with pytest.raises(ValueError, match="at least 2 classes, got 1 class"):
        TorchClassifier().fit(torch.randn(20, 3), torch.zeros(20))


@parametrize_with_checks([TorchClassifier(), TorchRegressor()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
