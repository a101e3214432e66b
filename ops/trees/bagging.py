"""Bagging of any estimator: scikit-learn's, on tensors too."""

from sklearn import ensemble

from tilewright.trees.tensors import TensorMixin, as_array


class BaggingClassifier(TensorMixin, ensemble.BaggingClassifier):
    """Many classifiers, each fitted on rows drawn with replacement (Breiman 1996), who answer with
    the mean of their probabilities, or of their votes where they have none.

    ``sklearn.ensemble.BaggingClassifier`` with its parameters and attributes, whose X and y may be
    torch tensors: answers are tensors for tensors. ``estimator`` is any classifier, such as
    :class:`GradientBoostingClassifier` or :class:`TorchClassifier`; None: a full decision tree of
    scikit-learn. One whose ``fit`` takes weights sees all rows, weighted by how often each was
    drawn.

    Args:
        estimator, n_estimators: what is fitted, and how often.
        max_samples, max_features: how many rows and columns each gets: a count or a share.
        bootstrap, bootstrap_features: whether rows and columns are drawn with replacement.
        oob_score: whether to rate each row by the estimators that did not see it:
            ``oob_score_`` and ``oob_decision_function_`` (n_samples, n_classes).
        warm_start, n_jobs, random_state, verbose: as in scikit-learn.
    """

    def fit(self, X, y, sample_weight=None, **fit_params):
        """X (n_samples, n_features), y (n_samples,) of labels; tensors or what scikit-learn
        takes. Weights are the probabilities by which rows are drawn."""
        return super().fit(as_array(X), as_array(y), as_array(sample_weight), **fit_params)


class BaggingRegressor(TensorMixin, ensemble.BaggingRegressor):
    """Many regressors, each fitted on rows drawn with replacement, who answer with their mean.

    The parameters are those of :class:`BaggingClassifier`; with ``oob_score`` the out-of-bag means
    are ``oob_prediction_`` (n_samples,), and ``oob_score_`` is their R^2.
    """

    def fit(self, X, y, sample_weight=None, **fit_params):
        """X (n_samples, n_features), y (n_samples,); tensors or what scikit-learn takes. Weights
        are the probabilities by which rows are drawn."""
        return super().fit(as_array(X), as_array(y), as_array(sample_weight), **fit_params)
