"""Rows of a wide matrix (n <= p), read without ever forming a p x p product.

A row is ``sqrt(weight) * (x - mean) / scale``. Dense rows are held standardised;
sparse rows stay sparse and are centred implicitly, a block of columns at a time.
"""

import numpy as np

BLOCK_ELEMENTS = 1 << 18  # elements of a dense block: 2 MiB of float64 fits the cache


def block_slices(n_items, n_other):
    """Slices over ``n_items`` such that a block of them fits the cache."""
    step = max(16, BLOCK_ELEMENTS // max(1, n_other))
    return [slice(i, min(i + step, n_items)) for i in range(0, n_items, step)]


class DenseRows:
    """Standardised rows held as one (n, p) array."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape

    @classmethod
    def standardise(cls, X, root_weight, mean, scale):
        values = np.empty(X.shape, dtype=X.dtype)
        for cols in block_slices(X.shape[1], X.shape[0]):
            # Centre before scaling: the shift may be 1e9 times the spread.
            block = (X[:, cols] - mean[cols]) / scale[cols]
            values[:, cols] = block * root_weight[:, None]
        return cls(values)

    def column_blocks(self):
        """Yield (slice of columns, dense float block of shape (n, k))."""
        for cols in block_slices(self.shape[1], self.shape[0]):
            yield cols, self.values[:, cols]

    def dot(self, M):
        # By blocks: a product of float32 and float64 would copy all rows to float64.
        out = np.zeros((self.shape[0], *M.shape[1:]))
        for cols, block in self.column_blocks():
            out += block @ M[cols]
        return out

    def tdot(self, M):
        out = np.empty((self.shape[1], *M.shape[1:]))
        for cols, block in self.column_blocks():
            out[cols] = block.T @ M
        return out


class SparseRows:
    """Rows whose matrix stays sparse (CSC); centring is a rank-one correction."""

    def __init__(self, matrix, root_weight, mean, scale):
        self.matrix, self.mean = _centre_full_columns(matrix, mean)
        self.root_weight = root_weight
        self.scale = scale
        self.shape = matrix.shape

    def column_blocks(self):
        """Yield (slice of columns, dense float block of shape (n, k))."""
        for cols in block_slices(self.shape[1], self.shape[0]):
            block = self.matrix[:, cols].toarray().astype(np.float64, copy=False)
            block = (block - self.mean[cols]) / self.scale[cols]
            yield cols, block * self.root_weight[:, None]

    def dot(self, M):
        scaled = (M.T / self.scale).T
        rows = self.matrix @ scaled - self.mean @ scaled
        return (rows.T * self.root_weight).T

    def tdot(self, M):
        weighted = (M.T * self.root_weight).T
        total = np.multiply.outer(self.mean, weighted.sum(axis=0))
        return ((self.matrix.T @ weighted - total).T / self.scale).T


def _centre_full_columns(matrix, mean):
    """(matrix, mean) with the columns that hold no zero centred in place of their mean.

    Zeros keep a column's mean within sqrt(n) sds. Without one it may be far from zero,
    and the rank-one correction would then be a difference of large numbers.
    """
    matrix, mean = matrix.copy(), np.array(mean, dtype=np.float64)
    matrix.sum_duplicates()
    for j in np.flatnonzero(np.diff(matrix.indptr) == matrix.shape[0]):
        column = slice(matrix.indptr[j], matrix.indptr[j + 1])
        matrix.data[column] = matrix.data[column] - mean[j]
        mean[j] = 0.0
    return matrix, mean
