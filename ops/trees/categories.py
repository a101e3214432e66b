"""Columns that hold categories: which they are, what of them training knew, data frames' own."""

import numpy as np
import torch


def _is_frame(x):
    return hasattr(x, "dtypes") and hasattr(x, "columns")


def _category_columns(frame):
    return [i for i, kind in enumerate(frame.dtypes) if str(kind) == "category"]


def categorical_mask(wanted, features, names=None, frame_columns=()):
    """(features,) bool, or None where no column holds categories.

    ``wanted`` is None, "from_dtype" (the columns of dtype category of a data frame), a mask, or a
    list of positions or of names."""
    if wanted is None:
        return None
    mask = np.zeros(features, dtype=bool)
    if isinstance(wanted, str):
        if wanted != "from_dtype":
            raise ValueError(
                "categorical_features must be None, 'from_dtype', a mask, or a list of columns, "
                f"got {wanted!r}"
            )
        mask[list(frame_columns)] = True
        return mask if mask.any() else None
    given = np.asarray(wanted)
    if given.dtype == bool:
        if given.shape != (features,):
            raise ValueError(
                f"categorical_features as a mask must have shape ({features},), got {given.shape}"
            )
        mask = given.copy()
    elif given.dtype.kind in "US":
        known = [] if names is None else list(names)
        for name in given.tolist():
            if name not in known:
                raise ValueError(f"categorical_features names {name!r}, which X does not have")
            mask[known.index(name)] = True
    elif given.size and (
        given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= features
    ):
        raise ValueError(
            f"categorical_features must be positions from 0 to {features - 1}, got {given.tolist()}"
        )
    elif given.size:
        mask[given] = True
    return mask if mask.any() else None


class CategoricalMixin:
    """For estimators with ``categorical_features``; sets ``is_categorical_`` (features,) or None
    and, of data frames, ``categories_``: the categories of a column by its name."""

    def _encoded(self, x, reset):
        """A data frame with its categories as numbers; anything else as it is."""
        if reset:
            self.__dict__.pop("categories_", None)
            self.__dict__.pop("category_counts_", None)
        columns = _category_columns(x) if _is_frame(x) else []
        if reset and self.categorical_features == "from_dtype":
            self._frame_columns = tuple(columns)
        if not columns:
            return x
        if reset:
            self.categories_ = {x.columns[i]: list(x.iloc[:, i].cat.categories) for i in columns}
        x = x.copy(deep=False)
        for name in [x.columns[i] for i in columns]:
            x[name] = self._codes(x[name], name)
        return x

    def _codes(self, column, name):
        known = getattr(self, "categories_", {}).get(name)
        if known is None:
            raise ValueError(f"column {name!r} holds categories, but held numbers in fit")
        values = column.astype(object)
        places = {value: float(i) for i, value in enumerate(known)}
        missing = column.isna().to_numpy()
        out = np.full(len(column), np.nan)
        for row, value in enumerate(values):
            if missing[row]:
                continue
            if value not in places:
                raise ValueError(
                    f"column {name!r}: {value!r} in row {row} is no category that fit knew"
                )
            out[row] = places[value]
        return out

    def _mark_categorical(self):
        """The mask for training, once ``n_features_in_`` is known."""
        self.is_categorical_ = categorical_mask(
            self.categorical_features,
            self.n_features_in_,
            getattr(self, "feature_names_in_", None),
            getattr(self, "_frame_columns", ()),
        )
        if self.is_categorical_ is None and hasattr(self, "categories_"):
            raise ValueError(
                f"columns {list(self.categories_)} hold categories: say "
                "categorical_features='from_dtype'"
            )
        return self.is_categorical_

    def _check_categories(self, table):
        """What prediction is asked for: categories that training knew."""
        counts = getattr(self, "category_counts_", None)
        if counts is None:
            return
        for column, count in counts.items():
            values = table[:, column].double()
            known = (values >= 0) & (values < count) & (values == values.floor())
            bad = ~(known | values.isnan())
            if bad.any():
                row = int(torch.nonzero(bad)[0, 0])
                raise ValueError(
                    f"column {column} holds categories, whole numbers from 0 to {count - 1} or "
                    f"NaN: that of row {row} is {values[row].item()}"
                )
