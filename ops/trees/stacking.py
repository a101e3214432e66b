"""Stacking of any estimators: scikit-learn's, on tensors too."""

from sklearn import ensemble

from tilewright.trees.tensors import TensorMixin, as_array


class StackingClassifier(TensorMixin, ensemble.StackingClassifier):
    """A classifier that learns from what others answer (Wolpert 1992).

    ``sklearn.ensemble.StackingClassifier`` with its parameters and attributes, whose X and y may
    be torch tensors: answers are tensors for tensors. The last classifier is fitted on
    out-of-fold answers: those of estimators that were fitted without the row. Those in
    ``estimators_``, which answer later, are fitted on all rows.

    Args:
        estimators: pairs (name, estimator), such as ``("net", TorchClassifier())`` and
            ``("trees", GradientBoostingClassifier())``.
        final_estimator: None: scikit-learn's LogisticRegression.
        cv: folds: their number (None: 5, with the classes' shares), a splitter of scikit-learn, or
            "prefit": estimators that are fitted already, on other rows.
        stack_method: "auto": probabilities where an estimator has them (of two classes the
            second's), else ``decision_function``, else ``predict``; or one of these.
        passthrough: whether the last classifier sees X too.
        n_jobs, verbose: as in scikit-learn.
    """

    def fit(self, X, y, **fit_params):
        """X (n_samples, n_features), y (n_samples,) of labels; tensors or what scikit-learn takes.
        ``sample_weight`` is taken where all estimators take it."""
        return super().fit(as_array(X), as_array(y), **_arrays(fit_params))


class StackingRegressor(TensorMixin, ensemble.StackingRegressor):
    """A regressor that learns from what others answer, each row from estimators that were fitted
    without it.

    The parameters are those of :class:`StackingClassifier` without ``stack_method``;
    ``final_estimator=None`` is scikit-learn's RidgeCV.
    """

    def fit(self, X, y, **fit_params):
        """X (n_samples, n_features), y (n_samples,); tensors or what scikit-learn takes.
        ``sample_weight`` is taken where all estimators take it."""
        return super().fit(as_array(X), as_array(y), **_arrays(fit_params))


def _arrays(params):
    return {name: as_array(value) for name, value in params.items()}
