"""Column roles: constructor parameters that name columns of X which are not features.

An estimator with, say, ``groups="school"`` reads the group of each row from the column
`school` of X and uses the other columns as features. The role travels inside X, so
that predict, Pipeline, scorers and cross-validation all see it.
"""

from itertools import pairwise
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils import get_tags
from sklearn.utils.validation import check_array, check_X_y, validate_data

# The longest list of column names that an error spells out.
_MAX_NAMES = 30
INTEGERS = "int", "uint"  # how the names of integer dtypes start


class SplitColumns(NamedTuple):
    """X taken apart into features and columns with a role.

    Attributes
    ----------
    features : array, sparse matrix or DataFrame
        X without the columns that have a role, in the container that X came in.

    values : dict of str to (None, ndarray of shape (n_samples,) or list of these)
        For each role: None if the parameter is None, the column if it names one, a
        list of columns if it is a sequence (of any length). Columns keep their dtype.

    kept : ndarray of int, or slice
        Positions of the features among the columns of X: ``feature_names_in_[kept]``
        are their names. ``slice(None)`` where no column has a role.
    """

    features: Any
    values: dict
    kept: np.ndarray | slice


def split_columns(X, roles, feature_names_in=None):
    """Take the columns that have a role out of X.

    Parameters
    ----------
    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_columns)
        pandas and polars frames, numpy arrays, scipy sparse matrices, or a list of
        rows. Without any role it is passed on as it is, unchecked.

    roles : dict of str to (None, str, int, or sequence of str and int)
        The value of each constructor parameter, by the parameter's name. A str is the
        name of a column; an int is its position, counted from the end if negative.

    feature_names_in : array-like of str, default=None
        Names to look up when X has none of its own: the names seen in fit. A model
        fitted on a DataFrame then predicts on a plain array, as scikit-learn's do.

    Returns
    -------
    split : SplitColumns
        The named tuple ``(features, values, kept)``.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvi.columns import split_columns
    >>> X = pd.DataFrame({"age": [9, 8, 9], "school": ["a", "b", "a"]})
    >>> features, values, kept = split_columns(X, {"groups": "school", "offset": None})
    >>> features
       age
    0    9
    1    8
    2    9
    >>> values["groups"].tolist(), values["offset"], kept.tolist()
    (['a', 'b', 'a'], None, [0])
    """
    values = dict.fromkeys(roles)
    named = {role: spec for role, spec in roles.items() if spec is not None}
    if not named:
        return SplitColumns(X, values, slice(None))

    X = _as_table(X, named)
    n_samples, n_columns = X.shape
    names = getattr(X, "columns", feature_names_in)
    names = None if names is None else list(names)
    holders = {}  # position -> the parameter that has taken it
    for role, spec in named.items():
        entries = _entries(role, spec)
        positions = [_position(role, e, names, n_columns, X) for e in entries]
        for entry, position in zip(entries, positions):
            if position in holders:
                raise ValueError(
                    f"{role}={spec!r}: column {entry!r} (position {position} of X) "
                    f"already stands in {holders[position]}; a column of X has one "
                    "role only, so name it once."
                )
            holders[position] = f"{role}={spec!r}"
        columns = [_column(X, position) for position in positions]
        values[role] = columns[0] if _names_one(spec) else columns

    kept = np.array([j for j in range(n_columns) if j not in holders], dtype=int)
    # A polars frame without columns has no rows either: an empty array has.
    features = _select(X, kept.tolist()) if len(kept) else np.empty((n_samples, 0))
    return SplitColumns(features, values, kept)


def validate_columns(
    estimator, X, y="no_validation", *, roles, reset=True, **check_params
):
    """Scikit-learn's ``validate_data`` for an estimator with column roles.

    The whole of X as a user passes it sets ``n_features_in_`` and
    ``feature_names_in_`` (`reset`) or must agree with them, with scikit-learn's own
    errors and warnings. Only the features are converted to numbers. In fit, nothing is
    set on the estimator unless every check has passed.

    Parameters
    ----------
    estimator : estimator
        Has an attribute of the name of each role.

    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_columns)
        Features, and the columns with a role.

    y : array-like, None or "no_validation", default="no_validation"
        As in :func:`sklearn.utils.validation.validate_data`.

    roles : sequence of str, or dict
        The constructor parameters that are column roles; a dict has their values, where
        a parameter says more than the names of columns.

    reset : bool, default=True
        True in fit and the first call of partial_fit, False elsewhere.

    **check_params : dict
        For :func:`~sklearn.utils.check_array`, or for
        :func:`~sklearn.utils.check_X_y` where y is given. An estimator that can do
        without any feature passes ``ensure_min_features=0``.

    Returns
    -------
    split : SplitColumns
        With validated features.

    y : ndarray or None
        The validated target; None where none was given.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.base import BaseEstimator
    >>> from skvi.columns import validate_columns
    >>> class Model(BaseEstimator):
    ...     def __init__(self, groups=None):
    ...         self.groups = groups
    >>> model = Model(groups="school")
    >>> X = pd.DataFrame({"age": [9, 8, 9], "school": ["a", "b", "a"]})
    >>> split, _ = validate_columns(model, X, roles=["groups"], dtype=float)
    >>> split.features.tolist()
    [[9.0], [8.0], [9.0]]
    >>> model.n_features_in_, model.feature_names_in_[split.kept].tolist()
    (2, ['age'])
    """
    specs = roles
    if not isinstance(roles, dict):
        specs = {role: getattr(estimator, role) for role in roles}
    names = None if reset else getattr(estimator, "feature_names_in_", None)
    check_params = {"estimator": estimator, **check_params}
    # A disagreement with fit is told before columns are looked up in the wrong X; with
    # nothing to look up, scikit-learn's order holds: the array first.
    agree_first = not reset and any(spec is not None for spec in specs.values())
    if agree_first:
        validate_data(estimator, X, y, reset=False, skip_check_array=True)
    split = split_columns(X, specs, names)
    y_may_lack = not get_tags(estimator).target_tags.required
    if isinstance(y, str) or (y is None and y_may_lack):
        y_checked = None
        features = check_array(split.features, input_name="X", **check_params)
    else:
        features, y_checked = check_X_y(split.features, y, **check_params)
    if not agree_first:
        validate_data(estimator, X, y, reset=reset, skip_check_array=True)
    return split._replace(features=features), y_checked


def feature_position(estimator, entry, parameter, kept):
    """Position among the features of a column that keeps its place there.

    Parameters
    ----------
    estimator : estimator
        That has seen X: its names, and how many columns it has.

    entry : str or int
        The column, by name or by its position in the whole of X.

    parameter : str
        The constructor parameter that named it, for the error.

    kept : ndarray of int, or slice
        Of ``SplitColumns``.

    Returns
    -------
    position : int
    """
    names = getattr(estimator, "feature_names_in_", None)
    names = None if names is None else list(names)
    n_columns = estimator.n_features_in_
    position = _position(parameter, entry, names, n_columns, np.empty(0))
    features = np.arange(n_columns)[kept].tolist()
    if position not in features:
        raise ValueError(
            f"{parameter} names column {entry!r} (position {position} of X), which has "
            "a role of its own and is no feature; name a feature."
        )
    return features.index(position)


def missing_ids(ids):
    """Which ids are missing: None, NaN, NaT or pandas.NA."""
    return _missing(np.asarray(ids))


def numeric_column(values, parameter, *, positive=False):
    """Convert a role's column to finite floats: an offset, or a positive exposure.

    Parameters
    ----------
    values : ndarray of shape (n_samples,)
        A column, of any dtype.

    parameter : str
        The constructor parameter that named it, for the error.

    positive : bool, default=False
        Whether numbers must be above zero.

    Returns
    -------
    numbers : ndarray of float of shape (n_samples,)

    Examples
    --------
    >>> from skvi.columns import numeric_column
    >>> numeric_column([1, 2, 4], "exposure", positive=True)
    array([1., 2., 4.])
    """
    kind = "finite positive numbers" if positive else "finite numbers"
    try:
        numbers = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{parameter} must name a column of {kind}, but its values are not "
            f"numbers ({error}); convert the column, or name another one."
        ) from error
    valid = np.isfinite(numbers) & (numbers > 0 if positive else True)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"{parameter} must name a column of {kind}, got {values[row]!r} at row "
            f"{row} (and {np.sum(~valid) - 1} more such rows); correct or drop them."
        )
    return numbers


def reject_missing(ids, parameter):
    """Raise an error if an id is missing: None, NaN, NaT or pandas.NA.

    Parameters
    ----------
    ids : ndarray of shape (n_samples,)
        A column of ids, of any dtype.

    parameter : str
        The constructor parameter that named it, for the error.
    """
    missing = _missing(np.asarray(ids))
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(
            f"{parameter} must name a column of ids without missing values, got "
            f"{ids[row]!r} at row {row} (and {missing.sum() - 1} more such rows); give "
            "these rows an id, or drop them."
        )


def sequence_ids(lengths):
    """Make an id for each row from the lengths of the sequences.

    Parameters
    ----------
    lengths : array-like of int of shape (n_sequences,)
        The number of rows of each sequence, in the order of the rows.

    Returns
    -------
    ids : ndarray of int of shape (sum(lengths),)
        0 for the rows of the first sequence, 1 for those of the second, and so on: a
        column for an estimator's parameter `sequence`.

    Examples
    --------
    >>> from skvi import sequence_ids
    >>> sequence_ids([2, 3])
    array([0, 0, 1, 1, 1])
    """
    counts = np.asarray(lengths)
    if counts.ndim != 1 or counts.size == 0 or counts.dtype.kind not in "iu":
        raise ValueError(
            f"lengths must be a sequence of positive integers, got {lengths!r}; give "
            "the number of rows of each sequence, such as [100, 250]."
        )
    if counts.min() < 1:
        position = int(np.argmax(counts < 1))
        raise ValueError(
            f"lengths must be positive integers, got {counts[position]} at position "
            f"{position}; leave out sequences without rows."
        )
    return np.repeat(np.arange(len(counts)), counts)


def sequence_bounds(ids, parameter="sequence"):
    """Find where sequences begin and end.

    Parameters
    ----------
    ids : array-like of shape (n_samples,)
        The id of the sequence of each row. Rows of a sequence stand together.

    parameter : str, default="sequence"
        The constructor parameter that named the column, for the errors.

    Returns
    -------
    bounds : ndarray of int of shape (n_sequences + 1,)
        Sequence i has rows ``bounds[i]`` to ``bounds[i + 1]``, the latter excluded.

    Examples
    --------
    >>> from skvi.columns import sequence_bounds
    >>> sequence_bounds(["b", "b", "a"])
    array([0, 2, 3])
    """
    ids = np.asarray(ids)
    reject_missing(ids, parameter)
    changes = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    starts = np.concatenate([np.zeros(min(len(ids), 1), dtype=int), changes])
    heads = ids[starts].tolist()
    if len(set(heads)) < len(heads):
        _raise_returning(heads, starts, parameter)
    return np.append(starts, len(ids))


def sequence_slices(ids, parameter="sequence"):
    """Find the rows of each sequence, as slices.

    Parameters
    ----------
    ids : array-like of shape (n_samples,)
        The id of the sequence of each row. Rows of a sequence stand together.

    parameter : str, default="sequence"
        The constructor parameter that named the column, for the errors.

    Returns
    -------
    slices : list of slice
        One for each sequence, in the order of the rows.

    Examples
    --------
    >>> from skvi.columns import sequence_slices
    >>> sequence_slices(["b", "b", "a"])
    [slice(0, 2, None), slice(2, 3, None)]
    """
    bounds = sequence_bounds(ids, parameter).tolist()
    return [slice(start, stop) for start, stop in pairwise(bounds)]


# Names and positions


def _names_one(spec):
    return isinstance(spec, str | Integral)


def _entries(role, spec):
    """The columns that a parameter names, as a list."""
    if _names_one(spec):
        return [spec]
    try:
        entries = list(spec)
    except TypeError:
        entries = [spec]  # _position refuses it
    if not entries:
        raise ValueError(
            f"{role}={spec!r} names no column; use {role}=None for no column."
        )
    return entries


def _position(role, entry, names, n_columns, X):
    """The position in X of one column given by name or index."""
    if isinstance(entry, str):
        return _position_of_name(role, entry, names, X)
    if isinstance(entry, bool | np.bool_) or not isinstance(entry, Integral):
        raise TypeError(
            f"{role} must be the name (str) or the index (int) of a column of X, or a "
            f"list of these, got {entry!r} of type {type(entry).__name__}."
        )
    if not -n_columns <= entry < n_columns:
        raise ValueError(
            f"{role}={entry} is out of range: X has {n_columns} columns; use an index "
            f"from 0 to {n_columns - 1}, or from {-n_columns} to -1 counted from the "
            "end."
        )
    return int(entry) % n_columns


def _position_of_name(role, name, names, X):
    if names is None:
        raise ValueError(
            f"{role}={name!r} names a column, but X ({type(X).__name__}) has no column "
            "names; give the column's index (int), or pass X as a pandas or polars "
            "DataFrame."
        )
    found = [
        j for j, seen in enumerate(names) if isinstance(seen, str) and seen == name
    ]
    if not found:
        shown = ", ".join(repr(seen) for seen in names[:_MAX_NAMES])
        if len(names) > _MAX_NAMES:
            shown += f", ... and {len(names) - _MAX_NAMES} more"
        raise ValueError(
            f"{role}={name!r} is not a column of X; the columns seen are {shown}."
        )
    if len(found) > 1:
        raise ValueError(
            f"{role}={name!r} is the name of {len(found)} columns of X (positions "
            f"{found}); give each column its own name."
        )
    return found[0]


# Containers


def _as_table(X, named):
    """X as something that `_select` can index by columns."""
    if sparse.issparse(X):
        # The other formats cannot be indexed.
        X = X if X.format in ("csr", "csc", "lil") else X.tocsr()
    elif not hasattr(X, "columns") and not isinstance(X, np.ndarray):
        # A list of rows may mix ids and numbers: object keeps each what it is.
        X = np.asarray(X, dtype=object)
    if len(X.shape) != 2:
        role, spec = next(iter(named.items()))
        raise ValueError(
            f"Expected 2D array, got {len(X.shape)}D array instead: {role}={spec!r} "
            "needs an X of shape (n_samples, n_columns)."
        )
    return X


def _select(X, positions):
    """The columns at these positions, or one column; X keeps its container."""
    return X.iloc[:, positions] if hasattr(X, "iloc") else X[:, positions]


def _column(X, position):
    """One column as a 1-D array of its own dtype, and a copy."""
    if sparse.issparse(X):
        return X[:, [position]].toarray().ravel()
    column = _select(X, position)
    values = np.array(column)
    if values.dtype.kind == "f" and str(column.dtype).lower().startswith(INTEGERS):
        # A missing value has made floats, which do not tell large integers apart.
        values = np.array(
            column.astype(object) if hasattr(column, "astype") else (column.to_list()),
            dtype=object,
        )
    return values


# Ids


def _missing(ids):
    if ids.dtype.kind == "O":
        return np.array([_is_missing(value) for value in ids], dtype=bool)
    # NaN and NaT differ from themselves; in other dtypes nothing does.
    return ids != ids


def _is_missing(value):
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA has no truth value
        return True


def _raise_returning(heads, starts, parameter):
    """Name the first id that comes back, and where."""
    seen = {}
    for run, head in enumerate(heads):
        if head in seen:
            first = seen[head]
            raise ValueError(
                f"{parameter}: id {head!r} comes back at row {starts[run]}, after "
                f"another one; it stood at rows {starts[first]} to "
                f"{starts[first + 1] - 1}. Sort X so that the rows of each sequence "
                "stand together, or give the later rows another id."
            )
        seen[head] = run
