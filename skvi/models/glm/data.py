"""Rows of a generalised linear model: standardised columns, blocks, running totals."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from skvi.linalg import DenseRows, SparseRows
from skvi.models.regression.scatter import units

EPS = np.finfo(np.float64).eps
BLOCK_ELEMENTS = 1 << 18  # of a block of rows: 2 MiB of float64 fit the cache
RESIDENT = 1 << 25  # elements of X up to which standardised rows are kept


@dataclass(frozen=True)
class ColumnTotals:
    """Weight, mean and sum of squares about the mean of columns; ``+`` merges two.

    Columns so large that their squares overflow are divided by a power of two first.
    """

    weight: float
    mean: np.ndarray
    square: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, X, weight):
        unit = units(X, np.zeros((X.shape[0], 1)))[:-1]
        total = float(weight.sum())
        if sparse.issparse(X):
            scaled = X.astype(np.float64) @ sparse.diags_array(1.0 / unit)
            scaled = sparse.csc_matrix(scaled)  # the class that is looked for
            mean, variance = mean_variance_axis(scaled, axis=0, weights=weight)
            return cls(total, mean, total * variance, unit)
        # About the first row: exact for columns that are constant.
        shift = X[0].astype(np.float64) / unit
        first, second = np.zeros_like(shift), np.zeros_like(shift)
        equal = np.all(weight == weight[0])
        plain = np.all(unit == 1.0)
        for rows in row_slices(*X.shape):
            block = X[rows].astype(np.float64)
            if not plain:
                block /= unit
            block -= shift
            if equal:
                first += weight[0] * block.sum(axis=0)
                second += weight[0] * np.einsum("ij,ij->j", block, block)
            else:
                weighted = weight[rows, None] * block
                first += weighted.sum(axis=0)
                second += np.einsum("ij,ij->j", weighted, block)
        offset = first / total
        square = np.maximum(second - total * offset**2, 0.0)
        # Many sds away the difference has no digits left: once more, about the mean.
        poor = square < 1e-8 * second
        if np.any(poor & (second > 0.0)):
            square[poor] = _about(X, weight, (shift + offset) * unit, poor) / (
                unit[poor] ** 2
            )
        return cls(total, shift + offset, square, unit)

    def __add__(self, other):
        unit = np.maximum(self.unit, other.unit)
        a, b = self._in(unit), other._in(unit)
        weight = a.weight + b.weight
        gap = b.mean - a.mean
        square = a.square + b.square + (a.weight * b.weight / weight) * gap**2
        return ColumnTotals(weight, a.mean + (b.weight / weight) * gap, square, unit)

    def _in(self, unit):
        ratio = self.unit / unit
        return ColumnTotals(
            self.weight, self.mean * ratio, self.square * ratio**2, unit
        )

    def frame(self, centred):
        """The Frame in which columns have mean zero (if centred) and sd one."""
        mean, square = self.mean, self.square / self.weight
        if not centred:
            mean, square = np.zeros_like(mean), square + mean**2
        if not np.all(np.isfinite(square)):
            raise ValueError(
                "The squares of X overflow: columns hold values of very different "
                "magnitude. Rescale them, for instance by StandardScaler."
            )
        sd = np.sqrt(square)
        varies = sd > 8.0 * EPS * np.abs(mean)
        scale = np.where(varies, sd, np.where(mean != 0.0, np.abs(mean), 1.0))
        return Frame(mean * self.unit, scale * self.unit, varies, centred)


def _about(X, weight, centre, columns):
    total = np.zeros(int(columns.sum()))
    for rows in row_slices(*X.shape):
        gap = X[rows][:, columns].astype(np.float64) - centre[columns]
        total += weight[rows] @ gap**2
    return total


@dataclass(frozen=True)
class Frame:
    """Standard units of the columns: ``(x - offset) / scale``, constant ones zero.

    Attributes
    ----------
    offset, scale : arrays of shape (p,)
    varies : bool array of shape (p,)
    level : bool
        Whether there is a level: a last column of ones.
    """

    offset: np.ndarray
    scale: np.ndarray
    varies: np.ndarray
    level: bool

    def rows(self, X):
        """Standardised rows of X, with the column of ones."""
        n, p = X.shape
        width = p + self.level
        divisor = np.where(self.varies, self.scale, np.inf)
        if sparse.issparse(X):
            ones = np.ones((n, 1)) if self.level else np.ones((n, 0))
            matrix = sparse.hstack([X.astype(np.float64), ones], format="csc")
            rest = np.ones(width - p)
            return SparseRows(
                matrix,
                np.ones(n),
                np.append(self.offset, 0.0 * rest),
                np.append(divisor, rest),
            )
        values = np.empty((n, width), dtype=X.dtype)
        # Centred in float64: the mean may be far from zero.
        gap = np.subtract(X, self.offset, dtype=np.float64)
        np.divide(gap, divisor, out=gap)
        values[:, :p] = gap
        values[:, p:] = 1.0
        return DenseRows(values)

    def moved_to(self, other):
        """T with ``z_other = T z_self`` for rows of the two frames, (p + 1, p + 1).

        For frames with a level; constant columns are taken to stay where they are.
        """
        p = len(self.scale)
        ratio = np.where(self.varies & other.varies, self.scale / other.scale, 1.0)
        T = np.diag(np.append(ratio, np.ones(int(self.level))))
        if self.level:
            T[:p, p] = np.where(
                other.varies, (self.offset - other.offset) / other.scale, 0.0
            )
        return T


class Block:
    """Some rows as the local step reads them.

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
    y, weight : arrays of shape (n,)
    offset : array of shape (n,)
        What the linear predictor has besides the weights' part.
    frame : Frame
    keep : bool
        Whether standardised rows are kept from pass to pass.
    rows : DenseRows or SparseRows, optional
        The standardised rows, if they are there already.
    """

    memory = None

    def __init__(self, X, y, weight, offset, frame, keep=True, rows=None):
        self.X = X
        self.y = y
        self.weight = weight
        self.offset = offset
        self.frame = frame
        self.keep = keep
        self._rows = rows

    @classmethod
    def parts(cls, X, y, weight, offset, frame):
        """Blocks that fit the cache; they do not depend on the number of workers."""
        n, p = X.shape
        keep = sparse.issparse(X) or X.size <= RESIDENT
        if sparse.issparse(X):  # what counts is a block's entries, and calls
            p = 1 + X.nnz // (16 * n)
        return [
            cls(X[rows], y[rows], weight[rows], offset[rows], frame, keep)
            for rows in row_slices(n, p)
        ]

    @property
    def rows(self):
        if self._rows is not None:
            return self._rows
        rows = self.frame.rows(self.X)
        if self.keep:
            self._rows = rows
        return rows


def row_slices(n, p):
    """Slices of rows of a matrix with p columns."""
    step = int(max(1024, BLOCK_ELEMENTS // max(1, p), 2 * p))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]
