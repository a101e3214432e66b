"""Columns that hold categories: which they are, what of them training knew, data frames' own."""

import numpy as np
import torch

from tilewright.trees.inputs import columns_of


def _is_frame(x):
    return hasattr(x, "dtypes") and hasattr(x, "columns")


def _category_columns(frame):
    return [i for i, kind in enumerate(frame.dtypes) if str(kind) == "category"]


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse_strings(frame, known):
    """A column that holds a string that is no number, other than those whose categories are
    known."""
    for i, kind in enumerate(frame.dtypes):
        name = frame.columns[i]
        if str(kind) not in ("object", "str", "string") or name in known:
            continue
        for value in frame.iloc[:, i]:
            if isinstance(value, str) and not _is_number(value):
                raise ValueError(
                    f"column {name!r} holds strings such as {value!r}: make it numbers, or "
                    "categories by astype('category')"
                )


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
    if given.dtype == object:  # such as an index of names
        given = np.asarray(given.tolist())
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
        if not _is_frame(x):
            return x
        columns = _category_columns(x)
        names = [x.columns[i] for i in columns]
        if reset:
            self._frame_columns = tuple(columns)
            if columns:
                self.categories_ = {name: list(x[name].cat.categories) for name in names}
        known = getattr(self, "categories_", {})
        _refuse_strings(x, known)
        # A column that held categories in fit holds the same ones, whatever its dtype now.
        names += [name for name in known if name in x.columns and name not in names]
        if names:
            x = x.copy(deep=False)
        for name in names:
            x[name] = self._codes(x[name], name)
        return x

    def _forget_inputs(self):
        """What an earlier fit, or file, knew of its columns."""
        for name in ("feature_names_in_", "categories_", "category_counts_", "is_categorical_"):
            self.__dict__.pop(name, None)
        self.__dict__.pop("_frame_columns", None)

    def _codes(self, column, name):
        known = getattr(self, "categories_", {}).get(name)
        if known is None:
            raise ValueError(f"column {name!r} holds categories, but held numbers in fit")
        places = {value: float(i) for i, value in enumerate(known)}
        values = column.astype(object)
        codes = values.map(places).to_numpy(dtype=np.float64, na_value=np.nan)
        unknown = np.isnan(codes) & ~column.isna().to_numpy()
        if unknown.any():
            row = int(np.flatnonzero(unknown)[0])
            raise ValueError(
                f"column {name!r}: {values.iloc[row]!r} in row {row} is no category that fit knew"
            )
        return codes

    def _mark_categorical(self):
        """The mask for training, once ``n_features_in_`` is known."""
        self.is_categorical_ = categorical_mask(
            self.categorical_features,
            self.n_features_in_,
            getattr(self, "feature_names_in_", None),
            getattr(self, "_frame_columns", ()),
        )
        marked = (
            np.zeros(0) if self.is_categorical_ is None else np.flatnonzero(self.is_categorical_)
        )
        left_out = set(getattr(self, "_frame_columns", ())) - set(marked.tolist())
        if left_out:
            names = list(self.categories_)
            raise ValueError(
                f"columns {names} hold categories: say categorical_features='from_dtype', or name "
                "them all"
            )
        return self.is_categorical_

    def _check_categories(self, table):
        """What prediction is asked for: categories that training knew."""
        counts = getattr(self, "category_counts_", None)
        if counts is None:
            return
        columns = list(counts)
        values_of = columns_of(table, columns).double()
        for column, count in counts.items():
            values = values_of[:, columns.index(column)]
            known = (values >= 0) & (values < count) & (values == values.floor())
            bad = ~(known | values.isnan())
            if bad.any():
                row = int(torch.nonzero(bad)[0, 0])
                raise ValueError(
                    f"column {column} holds categories, whole numbers from 0 to {count - 1} or "
                    f"NaN: that of row {row} is {values[row].item()}"
                )
