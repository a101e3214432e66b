"""Torch tensors in and out of estimators: the rules that all of them share, and a mixin for
scikit-learn's own ensembles, which know arrays alone."""

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.metaestimators import available_if


def as_array(value):
    """A tensor as an array (on the CPU without a copy; 16-bit floats as float32), a sparse one as
    scipy's CSR; else `value`."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    if value.layout != torch.strided:
        entries = value.to_sparse_coo().coalesce()
        return sparse.csr_array(
            (as_array(entries.values()), entries.indices().numpy()), shape=tuple(value.shape)
        )
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def on_cpu(x):
    """A tensor on the CPU; else `x`."""
    return x.cpu() if isinstance(x, torch.Tensor) else x


def table_of(estimator, x, reset):
    """A tensor X as it is, without its graph; its features are remembered or checked."""
    if x.is_complex():
        raise ValueError(f"X must hold real numbers, got {x.dtype}")
    if x.dim() != 2:
        raise ValueError(f"X must have shape (n_samples, n_features), got {tuple(x.shape)}")
    if reset:
        estimator.n_features_in_ = x.shape[1]
        estimator.__dict__.pop("feature_names_in_", None)  # of a data frame before
    elif x.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {x.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return x.detach()


def like_input(found, x):
    """A tensor of answers: as it is for a tensor, else a float64 array."""
    return found if isinstance(x, torch.Tensor) else found.numpy().astype(np.float64)


def class_of(found, classes, x):
    """The classes of the greatest columns of `found`: for a tensor of numbers a tensor."""
    best = found.argmax(1)
    if isinstance(x, torch.Tensor) and classes.dtype.kind in "biuf":
        return torch.from_numpy(classes).to(best.device)[best]
    return classes[as_array(best)]


def answer_like(x, answer):
    """An array of numbers as a tensor where `x` is one, on its device: floats in float64 if `x`
    is, else in float32. Other answers stay."""
    if not (isinstance(x, torch.Tensor) and isinstance(answer, np.ndarray)):
        return answer
    if answer.dtype.kind not in "biuf":
        return answer
    out = torch.from_numpy(np.ascontiguousarray(answer))
    if out.is_floating_point():
        out = out.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    return out.to(x.device)


def _inherits(name):
    """Available where the next class has the method; its own AttributeError says why it has not."""

    def check(self):
        getattr(super(TensorMixin, self), name)
        return True

    return available_if(check)


class TensorMixin:
    """Stands before one of scikit-learn's classes: its methods take tensors as well."""

    @_inherits("predict")
    def predict(self, X, **params):
        """(n_samples,): of a classifier ``classes_``. A tensor of numbers for a tensor."""
        return answer_like(X, super().predict(as_array(X), **params))

    @_inherits("predict_proba")
    def predict_proba(self, X, **params):
        """(n_samples, n_classes): a tensor for a tensor."""
        return answer_like(X, super().predict_proba(as_array(X), **params))

    @_inherits("predict_log_proba")
    def predict_log_proba(self, X, **params):
        """(n_samples, n_classes): a tensor for a tensor."""
        return answer_like(X, super().predict_log_proba(as_array(X), **params))

    @_inherits("decision_function")
    def decision_function(self, X, **params):
        """(n_samples,) or (n_samples, n_classes): a tensor for a tensor."""
        return answer_like(X, super().decision_function(as_array(X), **params))

    @_inherits("transform")
    def transform(self, X):
        """What the estimators of the first layer answer, a column or more each."""
        return answer_like(X, super().transform(as_array(X)))

    def score(self, X, y, sample_weight=None):
        """The share of right answers, or of a regressor R^2: a float."""
        return super().score(as_array(X), as_array(y), as_array(sample_weight))
