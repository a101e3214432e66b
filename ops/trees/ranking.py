"""Learning to rank with scikit-learn's parameter names."""

from warnings import warn

import numpy as np
import torch

from tilewright._C import ndcg
from tilewright.trees.base import GradientBoostingBase
from tilewright.trees.inputs import tensor_of
from tilewright.trees.parameters import unchanged_on_failure, with_parameters_of
from tilewright.trees.tensors import as_array, like_input

EVERY_PAIR = 2**31 - 1  # what a file says where pairs are not truncated


class GradientBoostingRanker(GradientBoostingBase):
    """Boosted trees that order the rows of each query: LambdaRank on NDCG (Burges 2010).

    y holds relevances, not negative. Rows of one query stand together; ``group`` of ``fit`` lists
    how many rows each has, or ``qid`` says for each row which query it is of; neither: all rows are
    one query. Gradients are XGBoost's of ``rank:ndcg``.

    Args:
        truncation: pairs have one of the first so many rows of a query, as the trees so far order
            them; None: all pairs.
        ndcg_exp_gain: a relevance y gains 2**y - 1 (y at most 31), else y.
        normalize: gradients are divided by the distance of a pair's scores, and a query's scaled by
            log2(1 + sum) / sum.
        at: places of a query that count in ``score`` and in early stopping; None: all in ``score``,
            ``truncation`` in early stopping.

    The other parameters are those of :class:`GradientBoostingRegressor` without ``loss``, ``alpha``
    and ``hessian``. Weights are of queries: rows of one may count more only together.
    """

    _link = "identity"

    @with_parameters_of(GradientBoostingBase)
    def __init__(self, *, truncation=32, ndcg_exp_gain=True, normalize=True, at=None, **common):
        super().__init__(**common)
        self.truncation = truncation
        self.ndcg_exp_gain = ndcg_exp_gain
        self.normalize = normalize
        self.at = at

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.one_d_labels = True
        tags.target_tags.positive_only = True
        return tags

    def _objective(self):
        return "lambdarank", self.truncation or EVERY_PAIR

    def _attributes(self):
        return {}

    def _parameters(self):
        flag = "1" if self.normalize else "0"
        return {
            "lambdarank_pair_method": "topk",
            "lambdarank_normalization": flag,
            "lambdarank_score_normalization": flag,
            "lambdarank_unbiased": "0",
            "ndcg_exp_gain": "1" if self.ndcg_exp_gain else "0",
        }

    def _take(self, model):
        if model.objective != "lambdarank":
            raise ValueError(f"a model of {model.objective} is no ranker's")
        pairs = int(model.objective_param)
        self.truncation = None if pairs >= EVERY_PAIR else pairs
        self.ndcg_exp_gain = model.parameters.get("ndcg_exp_gain", "1") == "1"
        self.normalize = model.parameters.get("lambdarank_normalization", "1") == "1"

    @unchanged_on_failure
    def fit(
        self,
        X,
        y,
        group=None,
        qid=None,
        query_weight=None,
        eval_set=None,
        eval_group=None,
        eval_qid=None,
        init_model=None,
    ):
        """X (n_samples, n_features), y (n_samples,), group (n_queries,) or qid (n_samples,),
        query_weight (n_queries,); ``eval_set`` is (X, y), (X, y, query_weight) or a list of such,
        ``eval_group`` and ``eval_qid`` likewise; ``n_estimators`` rounds are added to those of
        ``init_model``, a fitted estimator or the path of a saved one."""
        start = self._start(init_model)
        features, labels, _ = self._training_set(X, y, None, numeric=True, reset=start is not self)
        sizes = sizes_of(group, qid)
        if sizes is None:
            warn(
                f"neither group nor qid is given: all {len(labels)} rows are one query",
                stacklevel=3,
            )
        weight = self._weights(query_weight, len(labels), sizes)
        options = self._options() | {
            "objective": "lambdarank",
            "truncation": self.truncation or 0,
            "exp_gain": bool(self.ndcg_exp_gain),
            "normalize": bool(self.normalize),
        }
        training = (features, _relevances(labels), weight, sizes)
        single = eval_set is None or isinstance(eval_set, tuple)
        groups, qids = (
            [given] if single and given is not None else given for given in (eval_group, eval_qid)
        )
        if groups is not None and qids is not None:
            raise ValueError("eval_group and eval_qid say the same: give one of them")
        if groups is not None:
            eval_sizes = [sizes_of(one, None) for one in groups]
        else:
            eval_sizes = None if qids is None else [sizes_of(None, one) for one in qids]
        return self._fit(options, training, eval_set, _relevances, start, eval_sizes)

    def _weights(self, query_weight, rows, sizes=None):
        """Of rows, from those of queries."""
        if query_weight is None:
            return None
        sizes = torch.tensor([rows]) if sizes is None else sizes
        return super()._weights(query_weight, len(sizes)).repeat_interleave(sizes)

    def _metrics(self):
        if self.eval_metric is None and self.at is not None:
            return [f"ndcg@{self.at}"]
        return super()._metrics()

    def predict(self, X):
        """(n_samples,) scores, by which rows of a query are ordered, the greatest first: a float32
        tensor for a tensor, else a float64 array."""
        return like_input(self._predictions(X)[:, 0], X)

    def score(self, X, y, group=None, qid=None, query_weight=None):
        """The mean over queries of NDCG at ``at``; 1 for a query without a relevant row."""
        scores = self._predictions(X)[:, 0].cpu().contiguous()
        labels = _relevances(y)
        if labels.shape != scores.shape:
            raise ValueError(f"y must have shape {tuple(scores.shape)}, got {tuple(labels.shape)}")
        sizes = sizes_of(group, qid)
        if sizes is None:
            sizes = torch.tensor([len(labels)])
        if sizes.sum() != len(labels) or (sizes < 1).any():
            raise ValueError(
                f"group must add up to {len(labels)} rows in queries of at least 1, "
                f"got {int(sizes.sum())} rows"
            )
        queries = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        weight = self._weights(query_weight, len(labels), sizes)
        return ndcg(scores, labels, weight, queries, self.at or 0, bool(self.ndcg_exp_gain))


def sizes_of(group, qid):
    """How many rows each query has, (n_queries,) int64, from sizes or from each row's query; None
    where neither is given."""
    if group is not None and qid is not None:
        raise ValueError("group and qid say the same: give one of them")
    if group is not None:
        sizes = np.asarray(group)
        if sizes.dtype.kind not in "iu" or sizes.ndim != 1:
            raise ValueError(f"group must be integers of shape (n_queries,), got {sizes!r:.80}")
        return torch.from_numpy(sizes.astype(np.int64))
    if qid is None:
        return None
    ids = np.asarray(qid)
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"qid must have shape (n_samples,), got {ids.shape}")
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    _, first = np.unique(ids[starts], return_index=True)
    if len(first) < len(starts):
        again = np.setdiff1d(np.arange(len(starts)), first)[0]
        raise ValueError(
            f"rows of a query must stand together; query {ids[starts[again]]} comes again at row "
            f"{starts[again]}"
        )
    return torch.from_numpy(np.diff(np.append(starts, len(ids))).astype(np.int64))


def _relevances(y):
    return tensor_of(np.asarray(as_array(y))).float().contiguous()
