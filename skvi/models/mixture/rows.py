"""The data of a mixture: rows, read in standard units.

Nothing of the size of X is kept: a block is centred and scaled when it is read. The
scales are powers of two, which change no digit, and come before any square.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from skvi.models.mixture.totals import Totals, pass_slices

MAD_TO_SD = 1.4826  # of a normal law
PATTERN_ROWS = 2000  # looked at for the number of patterns of missing entries
ROWS_A_PATTERN = 8  # so that taking rows by their patterns pays
BLOCK_ELEMENTS = 1 << 18  # of the rows that a thread takes at a time: milliseconds
SMALLEST_BLOCK, LARGEST_BLOCK = 512, 1 << 16


@dataclass(frozen=True)
class Frame:
    """Standard units: ``(x - centre) / unit``, the unit a power of two a column.

    Attributes
    ----------
    centre, unit : arrays of shape (D,)
    scale : array of shape (D,)
        Standard deviations of the columns, in these units (of sparse ones their
        largest numbers).
    bulk : None or pair of arrays of shape (D,)
        About the means and standard deviations, in these units, of the bulk of the
        rows, where rows far from it are not to count in full.
    """

    centre: np.ndarray
    unit: np.ndarray
    scale: np.ndarray | None = None
    bulk: tuple | None = None

    @classmethod
    def of(cls, X, weight=None, common=False, robust=False):
        """The frame of rows.

        `common` asks for one unit for all columns, `robust` for medians and median
        absolute deviations in place of means and standard deviations.
        """
        n_features = X.shape[1]
        if sparse.issparse(X):
            # Centring would fill it; the zeros keep a column's mean near its spread.
            largest = abs(X).max(axis=0).toarray().ravel().astype(np.float64)
            unit = _power_of_two(largest, X.dtype, common)
            frame = cls(np.zeros(n_features), unit, largest / unit)
            return frame._with_bulk(X, weight) if robust else frame
        low, high = _range(X)
        # Near the middle of the range first, so that the mean keeps its digits.
        with np.errstate(invalid="ignore"):  # a column without a number
            middle = 0.5 * low + 0.5 * high
        middle = middle.astype(X.dtype).astype(np.float64)
        rough = cls(
            middle, _power_of_two(np.fmax(high - middle, middle - low), X.dtype)
        )
        totals = Totals.of(Rows(X, weight, rough))
        # A number of X's own type, so that subtracting it rounds least.
        centre = (middle + rough.unit * totals.mean).astype(X.dtype)
        centre = centre.astype(np.float64)
        sd = np.sqrt(totals.variance) * rough.unit
        if robust:
            centre, deviation = _medians(X, weight)
            sd = np.where(deviation > 0.0, deviation, sd)
        sd = np.where(sd > 0.0, sd, np.abs(centre))  # of a constant column
        unit = _power_of_two(sd, X.dtype, common)
        _check_squares(unit)
        frame = cls(centre, unit, sd / unit)
        return frame._with_bulk(X, weight) if robust else frame

    def _with_bulk(self, X, weight):
        centre, sd = _medians(X, weight)
        sd = np.where(sd > 0.0, sd, Totals.of(Rows(X, weight, self)).scale * self.unit)
        return replace(self, bulk=((centre - self.centre) / self.unit, sd / self.unit))

    def inward(self, X):
        if sparse.issparse(X):
            return X.multiply(1.0 / self.unit.astype(X.dtype)).tocsr()
        return (X - self.centre.astype(X.dtype)) / self.unit.astype(X.dtype)


def _check_squares(unit):
    with np.errstate(over="ignore", under="ignore"):
        square = unit**2
    if not np.all(np.isfinite(square) & (square > np.finfo(np.float64).tiny)):
        size = unit[np.argmax(np.abs(np.log(unit)))]
        raise ValueError(
            f"X has a column whose standard deviation is about {size:.3g}: its square "
            "is no float. Measure X in other units."
        )


def _range(X):
    """Smallest and largest entries of the columns, NaN left out."""
    low, high = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    for rows in pass_slices(X):
        columns = np.ascontiguousarray(X[rows].T)  # so that reductions are fast
        least, most = columns.min(axis=1), columns.max(axis=1)
        if np.isnan(least).any():
            least, most = (f.reduce(columns, axis=1) for f in (np.fmin, np.fmax))
        low, high = np.fmin(low, least), np.fmax(high, most)
    return low, high


def _medians(X, weight):
    """Weighted medians of the columns, and standard deviations from median distances.

    NaN is left out.
    """
    out = np.empty((2, X.shape[1]))
    columns = X.tocsc() if sparse.issparse(X) else X
    for j in range(X.shape[1]):
        column = columns[:, j]
        column = column.toarray().ravel() if sparse.issparse(X) else column
        present = ~np.isnan(column)
        x = column[present].astype(np.float64)
        w = None if weight is None else weight[present]
        out[0, j] = _median(x, w)
        out[1, j] = MAD_TO_SD * _median(np.abs(x - out[0, j]), w)
    return out


def _median(x, weight):
    if not x.size:
        return np.nan
    if weight is None:
        return np.median(x)
    order = np.argsort(x)
    x, share = x[order], weight[order].cumsum()
    # Between the two middle ones, as for rows repeated.
    low = np.searchsorted(share, 0.5 * share[-1])
    high = np.searchsorted(share, 0.5 * share[-1], side="right")
    return 0.5 * (x[low] + x[min(high, x.size - 1)])


def _power_of_two(size, dtype, common=False):
    limit = -np.finfo(dtype).minexp - 1
    size = np.where(np.isfinite(size) & (size > 0.0), size, 0.0)
    if common:
        size = np.full_like(size, size.max(initial=0.0))
    exponent = np.frexp(size)[1]
    # It and its inverse must be floats, of single precision for single data.
    return np.where(size > 0.0, np.ldexp(1.0, np.clip(exponent, -limit, limit)), 1.0)


class Rows:
    """Rows of X, of weight or not, in the units of a frame."""

    def __init__(self, X, weight, frame):
        self.X = X
        self.weight = weight
        self.frame = frame
        self.is_sparse = sparse.issparse(X)
        self.dtype = X.dtype
        self.arithmetic = X.dtype  # a model may ask for more
        self.n, self.dim = X.shape
        self._patterns = {}
        self.kept = {}  # pieces that a model made once
        self._centre = frame.centre.astype(X.dtype)[:, None]
        self._scale = (1.0 / frame.unit).astype(X.dtype)[:, None]

    def __getstate__(self):
        return {**self.__dict__, "kept": {}}

    def taken(self, index):
        """Some of the rows."""
        weight = None if self.weight is None else self.weight[index]
        return Rows(self.X[index], weight, self.frame)

    @property
    def total_weight(self):
        return float(self.n if self.weight is None else self.weight.sum())

    @cached_property
    def has_missing(self):
        if self.is_sparse:
            return False
        return any(np.isnan(self.X[part]).any() for part in pass_slices(self.X))

    def standard(self, index, dtype=None):
        X = self.X[index]
        return self.frame.inward(X if dtype is None else X.astype(dtype, copy=False))

    def fill(self, out, part):
        """The standard rows of a slice, transposed, into an array (D, m)."""
        np.subtract(self.X[part].T, self._centre, out=out, dtype=out.dtype)
        out *= self._scale

    def weights(self, index):
        return None if self.weight is None else self.weight[index]

    def blocks(self, row_size):
        """(rows, slice) that one thread takes, a row making so many numbers."""
        step = int(np.clip(BLOCK_ELEMENTS // row_size, SMALLEST_BLOCK, LARGEST_BLOCK))
        return [
            (self, slice(start, min(start + step, self.n)))
            for start in range(0, self.n, step)
        ]

    @cached_property
    def rows_are_patterns(self):
        """Whether hardly two rows miss the same entries."""
        some = self.X[:PATTERN_ROWS]
        packed = np.packbits(np.isnan(some), axis=1)
        return len(np.unique(packed, axis=0)) > len(some) / ROWS_A_PATTERN

    def missing_groups(self, rows):
        """Pairs (indices of rows, columns that each misses): as many in a group."""
        key = (rows.start, rows.stop, "missing")
        if key not in self._patterns:
            missing = np.isnan(self.X[rows])
            count = missing.sum(axis=1)
            groups = []
            for m in np.unique(count):
                index = np.flatnonzero(count == m)
                columns = np.nonzero(missing[index])[1].reshape(len(index), m)
                groups.append((rows.start + index, columns))
            self._patterns[key] = groups
        return self._patterns[key]

    def pattern_groups(self, rows):
        """Pairs (indices of rows, mask of their observed entries), found once."""
        key = (rows.start, rows.stop)
        if key not in self._patterns:
            observed = ~np.isnan(self.X[rows])
            packed = np.packbits(observed, axis=1)
            _, first, which = np.unique(
                packed, axis=0, return_index=True, return_inverse=True
            )
            order = np.argsort(which.ravel(), kind="stable")
            ends = np.cumsum(np.bincount(which.ravel()))[:-1]
            self._patterns[key] = [
                (rows.start + index, observed[at])
                for at, index in zip(first, np.split(order, ends))
            ]
        return self._patterns[key]
