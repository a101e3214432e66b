"""What features add to predictions: a mixin of the estimators."""

import torch

from tilewright.trees.serving import check_trees
from tilewright.trees.tensors import like_input

ORDER = ("feature", "threshold", "left", "right", "default_left")
ORDER += ("value", "cover", "tree_ptr", "tree_output")


class ExplainMixin:
    """Needs ``arrays_``, ``base_score_`` and ``_features`` of a fitted estimator."""

    def shap_values(self, X):
        """What each feature adds to each row's raw score: exact, path-dependent TreeSHAP
        (arXiv:1802.03888), as xgboost's ``pred_contribs=True``.

        Scores are those before the link: log-odds, logarithms of means, one of each class for
        softmax; of forests the mean itself or the classes' shares, of AdaBoost their votes.

        Args:
            X: (n_samples, n_features), as ``predict`` takes it.

        Returns:
            (n_samples, n_features + 1), or (n_samples, n_outputs, n_features + 1) for more than one
            score: one for each class (but boosting scores the second of two alone), each of a
            forest's values. A float32 tensor for a tensor, else a float64 array. The last column is
            the expected score, the base score included; a row adds up to its score.
        """
        found = self._explain(torch.ops.tilewright.tree_shap, X)
        found[:, :, -1] += self.base_score_
        return _like(X, found)

    def shap_interaction_values(self, X):
        """What each pair of features adds to each row's raw score beyond what each adds alone, as
        xgboost's ``pred_interactions=True``.

        Args:
            X: (n_samples, n_features), as ``predict`` takes it.

        Returns:
            (n_samples, n_features + 1, n_features + 1), or (n_samples, n_outputs, n_features + 1,
            n_features + 1): symmetric, each pair's value halved between its two places. Rows add up
            to :meth:`shap_values`.
        """
        found = self._explain(torch.ops.tilewright.tree_shap_interactions, X)
        found[:, :, -1, -1] += self.base_score_
        return _like(X, found)

    def _explain(self, operator, x):
        check_trees(self, "TreeSHAP")
        if self.arrays_.get("cover") is None:
            raise ValueError("SHAP values need the cover of each node, which this model lacks")
        features = self._features(x)
        if features.device.type != "cpu":
            raise ValueError(
                f"SHAP values are computed on the CPU, got X on {features.device}; use X.cpu()"
            )
        return operator(
            features,
            *(self.arrays_[name] for name in ORDER),
            self.base_score_.numel(),
            self.arrays_.get("category_ptr"),
            self.arrays_.get("categories"),
        )


def _like(x, found):
    """Without the dimension of outputs where there is one; a tensor for a tensor."""
    if found.shape[1] == 1:
        found = found[:, 0]
    return like_input(found, x)
