"""Totals of the rows: what priors that are relative to the data rest on."""

from dataclasses import dataclass

import numpy as np

EPS = np.finfo(np.float64).eps
PASS_ELEMENTS = 1 << 17
BULK_DOF = 4.0  # of the Student-t by which rows far from the bulk count less


def pass_slices(X):
    """Slices of the rows that fit the cache as float64."""
    step = max(1, PASS_ELEMENTS // max(1, X.shape[1]))
    return [slice(i, min(i + step, X.shape[0])) for i in range(0, X.shape[0], step)]


@dataclass(frozen=True)
class Totals:
    """Weighted counts, sums and squares of observed entries in a frame; they add.

    Attributes
    ----------
    weight : float
        How many rows there are.
    observed : array of shape (D,)
        How many entries of each column.
    rows, entries : float, array of shape (D,)
        The same, rows far from the bulk of the frame counting less if it has one.
    total, square : arrays of shape (D,)
        Sums and sums of squares, of as many entries.
    outer : array of shape (D, D) or None
        Products of such rows, missing entries put at the centre; None where only
        variances are asked for.
    """

    weight: float
    observed: np.ndarray
    rows: float
    entries: np.ndarray
    total: np.ndarray
    square: np.ndarray
    outer: np.ndarray | None = None

    @classmethod
    def of(cls, rows, products=False):
        """The totals of rows, with products of columns or without."""
        zeros = np.zeros(rows.dim)
        outer = np.zeros((rows.dim, rows.dim)) if products else None
        sums = cls(0.0, zeros, 0.0, zeros, zeros, zeros, outer)
        for part in pass_slices(rows.X):
            w = rows.weights(part)
            w = np.ones(part.stop - part.start) if w is None else w
            if rows.is_sparse:
                x = rows.standard(part).astype(np.float64)
                sums = sums + cls._of_sparse(x, w, rows.frame.bulk)
                continue
            columns = np.empty((rows.dim, len(w)))
            rows.fill(columns, part)
            sums = sums + cls._of_columns(columns, w, rows.frame.bulk, products)
        return sums

    @staticmethod
    def shares_of_bulk(rows):
        """What each of the rows counts, (n,), by its distance from their bulk."""
        bulk = rows.frame.bulk
        if bulk is None:
            return np.ones(rows.n)
        out = np.empty(rows.n)
        for part in pass_slices(rows.X):
            if rows.is_sparse:
                out[part] = _sparse_shares(rows.standard(part), bulk)
                continue
            columns = np.empty((rows.dim, part.stop - part.start))
            rows.fill(columns, part)
            out[part] = _shares(columns, bulk)
        return out

    @classmethod
    def _of_sparse(cls, x, w, bulk):
        squares, each = x.multiply(x).tocsr(), np.ones(x.shape[1])
        u = w if bulk is None else w * _sparse_shares(x, bulk)
        total, square = x.T @ u, squares.T @ u
        return cls(w.sum(), w.sum() * each, u.sum(), u.sum() * each, total, square)

    @classmethod
    def _of_columns(cls, x, w, bulk, products):
        """Of a block of rows, transposed: long axes add fast."""
        observed = np.full(len(x), w.sum())
        missing = np.isnan(x.sum(axis=1)).any()
        if missing:
            present = ~np.isnan(x)
            observed = present @ w
            np.copyto(x, 0.0, where=~present)
        u, entries = w, observed
        if bulk is not None:
            u = w * _shares(np.where(present, x, np.nan) if missing else x, bulk)
            entries = present @ u if missing else np.full(len(x), u.sum())
        weighted = x * u
        return cls(
            w.sum(),
            observed,
            u.sum(),
            entries,
            weighted.sum(axis=1),
            np.einsum("ij,ij->i", weighted, x),
            weighted @ x.T if products else None,
        )

    def __add__(self, other):
        outer = None if self.outer is None else self.outer + other.outer
        return Totals(
            self.weight + other.weight,
            self.observed + other.observed,
            self.rows + other.rows,
            self.entries + other.entries,
            self.total + other.total,
            self.square + other.square,
            outer,
        )

    @property
    def _divisor(self):
        return np.maximum(self.entries, np.finfo(np.float64).tiny)

    @property
    def mean(self):
        return self.total / self._divisor

    @property
    def variance(self):
        """Of the observed entries; zero where nothing is left but rounding."""
        square = self.square / self._divisor
        variance = square - self.mean**2
        return np.where(variance > 8.0 * EPS * square, variance, 0.0)

    @property
    def scale(self):
        """Standard deviations; 1 in place of 0."""
        sd = np.sqrt(self.variance)
        return np.where(sd > 0.0, sd, 1.0)

    def covariance(self):
        r"""Shrunk empirical covariance: positive definite whatever the rows.

        As if D more rows of uncorrelated columns had been seen,
        ``(N S + D diag(S)) / (N + D)``. Missing entries count as uncorrelated.
        """
        offset = self.total / self.rows
        S = self.outer / self.rows - np.outer(offset, offset)
        dim = len(S)
        # Entries put at the centre have no spread: the diagonal is that of the others.
        variance = np.maximum(self.scale**2, np.diag(S))
        S[np.diag_indices(dim)] = variance
        shrink = self.weight / (self.weight + dim)
        return shrink * S + (1.0 - shrink) * np.diag(variance)


def _shares(columns, bulk):
    """What rows count at such distances: the weights of a Student-t, without NaN."""
    gap = ((columns - bulk[0][:, None]) / bulk[1][:, None]) ** 2
    missing = np.isnan(gap)
    n_present = len(gap) - missing.sum(axis=0)
    np.copyto(gap, 0.0, where=missing)
    return (BULK_DOF + n_present) / (BULK_DOF + gap.sum(axis=0))


def _sparse_shares(x, bulk):
    mean, precision = bulk[0], bulk[1] ** -2.0
    square = x.multiply(x) @ precision - 2.0 * (x @ (mean * precision))
    square += precision @ mean**2
    return (BULK_DOF + x.shape[1]) / (BULK_DOF + square)
