"""Standardised rows of a matrix, dense or sparse, and the products that models take.

A row is ``sqrt(weight) * (x - mean) / scale``. Dense rows are held standardised;
sparse rows stay sparse and are centred implicitly. Those of a wide matrix (n <= p) are
read a block of columns at a time, without ever forming a p x p product.
"""

from functools import cached_property

import numpy as np
from scipy import sparse

MOST_COLUMNS = 2048  # of sparse rows whose products of pairs of entries are kept
BLOCK_ELEMENTS = 1 << 18  # elements of a dense block: 2 MiB of float64 fits the cache


def block_slices(n_items, n_other):
    """Slices over ``n_items`` such that a block of them fits the cache."""
    step = max(16, BLOCK_ELEMENTS // max(1, n_other))
    return [slice(i, min(i + step, n_items)) for i in range(0, n_items, step)]


def column_slices(shape, width=None):
    """Slices of columns, of this width or such that a block fits the cache."""
    n, p = shape
    if width is None:
        return block_slices(p, n)
    return [slice(j, min(j + width, p)) for j in range(0, p, width)]


class Rows:
    """What dense and sparse rows share."""

    _kernel = None

    def kernel(self, ridge):
        """``Z diag(ridge)^-1 Z'``; of one ridge for all but the last column once."""
        if len(ridge) < 2 or np.ptp(ridge[:-1]) > 0.0:
            return self._scaled_kernel(ridge)
        last = self._parts_of_kernel()[1]
        return self.first_kernel() / ridge[0] + last / ridge[-1]

    def first_kernel(self):
        """``Z Z'`` of all columns but the last."""
        return self._parts_of_kernel()[0]

    def _parts_of_kernel(self):
        if self._kernel is None:
            ones = np.ones(self.shape[1] - 1)
            only = np.append(ones, np.inf), np.append(np.inf * ones, 1.0)
            self._kernel = [self._scaled_kernel(each) for each in only]
        return self._kernel

    def _scaled_kernel(self, ridge):
        kernel = np.zeros((self.shape[0], self.shape[0]))
        for cols, block in self.column_blocks():
            scaled = block / np.sqrt(ridge[cols])
            kernel += scaled @ scaled.T  # one operand twice: BLAS does half the work
        return kernel

    def dense(self):
        """All of Z, for few rows."""
        return np.concatenate([block for _, block in self.column_blocks()], axis=1)

    def gram(self, weights):
        """``Z' W Z`` with one weight a row (n,), or a (K, K) matrix (n, K, K)."""
        if weights.ndim == 1:
            return self._gram(weights)
        K, p = weights.shape[1], self.shape[1]
        out = np.empty((K, p, K, p))
        for k in range(K):
            for l in range(k + 1):
                out[k, :, l] = self._gram(weights[:, k, l])
                out[l, :, k] = out[k, :, l].T
        return out.reshape(K * p, K * p)

    def quadratic(self, covariance, n_outputs=1):
        """Covariances of each row's linear predictors, from those of all weights."""
        if n_outputs == 1:
            return self._quadratic(covariance)
        K, p = n_outputs, self.shape[1]
        blocks = covariance.reshape(K, p, K, p)
        out = np.empty((self.shape[0], K, K))
        for k in range(K):
            for l in range(k + 1):
                out[:, k, l] = out[:, l, k] = self._quadratic(blocks[k, :, l])
        return out


class DenseRows(Rows):
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

    def column_blocks(self, width=None):
        """Yield (slice of columns, dense float block of shape (n, k))."""
        for cols in column_slices(self.shape, width):
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

    def squares(self, M):
        """``(Z * Z) M``."""
        out = np.zeros((self.shape[0], *M.shape[1:]))
        for cols, block in self.column_blocks():
            out += block**2 @ M[cols]
        return out

    def squares_tdot(self, M):
        """``(Z * Z)' M``."""
        out = np.empty((self.shape[1], *M.shape[1:]))
        for cols, block in self.column_blocks():
            out[cols] = (block**2).T @ M
        return out

    def norms(self, precision):
        """``z' P^-1 z`` of each row."""
        root = precision.inverse_root().astype(self.values.dtype, copy=False)
        white = self.values @ root.T
        return np.einsum("ij,ij->i", white, white, dtype=np.float64)

    def _gram(self, weight):
        weight = weight.astype(self.values.dtype, copy=False)
        if np.all(weight >= 0.0):
            scaled = self.values * np.sqrt(weight)[:, None]
            return scaled.T @ scaled  # one operand twice: BLAS does half the work
        return self.values.T @ (self.values * weight[:, None])

    def _quadratic(self, block):
        along = self.values @ block.astype(self.values.dtype, copy=False)
        return np.einsum("ij,ij->i", along, self.values, dtype=np.float64)


class SparseRows(Rows):
    """Rows whose matrix stays sparse (CSC); centring is a rank-one correction."""

    def __init__(self, matrix, root_weight, mean, scale):
        self.matrix, self.mean = _centre_full_columns(matrix, mean)
        self.root_weight = root_weight
        self.scale = scale
        self.shape = matrix.shape

    def column_blocks(self, width=None):
        """Yield (slice of columns, dense float block of shape (n, k))."""
        for cols in column_slices(self.shape, width):
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

    @cached_property
    def _scaled(self):
        """The weighted rows over their scales, CSR; what the mean takes off them."""
        inverse = sparse.diags_array(1.0 / self.scale)
        scaled = (self.matrix @ inverse).tocsr()
        if np.any(self.root_weight != 1.0):
            scaled = (sparse.diags_array(self.root_weight) @ scaled).tocsr()
        return scaled, self.mean / self.scale

    @cached_property
    def _squared(self):
        scaled, _ = self._scaled
        return scaled.multiply(scaled).tocsr()

    def squares(self, M):
        """``(Z * Z) M``, from ``(x - m)^2 = x^2 - 2 x m + m^2``."""
        (scaled, shift), root = self._scaled, self.root_weight
        cross = scaled @ (shift * M.T).T
        constant = (shift**2) @ M
        out = self._squared @ M - 2.0 * (cross.T * root).T
        return np.maximum(out + np.multiply.outer(root**2, constant), 0.0)

    def squares_tdot(self, M):
        """``(Z * Z)' M``."""
        (scaled, shift), root = self._scaled, self.root_weight
        weighted = (M.T * root).T
        cross = ((scaled.T @ weighted).T * shift).T
        constant = np.multiply.outer(shift**2, (weighted.T * root).T.sum(axis=0))
        return np.maximum(self._squared.T @ M - 2.0 * cross + constant, 0.0)

    def norms(self, precision):
        """``z' P^-1 z`` of each row."""
        return np.maximum(self._quadratic(precision.covariance()), 0.0)

    def _gram(self, weight):
        (scaled, shift), root = self._scaled, self.root_weight
        if self._pairs is None:
            weighted = scaled.multiply(weight[:, None]).tocsr()
            total = (scaled.T @ weighted).toarray()
        else:
            p = self.shape[1]
            total = (self._pairs.T @ weight).reshape(p, p)
            total = total + np.triu(total, 1).T
        column = scaled.T @ (weight * root)
        total -= np.outer(shift, column)
        total -= np.outer(column, shift)
        return total + (weight @ root**2) * np.outer(shift, shift)

    def _quadratic(self, block):
        (scaled, shift), root = self._scaled, self.root_weight
        if self._pairs is None:
            out = np.empty(self.shape[0])
            for rows in block_slices(*self.shape):
                some = scaled[rows]
                out[rows] = some.multiply(some @ block).sum(axis=1)
        else:
            out = self._pairs @ (np.triu(block) + np.tril(block, -1).T).ravel()
        before, after, constant = block @ shift, shift @ block, shift @ block @ shift
        out -= root * (scaled @ (before + after))
        return out + constant * root**2

    @cached_property
    def _pairs(self):
        """Products of each row's entries by pair of columns (n, p p), or None.

        Gram matrices and quadratic forms are sums over pairs: with few entries a row
        they are products of this matrix with a vector.
        """
        scaled, _ = self._scaled
        p = self.shape[1]
        counts = np.diff(scaled.indptr).astype(np.int64)
        per_row = counts * (counts + 1) // 2
        # Where they take less room than half of the dense matrix.
        if p > MOST_COLUMNS or 3 * per_row.sum() > self.shape[0] * p:
            return None
        scaled.sort_indices()
        indptr = np.append(0, np.cumsum(per_row))
        codes = np.empty(indptr[-1], dtype=np.int32)
        values = np.empty(indptr[-1])
        for rows in block_slices(len(counts), max(1, int(per_row.max(initial=1)))):
            some = slice(indptr[rows.start], indptr[rows.stop])
            first, second = _pairs_of(scaled.indptr[rows.start : rows.stop + 1])
            codes[some] = scaled.indices[first] * p + scaled.indices[second]
            values[some] = scaled.data[first] * scaled.data[second]
        return sparse.csr_array((values, codes, indptr), shape=(len(counts), p * p))


def _pairs_of(indptr):
    """Positions (first, second) of each row's entries with those from itself on."""
    counts = np.diff(indptr).astype(np.int64)
    at = np.arange(indptr[0], indptr[-1])
    rest = indptr[1:][np.repeat(np.arange(len(counts)), counts)] - at
    first = np.repeat(at, rest)
    return first, first + np.arange(len(first)) - np.repeat(
        np.cumsum(rest) - rest, rest
    )


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
