"""Grouping factors: which columns hold them, and codes of their levels."""

import numpy as np

from skvi.columns import feature_position, missing_ids
from skvi.linalg import GroupedRows


def entries_of(groups):
    """The factors that ``groups`` names: a list of columns, or tuples of columns."""
    if groups is None:
        return []
    entries = groups if isinstance(groups, list) else [groups]
    if not entries:
        raise ValueError("groups=[] names no column; use groups=None for no factor.")
    for k, entry in enumerate(entries):
        if isinstance(entry, tuple) and len(set(entry)) < max(2, len(entry)):
            raise ValueError(
                f"groups={groups!r}: {entry!r} must name two columns or more, each "
                "once; their combinations are the levels."
            )
        columns = set(entry) if isinstance(entry, tuple) else {entry}
        if any(
            columns == (set(other) if isinstance(other, tuple) else {other})
            for other in entries[:k]
        ):
            raise ValueError(
                f"groups={groups!r} names {entry!r} twice: name each factor once."
            )
    return entries


def columns_of(groups):
    """The columns that ``groups`` needs, each once; None for none."""
    seen = {}
    for entry in entries_of(groups):
        for column in entry if isinstance(entry, tuple) else (entry,):
            seen[column] = None
    return list(seen) or None


def factor_names(entries, feature_names, n_columns):
    """A str for each factor."""

    def name(column):
        if isinstance(column, str):
            return column
        if feature_names is not None:
            return str(feature_names[column])
        return f"x{column % n_columns}"

    names = [
        ":".join(map(name, e)) if isinstance(e, tuple) else name(e) for e in entries
    ]
    if len(set(names)) < len(names):
        raise ValueError(
            f"groups={entries!r} makes factors of equal names, {names}: rename a "
            "column, or name each factor once."
        )
    return names


def factor_values(entries, columns, values):
    """Each factor's column of ids, from the columns that were split off."""
    by_column = {} if columns is None else dict(zip(columns, values))
    out = []
    for entry in entries:
        if not isinstance(entry, tuple):
            out.append(by_column[entry])
            continue
        parts = [_plain(by_column[column]) for column in entry]
        ids = np.empty(len(parts[0]), dtype=object)
        ids[:] = list(zip(*parts))
        out.append(ids)
    return out


def _plain(ids):
    """Ids as Python objects, missing ones None."""
    out = _keys(np.asarray(ids))
    missing = missing_ids(ids)
    return [None if absent else value for value, absent in zip(out, missing)]


def levels_of(ids):
    """Sorted distinct ids; a missing one last, as None."""
    ids = np.asarray(ids)
    missing = missing_ids(ids)
    if ids.dtype.kind != "O":
        levels = np.unique(ids[~missing])
    else:
        try:
            levels = _sorted(set(ids[~missing].tolist()))
        except TypeError as error:
            raise ValueError(
                "groups must name columns of ids such as numbers or strings, but a "
                f"column holds values that cannot be compared ({error}); convert it."
            ) from error
    if not missing.any():
        return levels
    out = np.empty(len(levels) + 1, dtype=object)
    out[:-1] = _keys(levels)
    return out


def _sorted(values):
    out = np.empty(len(values), dtype=object)
    try:
        out[:] = sorted(values)
    except TypeError:  # of several types, or holding None
        out[:] = sorted(values, key=lambda v: (type(v).__name__, repr(v)))
    return out


def codes_of(ids, levels):
    """Position of each id among the levels; -1 where it is none of them."""
    ids = np.asarray(ids)
    if len(levels) == 0:
        return np.full(len(ids), -1)
    if ids.dtype.kind != "O" and levels.dtype.kind != "O":
        same = ids.dtype.kind == levels.dtype.kind
        if same or {ids.dtype.kind, levels.dtype.kind} <= set("iufb"):
            at = np.minimum(np.searchsorted(levels, ids), len(levels) - 1)
            return np.where(levels[at] == ids, at, -1)
    known = {value: code for code, value in enumerate(_keys(levels))}
    missing = missing_ids(ids)
    keys = _keys(ids)
    codes = [
        known.get(None if absent else key, -1) for key, absent in zip(keys, missing)
    ]
    return np.array(codes, dtype=np.intp)


def _keys(ids):
    """Ids as Python objects; times of all units as those of the standard library."""
    if ids.dtype.kind in "mM":
        ids = ids.astype(f"{ids.dtype.kind}8[us]").astype(object)
    return ids.tolist()


def slopes_of(estimator, random_slopes, entries, kept):
    """Positions of the slope columns among the features, for each factor."""
    if random_slopes is None:
        return [[] for _ in entries]
    if not entries:
        raise ValueError(
            f"random_slopes={random_slopes!r} vary by group, but groups=None: name the "
            "column of the groups, or leave random_slopes None."
        )
    by_entry = random_slopes
    if not isinstance(random_slopes, dict):
        by_entry = dict.fromkeys(entries, random_slopes)
    unknown = [entry for entry in by_entry if entry not in entries]
    if unknown:
        raise ValueError(
            f"random_slopes has {unknown!r}, which are not in groups={entries!r}: its "
            "keys are entries of groups."
        )
    out = []
    for entry in entries:
        columns = by_entry.get(entry, [])
        columns = list(columns) if isinstance(columns, list | tuple) else [columns]
        at = [feature_position(estimator, c, "random_slopes", kept) for c in columns]
        if len(set(at)) < len(at):
            raise ValueError(
                f"random_slopes={random_slopes!r} names a column twice for {entry!r}: "
                "name it once."
            )
        out.append(at)
    return out


class Factors:
    """Grouping factors of a fit, in the user's order.

    Attributes
    ----------
    names : list of str
    slopes : list of list of int
        Positions of slope columns among the features.
    slope_names : list of list of str
    levels : list of arrays
    """

    def __init__(self, names, slopes, slope_names, levels):
        self.names = names
        self.slopes = slopes
        self.slope_names = slope_names
        self.levels = levels

    @property
    def order(self):
        """Factors with the one of most effects first: that one is eliminated."""
        sizes = [len(v) * (1 + len(s)) for v, s in zip(self.levels, self.slopes)]
        return sorted(range(len(sizes)), key=lambda f: -sizes[f])

    def in_order(self):
        """(names, sizes) as the model has them."""
        names = [self.names[f] for f in self.order]
        sizes = [(len(self.levels[f]), 1 + len(self.slopes[f])) for f in self.order]
        return names, tuple(sizes)

    def codes(self, groups):
        """Codes of ids in the user's order of factors."""
        return [codes_of(ids, levels) for ids, levels in zip(groups, self.levels)]

    def slope_scales(self, frame):
        return {name: frame.scale[at] for name, at in zip(self.names, self.slopes)}

    def terms(self, factor, X, frame):
        """Coefficients of the effects of a factor's levels, (n, effects)."""
        at = self.slopes[factor]
        return np.column_stack([np.ones(len(X)), X[:, at] / frame.scale[at]])

    def new_levels(self, rows, codes, known, frame):
        """For factors with levels that count as new: their terms, and numbers of them.

        Numbers are -1 where the level is known.
        """
        terms, ids = {}, {}
        for f, name in enumerate(self.names):
            new = known[f] < 0
            if not new.any():
                continue
            term = self.terms(f, rows.features, frame)
            terms[name] = np.where(new[:, None], term, 0.0)
            number = codes_of(rows.groups[f], levels_of(rows.groups[f]))
            ids[name] = np.where(new, number, -1)
        return terms, ids


def grouped_rows(layout, frame, rows, factors, codes):
    """Rows in standard units, factors in the model's order."""
    X = rows.features
    Z = np.ones((len(X), len(frame.scale) + frame.level))
    divisor = np.where(frame.varies, frame.scale, np.inf)
    Z[:, : X.shape[1]] = (X - frame.offset) / divisor
    return GroupedRows(
        layout,
        Z,
        [codes[f] for f in factors.order],
        [factors.terms(f, X, frame) for f in factors.order],
    )
