"""Fitted trees that are packed once and predict as often as wanted: a mixin of the estimators."""

import torch
from sklearn.utils.validation import check_is_fitted

from tilewright.trees.inputs import dense_blocks


def check_trees(estimator, what, error=ValueError):
    """Says where nothing is fitted yet, and that a linear model has no ``what``."""
    if hasattr(estimator, "weight_"):
        raise error(
            f"{what} is of trees, which booster='gblinear' has none of; its model is in weight_, "
            "bias_ and base_score_"
        )
    check_is_fitted(estimator, "arrays_")


class ServingMixin:
    """Needs ``arrays_`` and ``n_features_in_`` of a fitted estimator, and ``_tree_module``."""

    def _tree_module(self):
        """The trees as an :class:`EnsembleModule`."""
        return self.to_module()

    def _served(self, table, call="predict"):
        """What the trees answer to a table, dense or torch's CSR: (N, K) float32. ``call``:
        "predict", or "scores" before the link."""
        answer = getattr(self._ensemble(), call)
        if table.layout == torch.strided:
            return answer(table)
        return torch.cat([answer(block) for block in dense_blocks(table)])

    def _ensemble(self):
        """The trees as a TreeEnsemble, packed once."""
        packed = self.__dict__.get("_packed")
        if packed is None or packed[0] != self._state_of_arrays():  # those who ask may change them
            return self._tree_module().to_ensemble(self.n_features_in_)
        return packed[1]

    def _state_of_arrays(self):
        return [(name, id(array), array._version) for name, array in self.arrays_.items()]

    def _pack(self):
        self._packed = None
        self._packed = self._state_of_arrays(), self._ensemble()

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_packed", None)  # torch's own files hold such objects, pickles do not
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if hasattr(self, "arrays_"):
            self._pack()
