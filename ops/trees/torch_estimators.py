"""Torch modules as scikit-learn estimators, so that they take part in bagging and stacking."""

import contextlib
import math

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import nn

from tilewright.trees.inputs import tensor_of
from tilewright.trees.tensors import answer_like, as_array, table_of

ACCEPTED = {"dtype": [np.float64, np.float32]}
PREDICT_ROWS = 8192  # at a time, so that what layers keep stays small


def perceptron(n_features, n_outputs):
    """The default module: one hidden layer of 64."""
    return nn.Sequential(nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, n_outputs))


@contextlib.contextmanager
def _seeded(seed, device):
    """Draws inside come from `seed`; those outside do not notice."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class TorchEstimator(BaseEstimator):
    def __init__(
        self,
        module=None,
        *,
        loss=None,
        optimizer=torch.optim.Adam,
        lr=1e-2,
        epochs=50,
        batch_size=256,
        device=None,
        random_state=None,
    ):
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def _training_set(self, X, y, numeric):
        """X as a tensor, y as an array; remembers the features."""
        if not isinstance(X, torch.Tensor):
            X, y = validate_data(self, X, as_array(y), y_numeric=numeric, **ACCEPTED)
            return tensor_of(X), y
        X = self._tensor(X, reset=True)
        y = check_array(as_array(y), ensure_2d=False, dtype="numeric" if numeric else None)
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        return X, y

    def _features(self, X):
        """X for prediction, as a tensor."""
        if isinstance(X, torch.Tensor):
            return self._tensor(X, reset=False)
        return tensor_of(validate_data(self, X, reset=False, **ACCEPTED))

    def _tensor(self, x, reset):
        x = table_of(self, x, reset)
        if reset and x.numel() == 0:
            raise ValueError(f"X must not be empty, got {tuple(x.shape)}")
        if x.is_complex() or not x.isfinite().all():
            raise ValueError("X must hold finite real numbers")
        return x

    def _check_parameters(self):
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if int(value) != value or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if isinstance(self.module, nn.Module) or not callable(self.module or perceptron):
            raise ValueError(
                "module must be a function of (n_features, n_outputs) that makes a "
                f"torch.nn.Module, got a {type(self.module).__name__}"
            )
        if not callable(self.optimizer):
            raise ValueError(
                f"optimizer must be a class such as torch.optim.Adam, got {self.optimizer!r}"
            )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr!r}")

    def _fit(self, x, y, sample_weight, n_outputs):
        """x (n, F), y (n,): int64 of places in classes_, or floating."""
        self._check_parameters()
        device = torch.device(self.device) if self.device is not None else x.device
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        weight = None
        if sample_weight is not None:
            weight = torch.as_tensor(
                _check_sample_weight(
                    as_array(sample_weight),
                    np.empty(len(x)),
                    ensure_non_negative=True,
                    allow_all_zero_weights=False,
                )
            )
            kept = weight > 0
            x, y, weight = x[kept.to(x.device)], y[kept], weight[kept] / weight[kept].mean()
        with _seeded(seed, device):
            module = (self.module or perceptron)(self.n_features_in_, n_outputs)
            if not isinstance(module, nn.Module):
                raise ValueError(
                    "module must be a function of (n_features, n_outputs) that makes a "
                    f"torch.nn.Module, it made a {type(module).__name__}"
                )
            module = module.to(device)
            if self.module is None and x.dtype == torch.float64:
                module = module.double()
            x = x.to(device, _dtype(module))
            y = y.to(device, x.dtype if y.is_floating_point() else None)
            weight = torch.ones_like(x[:, 0]) if weight is None else weight.to(device, x.dtype)
            self.loss_curve_ = self._train(module, x, y, weight, n_outputs)
        self.n_iter_ = len(self.loss_curve_)
        self.module_ = module.eval()
        return self

    def _train(self, module, x, y, weight, n_outputs):
        """Changes the module; the mean loss of each epoch."""
        optimizer = self.optimizer(module.parameters(), lr=self.lr)
        loss, curve = self.loss or self._default_loss, []
        module.train()
        for epoch in range(int(self.epochs)):
            # Parts of one size: a last batch of one row would be an error of batch norms.
            order = torch.randperm(len(x)).to(x.device)
            total = torch.zeros((), dtype=torch.float64, device=x.device)
            for rows in order.tensor_split(math.ceil(len(x) / self.batch_size)):
                losses = loss(self._outputs(module, x[rows], n_outputs), y[rows])
                if losses.shape != rows.shape:
                    raise ValueError(
                        f"loss must return one number a row, ({len(rows)},), such as with "
                        f'reduction="none", got {tuple(losses.shape)}'
                    )
                weighted = losses * weight[rows]
                optimizer.zero_grad()
                weighted.mean().backward()
                optimizer.step()
                total += weighted.detach().sum()
            curve.append(total.item() / len(x))
            if not math.isfinite(curve[-1]):
                raise ValueError(
                    f"the loss became {curve[-1]} in epoch {epoch}: features and targets of a "
                    "smaller scale or a lower lr may help"
                )
        return curve

    def _outputs(self, module, x, n_outputs):
        """(n, n_outputs) for classes, (n,) for one number."""
        out = module(x)
        if n_outputs == 1 and out.shape == (len(x), 1):
            out = out[:, 0]
        expected = (len(x), n_outputs) if n_outputs > 1 else (len(x),)
        if out.shape != expected:
            raise ValueError(
                f"the module must return ({len(x)}, {n_outputs}) for {len(x)} rows, "
                f"got {tuple(out.shape)}"
            )
        return out

    def _evaluate(self, X, n_outputs):
        check_is_fitted(self, "module_")
        x = self._features(X)
        parameter = next(self.module_.parameters())
        with torch.no_grad():
            parts = [
                self._outputs(self.module_, part.to(parameter.device, parameter.dtype), n_outputs)
                for part in x.split(PREDICT_ROWS)
            ]
        return torch.cat(parts)


def _dtype(module):
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise ValueError("the module has no parameters, so that there is nothing to train")
    return parameter.dtype


class TorchClassifier(ClassifierMixin, TorchEstimator):
    """A torch module that is trained to tell classes, as an estimator that scikit-learn clones.

    X is (n_samples, n_features): a torch tensor or anything scikit-learn takes, without missing
    values. Layers learn best from features of about unit scale: scikit-learn's StandardScaler
    in a pipeline sees to that. Answers are tensors for tensors.

    Args:
        module: a function or class, ``module(n_features, n_outputs)`` -> nn.Module, whose outputs
            (n, n_outputs) are logits, one for each class; None: a layer of 64 with ReLU between two
            linear maps, in float64 where X is.
        loss: a function ``loss(outputs, y)`` -> (n,) of outputs (n, n_classes) and y (n,) int64,
            places in ``classes_``; None: cross entropy.
        optimizer: ``optimizer(parameters, lr=lr)``, such as a class of torch.optim or a
            functools.partial of one.
        lr: its step.
        epochs: how often all rows are seen.
        batch_size: at most so many rows make a step.
        device: where the module is trained and answers; None: where X is.
        random_state: a number makes weights, order and dropout the same each time. torch's own
            generators are left as they were.

    Attributes:
        module_: the trained module, in evaluation mode; export and scripting take it.
        classes_: (n_classes,)
        loss_curve_: the mean loss of each epoch.
        n_iter_: their number.
    """

    _default_loss = staticmethod(
        lambda out, y: nn.functional.cross_entropy(out, y, reduction="none")
    )

    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,) of labels. Weights multiply the losses; rows
        of weight 0 are left out."""
        x, labels = self._training_set(X, y, numeric=False)
        check_classification_targets(labels)
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least 2 classes, got 1 class: {self.classes_[0]!r}")
        return self._fit(x, torch.from_numpy(places), sample_weight, len(self.classes_))

    def predict_proba(self, X):
        """(n_samples, n_classes): the softmax of the outputs; a tensor for a tensor."""
        return _answer(X, self._logits(X).softmax(1))

    def predict(self, X):
        """(n_samples,) of ``classes_``; for a tensor of numbers a tensor."""
        best = as_array(self._logits(X).argmax(1))
        return answer_like(X, self.classes_[best])

    def _logits(self, X):
        check_is_fitted(self, "module_")
        return self._evaluate(X, len(self.classes_))


class TorchRegressor(RegressorMixin, TorchEstimator):
    """A torch module that is trained to predict numbers, as an estimator that scikit-learn clones.

    The parameters are those of :class:`TorchClassifier`, where ``n_outputs`` is 1; the default
    loss is the squared error. A target far from unit scale is scaled by scikit-learn's
    TransformedTargetRegressor.
    """

    _default_loss = staticmethod(lambda out, y: (out - y).square())

    def fit(self, X, y, sample_weight=None):
        """X (n_samples, n_features), y (n_samples,). Weights multiply the losses; rows of weight 0
        are left out."""
        x, targets = self._training_set(X, y, numeric=True)
        return self._fit(x, tensor_of(targets.astype(np.float64)), sample_weight, 1)

    def predict(self, X):
        """(n_samples,): a tensor for a tensor."""
        return _answer(X, self._evaluate(X, 1))


def _answer(X, out):
    return out.to(X.device) if isinstance(X, torch.Tensor) else as_array(out)
