"""The data of a mixture: rows read in standard units, and the totals priors rest on.

Nothing of the size of X is kept: a block is centred and scaled when it is read. The
scales are powers of two, which change no digit, and come before any square.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

EPS = np.finfo(np.float64).eps
BLOCK_ELEMENTS = 1 << 18  # of the rows that a thread takes at a time: milliseconds
SMALLEST_BLOCK, LARGEST_BLOCK = 512, 1 << 16
PASS_ELEMENTS = 1 << 17


def _blocks(X):
    step = max(1, PASS_ELEMENTS // max(1, X.shape[1]))
    return [slice(i, min(i + step, X.shape[0])) for i in range(0, X.shape[0], step)]


@dataclass(frozen=True)
class Frame:
    """Standard units: ``(x - centre) / unit``, the unit a power of two a column.

    Attributes
    ----------
    centre, unit : arrays of shape (D,)
    """

    centre: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, X, weight=None, common=False):
        """The frame of rows; `common` asks for one unit for all columns."""
        n_features = X.shape[1]
        if sparse.issparse(X):
            # Centring would fill it; the zeros keep a column's mean near its spread.
            largest = abs(X).max(axis=0).toarray().ravel().astype(np.float64)
            return cls(np.zeros(n_features), _power_of_two(largest, X.dtype, common))
        low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        for rows in _blocks(X):
            low = np.fmin(low, np.fmin.reduce(X[rows], axis=0))
            high = np.fmax(high, np.fmax.reduce(X[rows], axis=0))
        # Near the middle of the range first, so that the mean keeps its digits.
        middle = (0.5 * low + 0.5 * high).astype(X.dtype).astype(np.float64)
        rough = cls(
            middle, _power_of_two(np.fmax(high - middle, middle - low), X.dtype)
        )
        totals = Totals.of(Rows(X, weight, rough))
        # A number of X's own type, so that subtracting it rounds least.
        centre = (middle + rough.unit * totals.mean).astype(X.dtype)
        centre = centre.astype(np.float64)
        sd = np.sqrt(totals.variance) * rough.unit
        sd = np.where(sd > 0.0, sd, np.abs(centre))  # of a constant column
        return cls(centre, _power_of_two(sd, X.dtype, common))

    def inward(self, X):
        if sparse.issparse(X):
            return X.multiply(1.0 / self.unit.astype(X.dtype)).tocsr()
        return (X - self.centre.astype(X.dtype)) / self.unit.astype(X.dtype)


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
        self.n, self.dim = X.shape
        self._patterns = {}
        self._centre = frame.centre.astype(X.dtype)[:, None]
        self._scale = (1.0 / frame.unit).astype(X.dtype)[:, None]

    @property
    def total_weight(self):
        return float(self.n if self.weight is None else self.weight.sum())

    @cached_property
    def has_missing(self):
        if self.is_sparse:
            return False
        return any(np.isnan(self.X[part]).any() for part in _blocks(self.X))

    def standard(self, index):
        return self.frame.inward(self.X[index])

    def fill(self, out, part):
        """The standard rows of a slice, transposed, into an array (D, m)."""
        np.subtract(self.X[part].T, self._centre, out=out)
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


@dataclass(frozen=True)
class Totals:
    """Weighted counts, sums and squares of observed entries in a frame; they add.

    ``outer`` (D, D) sums products of rows whose missing entries are put at the centre;
    it is None where only variances are asked for.
    """

    weight: float
    observed: np.ndarray
    total: np.ndarray
    square: np.ndarray
    outer: np.ndarray | None = None

    @classmethod
    def of(cls, rows, products=False):
        dim = rows.dim
        observed, total, square = np.zeros(dim), np.zeros(dim), np.zeros(dim)
        outer = np.zeros((dim, dim)) if products else None
        for part in _blocks(rows.X):
            x, w = rows.standard(part), rows.weights(part)
            if rows.is_sparse:
                ones = np.ones(x.shape[0]) if w is None else w
                x = x.astype(np.float64)
                observed += ones.sum()
                total += x.T @ ones
                square += x.multiply(x).T @ ones
                continue
            missing = np.isnan(x)
            if missing.any():
                x = np.where(missing, 0.0, x)
                present = ~missing
                observed += present.sum(axis=0) if w is None else w @ present
            else:
                observed += len(x) if w is None else w.sum()
            x = x.astype(np.float64, copy=False)
            weighted = x if w is None else x * w[:, None]
            total += weighted.sum(axis=0)
            square += np.einsum("ij,ij->j", weighted, x)
            if products:
                outer += weighted.T @ x
        return cls(rows.total_weight, observed, total, square, outer)

    def __add__(self, other):
        outer = None if self.outer is None else self.outer + other.outer
        return Totals(
            self.weight + other.weight,
            self.observed + other.observed,
            self.total + other.total,
            self.square + other.square,
            outer,
        )

    @property
    def mean(self):
        return self.total / np.maximum(self.observed, np.finfo(np.float64).tiny)

    @property
    def variance(self):
        """Of the observed entries; zero where nothing is left but rounding."""
        mean = self.mean
        square = self.square / np.maximum(self.observed, np.finfo(np.float64).tiny)
        variance = square - mean**2
        return np.where(variance > 8.0 * EPS * square, variance, 0.0)

    def covariance(self):
        r"""Shrunk empirical covariance: positive definite whatever the rows.

        As if D more rows of uncorrelated columns had been seen,
        ``(N S + D diag(S)) / (N + D)``. Missing entries count as uncorrelated.
        """
        offset = self.total / self.weight
        S = self.outer / self.weight - np.outer(offset, offset)
        dim = len(S)
        # Entries put at the centre have no spread: the diagonal is that of the others.
        variance = np.maximum(self.scale**2, np.diag(S))
        S[np.diag_indices(dim)] = variance
        shrink = self.weight / (self.weight + dim)
        return shrink * S + (1.0 - shrink) * np.diag(variance)

    @property
    def scale(self):
        """Standard deviations; 1 in place of 0."""
        sd = np.sqrt(self.variance)
        return np.where(sd > 0.0, sd, 1.0)
